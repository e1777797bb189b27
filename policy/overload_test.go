package policy

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
)

// workers is a server with so many workers, each of which takes its time for a call. Calls wait for
// a worker in the order in which they came, and as servers do that do not look at their contexts, it
// works for callers that have gone.
type workers struct {
	pb.UnimplementedTestServiceServer
	free chan struct{}
	took func() time.Duration // of the next call
	busy atomic.Int64         // calls that wait for a worker or have one
	most int64                // of these; 0: as many as come
}

// drain waits until nothing is left to do: time stops with the test.
func (w *workers) drain() {
	for w.busy.Load() > 0 {
		time.Sleep(100 * time.Millisecond)
	}
}

func newWorkers(n int, took func() time.Duration) *workers {
	w := &workers{free: make(chan struct{}, n), took: took}
	for range n {
		w.free <- struct{}{}
	}
	return w
}

func (w *workers) work() error {
	defer w.busy.Add(-1)
	if n := w.busy.Add(1); w.most != 0 && n > w.most {
		return status.Error(codes.Unavailable, "the queue is full")
	}
	<-w.free
	time.Sleep(w.took())
	w.free <- struct{}{}
	return nil
}

func (w *workers) UnaryCall(context.Context, *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	return &pb.SimpleResponse{}, w.work()
}

func (w *workers) CacheableUnaryCall(ctx context.Context, r *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	return w.UnaryCall(ctx, r)
}

func (w *workers) EmptyCall(context.Context, *pb.Empty) (*pb.Empty, error) {
	return &pb.Empty{}, w.work()
}

// kinds of calls, by their criticality.
var kinds = []struct {
	name  string
	share float64
	call  func(context.Context, pb.TestServiceClient) error
}{
	{"critical", 0.2, func(ctx context.Context, c pb.TestServiceClient) error {
		_, err := c.UnaryCall(ctx, &pb.SimpleRequest{})
		return err
	}},
	{"default", 0.5, func(ctx context.Context, c pb.TestServiceClient) error {
		_, err := c.EmptyCall(ctx, &pb.Empty{})
		return err
	}},
	{"sheddable", 0.3, func(ctx context.Context, c pb.TestServiceClient) error {
		_, err := c.CacheableUnaryCall(ctx, &pb.SimpleRequest{})
		return err
	}},
}

// criticalities is the methods' part of a server's file.
const criticalities = `
methodConfig:
- {name: [{service: grpc.testing.TestService, method: UnaryCall}], timeout: 1s, x-stile: {criticality: critical}}
- {name: [{service: grpc.testing.TestService, method: EmptyCall}], timeout: 1s}
- {name: [{service: grpc.testing.TestService, method: CacheableUnaryCall}], timeout: 1s, x-stile: {criticality: sheddable}}
`

// tally is what came of some calls.
type tally struct {
	mu   sync.Mutex
	made [3]int
	good [3]int // answered within the SLO
	lost [3]int
	took []time.Duration // of those answered
}

func (y *tally) add(kind int, took, slo time.Duration, err error) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.made[kind]++
	if err != nil {
		y.lost[kind]++
		return
	}
	y.took = append(y.took, took)
	if took <= slo {
		y.good[kind]++
	}
}

func (y *tally) goodput(d time.Duration) float64 {
	return float64(y.good[0]+y.good[1]+y.good[2]) / d.Seconds()
}

func (y *tally) p99() time.Duration {
	if len(y.took) == 0 {
		return 0
	}
	slices.Sort(y.took)
	return y.took[len(y.took)*99/100]
}

func (y *tally) loss(kind int) float64 {
	return 100 * float64(y.lost[kind]) / float64(max(y.made[kind], 1))
}

