package policy

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
)

const (
	unaryMethod  = "/grpc.testing.TestService/UnaryCall"
	streamMethod = "/grpc.testing.TestService/FullDuplexCall"
)

// testServer is a server whose methods are functions.
type testServer struct {
	pb.UnimplementedTestServiceServer
	unary  func(context.Context, *pb.SimpleRequest) (*pb.SimpleResponse, error)
	duplex func(pb.TestService_FullDuplexCallServer) error
	calls  atomic.Int64
}

func (s *testServer) UnaryCall(ctx context.Context, req *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	s.calls.Add(1)
	return s.unary(ctx, req)
}

func (s *testServer) FullDuplexCall(ss pb.TestService_FullDuplexCallServer) error {
	s.calls.Add(1)
	return s.duplex(ss)
}

// serve starts impl on a listener in memory, which works in virtual time. It stops with the test.
func serve(t testing.TB, impl pb.TestServiceServer, opts ...grpc.ServerOption) *bufconn.Listener {
	t.Helper()
	lis := bufconn.Listen(1 << 20)
	srv := grpc.NewServer(opts...)
	pb.RegisterTestServiceServer(srv, impl)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(lis) }()
	t.Cleanup(func() {
		srv.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return lis
}

func dialOptions(lis *bufconn.Listener) []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }),
	}
}

func dial(t testing.TB, lis *bufconn.Listener, opts ...grpc.DialOption) pb.TestServiceClient {
	t.Helper()
	cc, err := grpc.NewClient("passthrough:///memory", append(dialOptions(lis), opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return pb.NewTestServiceClient(cc)
}

// obeying returns options of a plain grpc-go connection that obeys p.
func obeying(p *Policy) []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithDisableRetry(),
		grpc.WithChainUnaryInterceptor(UnaryClientInterceptor(p)),
		grpc.WithChainStreamInterceptor(StreamClientInterceptor(p)),
	}
}

func serving(p *Policy) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(UnaryServerInterceptor(p)),
		grpc.ChainStreamInterceptor(StreamServerInterceptor(p)),
	}
}

// rule is a policy for all methods of TestService.
func rule(t testing.TB, entry string, rec Recorder) *Policy {
	t.Helper()
	return file(t, "methodConfig: [{name: [{service: grpc.testing.TestService}], "+entry+"}]", rec)
}

func file(t testing.TB, text string, rec Recorder) *Policy {
	t.Helper()
	c, err := Parse("test.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return New(c, WithLogger(slog.New(slog.DiscardHandler)), WithRecorder(rec))
}

// tape records events.
type tape struct {
	mu     sync.Mutex
	events []Event
}

func (r *tape) Record(e Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

// of returns the events of a kind, once all have been told.
func (r *tape) of(k Kind) []Event {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []Event
	for _, e := range r.events {
		if e.Kind == k {
			out = append(out, e)
		}
	}
	return out
}

func answer(context.Context, *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	return &pb.SimpleResponse{Username: "ok"}, nil
}

func failing(code codes.Code) func(context.Context, *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	return func(context.Context, *pb.SimpleRequest) (*pb.SimpleResponse, error) {
		return nil, status.Error(code, "as told")
	}
}

func wantCode(t *testing.T, err error, want codes.Code) {
	t.Helper()
	if got := status.Code(err); got != want {
		t.Errorf("got %v (%v), want %v", got, err, want)
	}
}

func TestDeadlineOfCalls(t *testing.T) {
	for _, c := range []struct {
		name         string
		entry        string
		caller, want time.Duration
	}{
		{"neither", "waitForReady: false", 0, 10 * time.Second},
		{"the file", "timeout: 0.3s", 0, 300 * time.Millisecond},
		{"the caller", "waitForReady: false", time.Minute, time.Minute},
		{"the shorter of both, the file's", "timeout: 2s", time.Minute, 2 * time.Second},
		{"the shorter of both, the caller's", "timeout: 2s", time.Second, time.Second},
		{"with all parts", "timeout: 2s, retryPolicy: {maxAttempts: 3, initialBackoff: 0.01s, maxBackoff: 1s, backoffMultiplier: 2, retryableStatusCodes: [UNAVAILABLE]}, x-stile: {idempotency: IDEMPOTENT, breaker: {}, limit: {maxRequests: 3}}", 0, 2 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var left atomic.Int64
				srv := &testServer{unary: func(ctx context.Context, _ *pb.SimpleRequest) (*pb.SimpleResponse, error) {
					if d, ok := ctx.Deadline(); ok {
						left.Store(int64(time.Until(d)))
					}
					<-ctx.Done()
					return nil, contextStatus(ctx.Err())
				}}
				srv.duplex = func(ss pb.TestService_FullDuplexCallServer) error {
					_, err := srv.unary(ss.Context(), nil)
					return err
				}
				client := dial(t, serve(t, srv), obeying(rule(t, c.entry, nil))...)
				for _, call := range []func(context.Context) error{
					func(ctx context.Context) error { _, err := client.UnaryCall(ctx, &pb.SimpleRequest{}); return err },
					func(ctx context.Context) error {
						s, err := client.FullDuplexCall(ctx)
						if err == nil {
							_, err = s.Recv()
						}
						return err
					},
				} {
					ctx, cancel := context.WithCancel(context.Background())
					if c.caller != 0 {
						ctx, cancel = context.WithTimeout(context.Background(), c.caller)
					}
					begin := time.Now()
					wantCode(t, call(ctx), codes.DeadlineExceeded)
					cancel()
					if took, given := time.Since(begin), time.Duration(left.Swap(0)); took != c.want || given > c.want || given == 0 {
						t.Errorf("ended after %v, the server was given %v; want %v", took, given, c.want)
					}
				}
			})
		})
	}
}

