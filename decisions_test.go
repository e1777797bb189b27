package stile

import (
	"context"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/stile-ipc/stile/telemetry"
)

// obedient does what the test says.
type obedient struct {
	pb.UnimplementedTestServiceServer
	do atomic.Pointer[func(n int64) error]
	n  atomic.Int64
}

func (s *obedient) UnaryCall(context.Context, *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	return &pb.SimpleResponse{}, (*s.do.Load())(s.n.Add(1))
}

func (s *obedient) StreamingOutputCall(_ *pb.StreamingOutputCallRequest, to grpc.ServerStreamingServer[pb.StreamingOutputCallResponse]) error {
	if err := (*s.do.Load())(s.n.Add(1)); err != nil {
		return err
	}
	return to.Send(&pb.StreamingOutputCallResponse{})
}

// does says what happens to the calls from now on, of which n is the number.
func (s *obedient) does(f func(n int64) error) {
	s.n.Store(0)
	s.do.Store(&f)
}

func fine(int64) error { return nil }
func down(int64) error { return status.Error(codes.Unavailable, "down") }

// held makes calls wait: begun has one for each, and they end when free is closed.
func (s *obedient) held() (begun, free chan struct{}) {
	begun, free = make(chan struct{}, 100), make(chan struct{})
	s.does(func(int64) error {
		begun <- struct{}{}
		<-free
		return nil
	})
	return begun, free
}

// watched tells when somebody waits for its end.
type watched struct {
	context.Context
	waits chan<- struct{}
	once  sync.Once
}

func (w *watched) Done() <-chan struct{} {
	w.once.Do(func() { w.waits <- struct{}{} })
	return w.Context.Done()
}

// decidedCase is what is done, and what is to be counted then.
type decidedCase struct {
	name, entry, file string
	stream            bool
	do                func(t *testing.T, s *obedient, call func(context.Context) error)
	calls             uint64 // that are counted at the client
	want, server      telemetry.Decisions
}

const retries = "retryPolicy: {maxAttempts: 3, initialBackoff: 0.000001s, maxBackoff: 0.000001s, backoffMultiplier: 1, retryableStatusCodes: [UNAVAILABLE]}"