// flood sends calls at random times, rate a second on average, whatever becomes of them. What comes before
// warm-up counts not.
func flood(client pb.TestServiceClient, r *rand.Rand, rate float64, warm, d, slo time.Duration) *tally {
	var wg sync.WaitGroup
	y := &tally{}
	begin := time.Now()
	for {
		time.Sleep(time.Duration(r.ExpFloat64() / rate * float64(time.Second)))
		since := time.Since(begin)
		if since > warm+d {
			break
		}
		kind, x := 0, r.Float64()
		for x -= kinds[0].share; x > 0 && kind < 2; x -= kinds[kind].share {
			kind++
		}
		wg.Go(func() {
			start := time.Now()
			err := kinds[kind].call(context.Background(), client)
			if since >= warm {
				y.add(kind, time.Since(start), slo, err)
			}
		})
	}
	wg.Wait()
	return y
}

// TestLoadTwice: at twice what a server can do it does as much as ever, the critical calls get through, and
// who is let in is served in time.
func TestLoadTwice(t *testing.T) {
	const (
		workersAt = 16
		service   = 20 * time.Millisecond
		slo       = 100 * time.Millisecond
		warm      = 5 * time.Second
	)
	capacity := workersAt / service.Seconds()
	run := func(name, text string, load float64, d time.Duration) (y *tally) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, uint64(load*10)))
			var opts []grpc.ServerOption
			if text != "" {
				opts = serving(file(t, text+criticalities, nil))
			}
			// The time of a call varies by half, around its mean.
			var mu sync.Mutex
			srv := newWorkers(workersAt, func() time.Duration {
				mu.Lock()
				defer mu.Unlock()
				return service/2 + time.Duration(r.Float64()*float64(service))
			})
			client := dial(t, serve(t, srv, opts...), obeying(file(t, "methodConfig: [{name: [{}], timeout: 1s}]", nil))...)
			y = flood(client, rand.New(rand.NewPCG(2, uint64(load*10))), load*capacity, warm, d, slo)
			srv.drain()
		})
		t.Logf("%-22s %.1f × capacity: %4.0f of %4.0f/s within %v, p99 of answers %5v, lost %5.2f %% of critical, %5.2f %% of default, %5.2f %% of sheddable calls",
			name, load, y.goodput(d), capacity, slo, y.p99().Round(time.Millisecond), y.loss(0), y.loss(1), y.loss(2))
		return y
	}
	const admission = "x-stile: {admission: {maxRequests: 200, minRequests: 4, maxPendingRequests: 100, maxQueueDelay: 0.03s, adaptive: true}}"
	const short = 5 * time.Second
	peak := run("without policy", "", 0.9, short).goodput(short)
	d := short
	if !testing.Short() && !raceDetector {
		d = 30 * time.Second
		run("without policy", "", 2, short)
		run("with admission", admission, 0.9, short)
	}
	y := run("with admission", admission, 2, d)
	if got := y.goodput(d); got < 0.9*peak {
		t.Errorf("goodput %.0f/s, less than 90 %% of the peak, %.0f/s", got, peak)
	}
	if y.loss(0) >= 1 {
		t.Errorf("%.2f %% of the critical calls lost", y.loss(0))
	}
	if y.p99() > 2*slo {
		t.Errorf("p99 of answers %v, more than twice the SLO", y.p99())
	}
}