// hops makes a chain of n servers, each of which calls the next, and the last of which hangs. All but
// the first caller take their deadlines from the policy or from their caller.
func hops(t *testing.T, p *Policy, n int, worked func(hop int, until time.Time)) pb.TestServiceClient {
	leaf := func(ctx context.Context, _ *pb.SimpleRequest) (*pb.SimpleResponse, error) {
		if _, ok := ctx.Deadline(); !ok {
			t.Error("the leaf has no deadline")
		}
		<-ctx.Done()
		worked(n, time.Now())
		return nil, contextStatus(ctx.Err())
	}
	next := dial(t, serve(t, &testServer{unary: leaf}, serving(p)...), obeying(p)...)
	for i := n - 1; i > 0; i-- {
		below := next
		hop := func(ctx context.Context, req *pb.SimpleRequest) (*pb.SimpleResponse, error) {
			if _, ok := ctx.Deadline(); !ok {
				t.Errorf("hop %d has no deadline", i)
			}
			defer func() { worked(i, time.Now()) }()
			time.Sleep(10 * time.Millisecond)
			return below.UnaryCall(ctx, req)
		}
		next = dial(t, serve(t, &testServer{unary: hop}, serving(p)...), obeying(p)...)
	}
	return next
}

func TestFourHopsWithHungLeaf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const retries = "retryPolicy: {maxAttempts: 3, initialBackoff: 0.01s, maxBackoff: 1s, backoffMultiplier: 2, retryableStatusCodes: [UNAVAILABLE, DEADLINE_EXCEEDED]}"
		p := rule(t, "timeout: 0.2s, "+retries+", x-stile: {idempotency: IDEMPOTENT, breaker: {}}", nil)
		var mu sync.Mutex
		var last time.Time
		client := hops(t, p, 4, func(_ int, until time.Time) {
			mu.Lock()
			defer mu.Unlock()
			last = until
		})
		begin := time.Now()
		_, err := client.UnaryCall(context.Background(), &pb.SimpleRequest{})
		wantCode(t, err, codes.DeadlineExceeded)
		if took := time.Since(begin); took > 205*time.Millisecond {
			t.Errorf("the caller waited %v", took)
		}
		time.Sleep(time.Second)
		mu.Lock()
		defer mu.Unlock()
		if worked := last.Sub(begin); worked > 205*time.Millisecond || worked <= 0 {
			t.Errorf("a hop worked until %v", worked)
		}
	})
}

// attemptsOf returns how often the server was told that the call had been tried.
func attemptsOf(ctx context.Context) string {
	v := metadata.ValueFromIncomingContext(ctx, previousAttempts)
	if len(v) == 0 {
		return "0"
	}
	return v[0]
}

// TestOptionsLikeGRPC: what a service config says of sizes and waiting, the chain says too.
func TestOptionsLikeGRPC(t *testing.T) {
	big := &pb.Payload{Body: make([]byte, 2000)}
	const text = "methodConfig: [{name: [{}], timeout: 1s, waitForReady: true, maxRequestMessageBytes: 1000, maxResponseMessageBytes: 1500}]"
	c, err := Parse("test.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, call := range []struct {
		req  *pb.SimpleRequest
		opts []grpc.CallOption
	}{
		{&pb.SimpleRequest{}, nil},
		{&pb.SimpleRequest{Payload: big}, nil},
		{&pb.SimpleRequest{Payload: big}, []grpc.CallOption{grpc.MaxCallSendMsgSize(1 << 20)}},
		{&pb.SimpleRequest{Payload: &pb.Payload{Body: make([]byte, 500)}}, []grpc.CallOption{grpc.MaxCallSendMsgSize(100)}},
		{&pb.SimpleRequest{ResponseSize: 2000}, nil},
		{&pb.SimpleRequest{ResponseSize: 1000}, []grpc.CallOption{grpc.MaxCallRecvMsgSize(1 << 20)}},
		{&pb.SimpleRequest{ResponseSize: 1000}, []grpc.CallOption{grpc.MaxCallRecvMsgSize(100)}},
	} {
		var got [2]string
		for i, opts := range [][]grpc.DialOption{{grpc.WithDefaultServiceConfig(string(c.ServiceConfig(true)))}, obeying(New(c))} {
			synctest.Test(t, func(t *testing.T) {
				srv := &testServer{unary: func(_ context.Context, req *pb.SimpleRequest) (*pb.SimpleResponse, error) {
					return &pb.SimpleResponse{Payload: &pb.Payload{Body: make([]byte, req.GetResponseSize())}}, nil
				}}
				lis := serve(t, srv)
				_, err := dial(t, lis, opts...).UnaryCall(context.Background(), call.req, call.opts...)
				got[i] = status.Convert(err).String()
			})
		}
		if got[0] != got[1] {
			t.Errorf("grpc-go: %s\nours:    %s", got[0], got[1])
		}
	}
	for i, opts := range [][]grpc.DialOption{{grpc.WithDefaultServiceConfig(string(c.ServiceConfig(true)))}, obeying(New(c))} {
		synctest.Test(t, func(t *testing.T) {
			lis := bufconn.Listen(1)
			lis.Close() // nobody is there
			_, err := dial(t, lis, opts...).UnaryCall(context.Background(), &pb.SimpleRequest{})
			if status.Code(err) != codes.DeadlineExceeded {
				t.Errorf("%d waits for nobody: %v", i, err)
			}
			_, err = dial(t, lis, opts...).UnaryCall(context.Background(), &pb.SimpleRequest{}, grpc.WaitForReady(false))
			if status.Code(err) != codes.Unavailable {
				t.Errorf("%d does not wait: %v", i, err)
			}
		})
	}
}
