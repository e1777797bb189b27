package stile

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/stile-ipc/stile/policy"
	"github.com/stile-ipc/stile/policy/policytest"
)

const quickRetry = "retryPolicy: {maxAttempts: 4, initialBackoff: 0.000001s, maxBackoff: 0.000001s, backoffMultiplier: 1, retryableStatusCodes: [UNAVAILABLE, ABORTED]}"

func testPolicy(t testing.TB, text string) *policy.Policy {
	t.Helper()
	c, err := policy.Parse("test.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return policy.New(c, policy.WithLogger(slog.New(slog.DiscardHandler)))
}

// serveUnix serves impl in the folder that STILE_DIR names.
func serveUnix(t testing.TB, impl pb.TestServiceServer, opts ...grpc.ServerOption) (target string) {
	t.Helper()
	lis, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(opts...)
	pb.RegisterTestServiceServer(s, impl)
	done := make(chan error, 1)
	go func() { done <- s.Serve(lis) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	waitOpen(t, s)
	return "unix://" + lis.Addr().String()
}

// policyServer serves impl and returns the ways to it: Stile's two, and plain gRPC.
func policyServer(t *testing.T, impl pb.TestServiceServer, opts ...grpc.ServerOption) func(way string, p *policy.Policy) pb.TestServiceClient {
	t.Helper()
	t.Setenv("STILE_DIR", t.TempDir())
	target := serveUnix(t, impl, opts...)
	return func(way string, p *policy.Policy) pb.TestServiceClient {
		opts := []grpc.DialOption{insecureOption(), WithPolicy(p)}
		switch way {
		case "unix":
			opts = append(opts, WithoutSharedMemory())
		case "grpc":
			t.Setenv("STILE", "off")
			defer t.Setenv("STILE", "")
		}
		cc, err := NewClient(target, opts...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cc.Close() })
		return pb.NewTestServiceClient(cc)
	}
}

var policyWays = []string{"shm", "unix", "grpc"}

// TestPolicySameEachWay: whichever way calls go, the server sees the same attempts, and callers
// the same outcomes.
func TestPolicySameEachWay(t *testing.T) {
	for seed := range 20 {
		var first []string
		for _, way := range policyWays {
			r := rand.New(rand.NewPCG(uint64(seed), 2))
			srv := &policytest.Server{Steps: policytest.RandomSteps(r, 60)}
			p := testPolicy(t, "x-stile: {retryBudget: {budgetPercent: 100, minRetryConcurrency: 100}}\nretryThrottling: {maxTokens: 8, tokenRatio: 0.5}\nmethodConfig: [{name: [{}], timeout: 100s, "+quickRetry+", x-stile: {idempotency: IDEMPOTENT}}]")
			got := srv.Talk(testContext(t), policyServer(t, srv)(way, p), 20)
			if first == nil {
				first = got
			}
			if !slices.Equal(got, first) {
				t.Fatalf("seed %d\n%s: %q\n%s: %q", seed, policyWays[0], first, way, got)
			}
		}
	}
}

// hanging is a server whose calls last as long as their contexts, but for attempts of which ok
// says that they answer.
type hanging struct {
	pb.UnimplementedTestServiceServer
	answers func(attempt string) bool
	given   atomic.Int64
	started atomic.Int64
	running atomic.Int64
}

// wait waits for the end of all handlers.
func (h *hanging) wait(t *testing.T) {
	t.Helper()
	ctx := testContext(t)
	for h.running.Load() > 0 {
		if ctx.Err() != nil {
			t.Fatalf("%d handlers go on", h.running.Load())
		}
		time.Sleep(time.Millisecond)
	}
}

func (h *hanging) UnaryCall(ctx context.Context, _ *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	h.running.Add(1)
	defer h.running.Add(-1)
	h.started.Add(1)
	if d, ok := ctx.Deadline(); ok {
		h.given.Store(int64(time.Until(d)))
	}
	attempt := "0"
	if v := metadata.ValueFromIncomingContext(ctx, "grpc-previous-rpc-attempts"); len(v) > 0 {
		attempt = v[0]
	}
	if h.answers != nil && h.answers(attempt) {
		return &pb.SimpleResponse{Username: attempt}, nil
	}
	<-ctx.Done()
	return nil, status.FromContextError(ctx.Err()).Err()
}

func TestPolicyDeadlineEachWay(t *testing.T) {
	for _, way := range policyWays {
		t.Run(way, func(t *testing.T) {
			srv := &hanging{}
			dial := policyServer(t, srv)
			client := dial(way, testPolicy(t, "methodConfig: [{name: [{}], timeout: 0.2s}]"))
			var wg sync.WaitGroup
			for range 20 { // one alone waits for itself, many do not
				wg.Go(func() {
					begin := time.Now()
					_, err := client.UnaryCall(context.Background(), &pb.SimpleRequest{})
					if took := time.Since(begin); status.Code(err) != codes.DeadlineExceeded || took < 200*time.Millisecond {
						t.Errorf("%v after %v", err, took)
					}
				})
			}
			wg.Wait()
			begin := time.Now()
			_, err := client.UnaryCall(context.Background(), &pb.SimpleRequest{})
			if took := time.Since(begin); status.Code(err) != codes.DeadlineExceeded || took < 200*time.Millisecond {
				t.Errorf("%v after %v", err, took)
			}
			if given := time.Duration(srv.given.Load()); given <= 0 || given > 200*time.Millisecond {
				t.Errorf("the server was given %v", given)
			}
			srv.wait(t) // the handlers' contexts end too
			client = dial(way, testPolicy(t, "{}"))
			ctx, cancel := context.WithCancel(context.Background())
			time.AfterFunc(50*time.Millisecond, cancel)
			if _, err := client.UnaryCall(ctx, &pb.SimpleRequest{}); status.Code(err) != codes.Canceled {
				t.Errorf("cancelled by the caller: %v", err)
			}
			srv.wait(t)
		})
	}
}

func TestPolicyHedgeEachWay(t *testing.T) {
	for _, way := range policyWays {
		t.Run(way, func(t *testing.T) {
			srv := &hanging{answers: func(attempt string) bool { return attempt == "1" }}
			client := policyServer(t, srv)(way, testPolicy(t, "methodConfig: [{name: [{}], timeout: 100s, x-stile: {idempotency: IDEMPOTENT, hedge: {hedgingDelay: 0.01s}}}]"))
			for range 5 {
				var p peer.Peer
				got, err := client.UnaryCall(testContext(t), &pb.SimpleRequest{}, grpc.Peer(&p))
				if err != nil || got.GetUsername() != "1" {
					t.Fatalf("got %v, %v", got, err)
				}
				if _, local := p.AuthInfo.(AuthInfo); local != (way != "grpc") {
					t.Errorf("the winner's peer: %v", p)
				}
			}
			srv.wait(t) // the losers were cancelled, 100 seconds before their deadline
		})
	}
}

// TestPolicyServerEachWay: the server's side of a policy holds at the door and at the listener.
func TestPolicyServerEachWay(t *testing.T) {
	for _, way := range policyWays {
		t.Run(way, func(t *testing.T) {
			srv := &hanging{}
			p := testPolicy(t, "x-stile: {admission: {maxRequests: 1, maxPendingRequests: 0, maxQueueDelay: 0.05s}}")
			client := policyServer(t, srv, Policy(p))(way, testPolicy(t, "methodConfig: [{name: [{}], timeout: 100s}]"))
			ctx, cancel := context.WithCancel(testContext(t))
			first := make(chan error, 1)
			go func() { _, err := client.UnaryCall(ctx, &pb.SimpleRequest{}); first <- err }()
			for srv.started.Load() == 0 {
				time.Sleep(time.Millisecond)
			}
			var trailer metadata.MD
			_, err := client.UnaryCall(testContext(t), &pb.SimpleRequest{}, grpc.Trailer(&trailer))
			if status.Code(err) != codes.ResourceExhausted || fmt.Sprint(trailer["grpc-retry-pushback-ms"]) != "[50]" {
				t.Errorf("%v, trailer %v", err, trailer)
			}
			want := codes.ResourceExhausted // before the request is decoded
			if way == "grpc" {
				want = codes.Internal
			}
			if _, err := client.UnaryCall(testContext(t), &pb.SimpleRequest{}, grpc.ForceCodec(garbage{})); status.Code(err) != want {
				t.Errorf("a request that cannot be decoded: %v, want %v", err, want)
			}
			cancel()
			if err := <-first; status.Code(err) != codes.Canceled {
				t.Error(err)
			}
			if n := p.Count(policy.CallShed); n != map[codes.Code]uint64{codes.ResourceExhausted: 2, codes.Internal: 1}[want] || srv.started.Load() != 1 {
				t.Errorf("%d shed, %d begun", p.Count(policy.CallShed), srv.started.Load())
			}
		})
	}
}

// garbage sends requests that nobody can decode.
type garbage struct{}

func (garbage) Marshal(any) ([]byte, error) { return []byte{0xff}, nil }
func (garbage) Unmarshal([]byte, any) error { return nil }
func (garbage) Name() string                { return "proto" }

// TestPolicyTransport: a method goes only the ways that the policy prefers.
func TestPolicyTransport(t *testing.T) {
	dial := policyServer(t, &echo{})
	for _, c := range []struct{ connection, prefer, want string }{
		{"shm", "shm, unix, tcp", "shm"}, {"shm", "tcp", "grpc"}, {"shm", "tcp, shm", "grpc"}, {"shm", "unix, tcp", "grpc"},
		{"unix", "unix", "unix"}, {"unix", "shm, tcp", "grpc"}, {"unix", "shm", "Unavailable"}, {"shm", "unix", "Unavailable"},
	} {
		client := dial(c.connection, testPolicy(t, "methodConfig: [{name: [{}], timeout: 10s, x-stile: {transport: {prefer: ["+c.prefer+"]}}}]"))
		var p peer.Peer
		_, err := client.UnaryCall(testContext(t), &pb.SimpleRequest{}, grpc.Peer(&p))
		if got := wayOf(&p, err); got != c.want {
			t.Errorf("prefer %s on a connection over %s: %s, want %s (%v)", c.prefer, c.connection, got, c.want, err)
		}
		stream, err := client.FullDuplexCall(testContext(t))
		if err == nil {
			_ = stream.CloseSend()
			_, err = stream.Header()
		}
		got := "grpc"
		if s, ok := peer.FromContext(contextOf(stream)); ok {
			got = wayOf(s, err)
		}
		if err != nil {
			got = status.Code(err).String()
		}
		if got != c.want {
			t.Errorf("prefer %s on a connection over %s: a stream went %s, want %s (%v)", c.prefer, c.connection, got, c.want, err)
		}
	}
}

func contextOf(s pb.TestService_FullDuplexCallClient) context.Context {
	if s == nil {
		return context.Background()
	}
	return s.Context()
}

func wayOf(p *peer.Peer, err error) string {
	if err != nil {
		return status.Code(err).String()
	}
	if info, ok := p.AuthInfo.(AuthInfo); ok {
		return info.Transport
	}
	return "grpc"
}