var decidedCases = []decidedCase{
	{name: "cache hits", entry: "x-stile: {TRANSPORT, idempotency: NO_SIDE_EFFECTS, cache: {ttl: 3600s}}", calls: 1, want: telemetry.Decisions{telemetry.CacheHit: 5}, do: func(t *testing.T, s *obedient, call func(context.Context) error) {
		s.does(fine)
		for range 6 {
			if err := call(testContext(t)); err != nil {
				t.Error(err)
			}
		}
	}},
	{name: "fallback", entry: "x-stile: {TRANSPORT, idempotency: NO_SIDE_EFFECTS, cache: {ttl: 0.000000001s, staleIfError: 3600s}, fallback: {cache: true}}", calls: 3, want: telemetry.Decisions{telemetry.FallbackServed: 2}, do: func(t *testing.T, s *obedient, call func(context.Context) error) {
		for _, does := range []func(int64) error{fine, down, down} {
			s.does(does)
			if err := call(testContext(t)); err != nil {
				t.Error(err)
			}
		}
	}},
	{name: "retries", entry: retries + ", x-stile: {TRANSPORT, idempotency: IDEMPOTENT}", calls: 3, want: telemetry.Decisions{telemetry.Retry: 2}, do: fails},
	{name: "retries of a stream", stream: true, entry: retries + ", x-stile: {TRANSPORT, idempotency: IDEMPOTENT}", calls: 3, want: telemetry.Decisions{telemetry.Retry: 2}, do: fails},
	{name: "no budget", file: "x-stile: {retryBudget: {budgetPercent: 0}}\n", entry: retries + ", x-stile: {TRANSPORT, idempotency: IDEMPOTENT}", calls: 1, want: telemetry.Decisions{telemetry.BudgetRefused: 1}, do: fails},
	{name: "hedge", file: "x-stile: {retryBudget: {budgetPercent: 100}}\n", entry: "x-stile: {TRANSPORT, idempotency: IDEMPOTENT, hedge: {hedgingDelay: 0.001s, maxAttempts: 2}}", calls: 2, want: telemetry.Decisions{telemetry.Hedge: 1}, do: func(t *testing.T, s *obedient, call func(context.Context) error) {
		second := make(chan struct{})
		s.does(func(n int64) error {
			if n == 2 {
				close(second)
			}
			<-second
			return nil
		})
		if err := call(testContext(t)); err != nil {
			t.Error(err)
		}
	}},
	{name: "breaker", entry: "x-stile: {TRANSPORT, breaker: {slidingWindowSize: 2, minimumNumberOfCalls: 2}}", calls: 2, want: telemetry.Decisions{telemetry.BreakerRefused: 3}, do: func(t *testing.T, s *obedient, call func(context.Context) error) {
		s.does(down)
		for range 5 {
			if err := call(testContext(t)); status.Code(err) != codes.Unavailable {
				t.Error(err)
			}
		}
		if s.n.Load() != 2 {
			t.Errorf("%d calls", s.n.Load())
		}
	}},
	{name: "limit", entry: "x-stile: {TRANSPORT, limit: {maxRequests: 1}}", calls: 1, want: telemetry.Decisions{telemetry.LimitRefused: 3}, do: refusedBeside(3)},
	{name: "coalesced", entry: "x-stile: {TRANSPORT, idempotency: NO_SIDE_EFFECTS, coalesce: true}", calls: 1, want: telemetry.Decisions{telemetry.Coalesced: 4}, do: func(t *testing.T, s *obedient, call func(context.Context) error) {
		begun, free := s.held()
		var all sync.WaitGroup
		ask := func(ctx context.Context) {
			all.Go(func() {
				if err := call(ctx); err != nil {
					t.Error(err)
				}
			})
		}
		ask(testContext(t))
		<-begun
		waits := make(chan struct{}, 4)
		for range 4 {
			ask(&watched{Context: testContext(t), waits: waits})
		}
		for range 4 {
			<-waits
		}
		close(free)
		all.Wait()
	}},
	{name: "late", entry: "x-stile: {TRANSPORT, breaker: {}}", calls: 1, want: telemetry.Decisions{telemetry.Late: 2}, do: late},
	{name: "late, with nothing but a timeout", entry: "timeout: 10s, x-stile: {TRANSPORT}", calls: 1, want: telemetry.Decisions{telemetry.Late: 2}, do: late},
	{name: "admission", file: "x-stile: {admission: {maxRequests: 1, maxPendingRequests: 0}}\n", entry: "x-stile: {TRANSPORT, breaker: {}}", calls: 3, server: telemetry.Decisions{telemetry.AdmissionShed: 2}, do: refusedBeside(2)},
}

// refusedBeside has so many calls refused while there is one.
func refusedBeside(n int) func(*testing.T, *obedient, func(context.Context) error) {
	return func(t *testing.T, s *obedient, call func(context.Context) error) {
		begun, free := s.held()
		var first sync.WaitGroup
		first.Go(func() {
			if err := call(testContext(t)); err != nil {
				t.Error(err)
			}
		})
		<-begun
		for range n {
			if err := call(testContext(t)); status.Code(err) != codes.ResourceExhausted {
				t.Error(err)
			}
		}
		close(free)
		first.Wait()
	}
}

func fails(t *testing.T, s *obedient, call func(context.Context) error) {
	s.does(down)
	if err := call(testContext(t)); status.Code(err) != codes.Unavailable {
		t.Error(err)
	}
}

// late makes a call that arrives, and two that are too late before they are sent.
func late(t *testing.T, s *obedient, call func(context.Context) error) {
	s.does(fine)
	if err := call(testContext(t)); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	for range 2 {
		if err := call(ctx); status.Code(err) != codes.DeadlineExceeded {
			t.Error(err)
		}
	}
	if s.n.Load() != 1 {
		t.Errorf("%d calls", s.n.Load())
	}
}