// TestLoadStorm: three hops that all retry, the last of which fails all.
func TestLoadStorm(t *testing.T) {
	const retry = "timeout: 5s, retryPolicy: {maxAttempts: 3, initialBackoff: 0.01s, maxBackoff: 0.1s, backoffMultiplier: 2, retryableStatusCodes: [UNAVAILABLE]}"
	naive := func(policyOf func() []grpc.DialOption) float64 {
		var leaf *testServer
		calls := 1000
		if raceDetector {
			calls = 300
		}
		synctest.Test(t, func(t *testing.T) {
			leaf = &testServer{unary: failing(codes.Unavailable)}
			next := dial(t, serve(t, leaf), policyOf()...)
			for range 2 {
				below := next
				hop := &testServer{unary: func(ctx context.Context, req *pb.SimpleRequest) (*pb.SimpleResponse, error) {
					return below.UnaryCall(ctx, req)
				}}
				next = dial(t, serve(t, hop), policyOf()...)
			}
			done := make(chan error)
			for range calls {
				go func() { _, err := next.UnaryCall(context.Background(), &pb.SimpleRequest{}); done <- err }()
				time.Sleep(5 * time.Millisecond)
			}
			for range calls {
				if err := <-done; status.Code(err) != codes.Unavailable {
					t.Error(err)
				}
			}
		})
		return float64(leaf.calls.Load()-30) / float64(calls) // without the reserves of three budgets
	}
	without := naive(func() []grpc.DialOption {
		return []grpc.DialOption{grpc.WithDefaultServiceConfig(`{"methodConfig": [{"name": [{}], "timeout": "5s", "retryPolicy": {"maxAttempts": 3, "initialBackoff": "0.01s", "maxBackoff": "0.1s", "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]}}]}`)}
	})
	with := naive(func() []grpc.DialOption { return obeying(rule(t, retry+", x-stile: {idempotency: IDEMPOTENT}", nil)) })
	t.Logf("attempts at the last of three hops for each call: grpc-go's retries %.2f, the policy's %.2f", without, with)
	if with > 1.2 {
		t.Errorf("%.2f attempts a call", with)
	}
}

// TestLoadSlowPeer: callers that use two servers in turns, one of which becomes 100 times slower.
func TestLoadSlowPeer(t *testing.T) {
	const callers, service = 64, 2 * time.Millisecond
	run := func(text string) (before, after float64) {
		synctest.Test(t, func(t *testing.T) {
			slow := time.Duration(1)
			var mu sync.Mutex
			took := func() time.Duration { mu.Lock(); defer mu.Unlock(); return slow * service }
			p := file(t, text, nil)
			quick, other := newWorkers(1000, func() time.Duration { return service }), newWorkers(1000, took)
			defer quick.drain()
			defer other.drain()
			a := dial(t, serve(t, quick), obeying(p)...)
			cc, err := grpc.NewClient("passthrough:///other", append(dialOptions(serve(t, other)), obeying(p)...)...)
			if err != nil {
				t.Fatal(err)
			}
			defer cc.Close()
			b := pb.NewTestServiceClient(cc)
			count := func(d time.Duration) float64 {
				var n int
				var wg sync.WaitGroup
				end := time.Now().Add(d)
				for range callers {
					wg.Go(func() {
						for time.Now().Before(end) {
							_, _ = b.UnaryCall(context.Background(), &pb.SimpleRequest{})
							_, err := a.UnaryCall(context.Background(), &pb.SimpleRequest{})
							time.Sleep(18 * time.Millisecond) // callers have other things to do
							if err == nil {
								mu.Lock()
								n++
								mu.Unlock()
							}
						}
					})
				}
				wg.Wait()
				return float64(n) / d.Seconds()
			}
			d := 5 * time.Second
			if raceDetector {
				d = time.Second
			}
			before = count(d)
			mu.Lock()
			slow = 100
			mu.Unlock()
			after = count(4 * d)
		})
		return before, after
	}
	before, after := run("methodConfig: [{name: [{}], timeout: 10s}]")
	t.Logf("without limits: %.0f → %.0f calls/s of the other route, %+.1f %%", before, after, 100*(after/before-1))
	before, after = run("methodConfig: [{name: [{}], timeout: 0.05s, x-stile: {breaker: {slowCallDurationThreshold: 0.02s, slowCallRateThreshold: 50, minimumNumberOfCalls: 20, waitDurationInOpenState: 5s, permittedNumberOfCallsInHalfOpenState: 3}}}]")
	t.Logf("with a breaker: %.0f → %.0f calls/s of the other route, %+.1f %%", before, after, 100*(after/before-1))
	if after < 0.95*before {
		t.Errorf("the other route lost %.1f %%", 100*(1-after/before))
	}
}