// TestDecided: each decision is counted once, with the route that its call would have gone, whichever way calls go; and none is counted as a call.
func TestDecided(t *testing.T) {
	for _, d := range decidedCases {
		for way, prefer := range map[string]string{"shm": "[shm]", "unix-stream": "[unix]", "grpc": "[tcp]"} {
			t.Run(d.name+", "+way, func(t *testing.T) { d.run(t, way, prefer) })
		}
	}
}

func (d *decidedCase) run(t *testing.T, way, prefer string) {
	s := new(obedient)
	text := d.file + "methodConfig: [{name: [{}], " + strings.ReplaceAll(d.entry, "TRANSPORT", "transport: {prefer: "+prefer+"}") + "}]"
	target, _, _ := startServer(t, s, Policy(testPolicy(t, d.file+"methodConfig: []")))
	opts := []grpc.DialOption{WithPolicy(testPolicy(t, text))}
	if way == "unix-stream" {
		opts = append(opts, WithoutSharedMemory())
	}
	client := dialTest(t, target, opts...)
	method, call := "/grpc.testing.TestService/UnaryCall", func(ctx context.Context) error {
		_, err := client.UnaryCall(ctx, &pb.SimpleRequest{})
		return err
	}
	if d.stream {
		method, call = "/grpc.testing.TestService/StreamingOutputCall", func(ctx context.Context) error {
			st, err := client.StreamingOutputCall(ctx, &pb.StreamingOutputCallRequest{})
			for err == nil {
				_, err = st.Recv()
			}
			if err == io.EOF {
				err = nil
			}
			return err
		}
	}
	s.does(fine)
	telemetry.Process().Take()
	d.do(t, s, call)
	want, calls := map[telemetry.Side]telemetry.Decisions{telemetry.Client: d.want, telemetry.Server: d.server}, 2*d.calls
	if way == "grpc" { // of which the client alone tells
		want[telemetry.Client] = added(d.want, d.server)
		delete(want, telemetry.Server)
		calls = d.calls
	}
	got := counted(t, method, calls)
	for side, name := range map[telemetry.Side]string{telemetry.Client: "client", telemetry.Server: "server"} {
		var sum telemetry.Decisions
		n := uint64(0)
		for transport, s := range got[side] {
			if way != "grpc" && transport != way {
				t.Errorf("counted at the %s on %s", name, transport)
			}
			sum, n = added(sum, s.Decisions), n+s.Calls()
		}
		if sum != want[side] || n > d.calls {
			t.Errorf("at the %s: %v in %d calls, want %v in %d", name, sum, n, want[side], d.calls)
		}
	}
}

func added(a, b telemetry.Decisions) telemetry.Decisions {
	for i, n := range b {
		a[i] += n
	}
	return a
}

// TestDeadlineLeft: a server counts what calls had left when they arrived, of those that have a deadline.
func TestDeadlineLeft(t *testing.T) {
	target, _, _ := startServer(t, &echo{})
	client := dialTest(t, target)
	telemetry.Process().Take()
	for n := range 10 {
		ctx, cancel := context.Background(), context.CancelFunc(func() {})
		if n%2 == 0 {
			ctx, cancel = context.WithTimeout(ctx, time.Duration(n+1)*time.Hour)
		}
		if _, err := client.UnaryCall(ctx, &pb.SimpleRequest{}); err != nil {
			t.Fatal(err)
		}
		cancel()
	}
	got := counted(t, "/grpc.testing.TestService/UnaryCall", 20)
	left := &got[telemetry.Server]["shm"].Left
	if left.Count() != 5 || left.Quantile(0) > int64(time.Hour) || left.Quantile(0) < int64(59*time.Minute) || left.Quantile(1) > int64(9*time.Hour) || left.Quantile(1) < int64(8*time.Hour) {
		t.Errorf("%d, %s to %s", left.Count(), time.Duration(left.Quantile(0)), time.Duration(left.Quantile(1)))
	}
	if n := got[telemetry.Client]["shm"].Left.Count(); n != 0 {
		t.Errorf("%d at the client", n)
	}
}
