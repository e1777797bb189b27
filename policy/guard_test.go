package policy

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"github.com/stile-ipc/stile/internal/lazyctx"
	"github.com/stile-ipc/stile/telemetry"
)

const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func traced() context.Context {
	return metadata.AppendToOutgoingContext(context.Background(), "traceparent", traceparent)
}

func TestBreakerIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := &tape{}
		srv := &testServer{unary: failing(codes.Internal)}
		p := file(t, "x-stile: {version: v7}\nmethodConfig: [{name: [{}], timeout: 1s, x-stile: {breaker: {minimumNumberOfCalls: 2, slidingWindowSize: 2, waitDurationInOpenState: 5s, permittedNumberOfCallsInHalfOpenState: 1}}}]", rec)
		client := dial(t, serve(t, srv), obeying(p)...)
		call := func() error { _, err := client.UnaryCall(traced(), &pb.SimpleRequest{}); return err }
		for range 2 {
			wantCode(t, call(), codes.Internal)
		}
		err := call()
		wantCode(t, err, codes.Unavailable)
		st := status.Convert(err)
		if after, ok := delayOf(st); !ok || after != 5*time.Second || reasonOf(st) != ReasonBreakerOpen {
			t.Errorf("details %v", st.Details())
		}
		time.Sleep(5 * time.Second)
		srv.unary = answer
		if err := call(); err != nil {
			t.Error(err)
		}
		var moves []string
		for _, e := range rec.of(BreakerMoved) {
			moves = append(moves, e.Detail)
			if e.Method != unaryMethod || e.Target != "passthrough:///memory" || e.Version != "v7" || e.TraceID != "0af7651916cd43dd8448eb211c80319c" {
				t.Errorf("told %+v", e)
			}
		}
		if got := strings.Join(moves, ", "); got != "closed → open, open → half-open, half-open → closed" {
			t.Errorf("moves: %s", got)
		}
		if len(rec.of(CallRefused)) != 1 || p.Count(CallRefused) != 1 || srv.calls.Load() != 3 {
			t.Errorf("refused %v, %d calls", rec.of(CallRefused), srv.calls.Load())
		}
	})
}

// TestShadow: everything is told, nothing is done.
func TestShadow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := &tape{}
		srv := &testServer{unary: func(ctx context.Context, _ *pb.SimpleRequest) (*pb.SimpleResponse, error) {
			time.Sleep(10 * time.Millisecond)
			return nil, status.Error(codes.Unavailable, "down")
		}}
		p := rule(t, "timeout: 0.001s, "+partRetry+", x-stile: {shadow: true, "+pure+partBreaker+", "+partLimit+", "+partFallback+", "+partCoalesce+", "+partHedge+"}", rec)
		client := dial(t, serve(t, srv), obeying(p)...)
		done := make(chan error)
		for range 8 {
			go func() { _, err := client.UnaryCall(context.Background(), &pb.SimpleRequest{}); done <- err }()
			time.Sleep(4 * time.Millisecond)
		}
		for range 8 {
			if err := <-done; status.Code(err) != codes.Unavailable || reasonOf(status.Convert(err)) != "" {
				t.Errorf("the caller saw %v", err)
			}
		}
		if srv.calls.Load() != 8 {
			t.Errorf("the server saw %d attempts of 8 calls", srv.calls.Load())
		}
		for _, k := range []Kind{Retried, CallRefused, BreakerMoved, CallLate} {
			if got := rec.of(k); len(got) == 0 || !got[0].Shadow {
				t.Errorf("%v told: %v", k, got)
			}
		}
	})
}

// TestApply: what is in force changes between calls, state whose settings stay does not.
func TestApply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &testServer{unary: failing(codes.Internal)}
		entry := func(version, timeout string) string {
			return "x-stile: {version: " + version + "}\nmethodConfig: [{name: [{}], timeout: " + timeout + ", x-stile: {breaker: {minimumNumberOfCalls: 2, slidingWindowSize: 2}}}]"
		}
		rec := &tape{}
		p := file(t, entry("v1", "1s"), rec)
		client := dial(t, serve(t, srv), obeying(p)...)
		call := func() error { _, err := client.UnaryCall(context.Background(), &pb.SimpleRequest{}); return err }
		for range 2 {
			wantCode(t, call(), codes.Internal)
		}
		wantCode(t, call(), codes.Unavailable)
		next, err := Parse("b.yaml", []byte(entry("v2", "2s")))
		if err != nil {
			t.Fatal(err)
		}
		p.Apply(next)
		wantCode(t, call(), codes.Unavailable) // still open
		other, err := Parse("c.yaml", []byte("methodConfig: [{name: [{}], timeout: 2s}]"))
		if err != nil {
			t.Fatal(err)
		}
		p.Apply(other)
		wantCode(t, call(), codes.Internal) // there is none
		if got := rec.of(Applied); len(got) != 2 || got[0].Version != "v2" || got[0].Detail != "b.yaml" {
			t.Errorf("told %+v", got)
		}
	})
}

func TestLogIsQuietAndStructured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		c, err := Parse("p.yaml", []byte("methodConfig: [{name: [{}], timeout: 1s, "+partRetry+", x-stile: {idempotency: IDEMPOTENT}}]"))
		if err != nil {
			t.Fatal(err)
		}
		p := New(c, WithLogger(slog.New(slog.NewTextHandler(&out, nil))))
		srv := &testServer{unary: answer}
		client := dial(t, serve(t, srv), obeying(p)...)
		for range 10 {
			if _, err := client.UnaryCall(context.Background(), &pb.SimpleRequest{}); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if out.Len() > 0 {
			t.Errorf("the log of what went well:\n%s", &out)
		}
		srv.unary = failing(codes.Unavailable)
		_, err = client.UnaryCall(traced(), &pb.SimpleRequest{})
		wantCode(t, err, codes.Unavailable)
		synctest.Wait()
		if got := out.String(); strings.Count(got, "\n") != 1 {
			t.Errorf("one line for a call that failed, not\n%s", got)
		}
		for _, want := range []string{"level=WARN", `msg="policy: retry given up"`, "method=" + unaryMethod, "trace_id=0af7651916cd43dd8448eb211c80319c", "attempts=3", `detail="maxAttempts reached"`, "as told"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("no %s in\n%s", want, &out)
			}
		}
	})
}

// blocked is a Recorder that is slow.
type blocked chan struct{}

func (b blocked) Record(Event) { <-b }

// TestSlowRecorder: calls do not wait for a recorder; what it misses is counted.
func TestSlowRecorder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(blocked)
		p := file(t, "{}", gate)
		for range 3 * maxNews {
			p.news.tell(context.Background(), &Event{Kind: CallShed})
		}
		if p.Lost() == 0 || p.Count(CallShed) != 3*maxNews {
			t.Errorf("%d lost of %d", p.Lost(), p.Count(CallShed))
		}
		close(gate)
		synctest.Wait()
	})
}

// garbage sends requests that nobody can decode.
type garbage struct{}

func (garbage) Marshal(any) ([]byte, error) { return []byte{0xff}, nil }
func (garbage) Unmarshal([]byte, any) error { return nil }
func (garbage) Name() string                { return "proto" }

// TestServerInHandle: with the tap handle, what is shed is not decoded; what may come in is as without.
func TestServerInHandle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := file(t, "x-stile: {admission: {maxRequests: 1, maxPendingRequests: 0, maxQueueDelay: 0.2s}}", nil)
		srv := &testServer{unary: func(ctx context.Context, req *pb.SimpleRequest) (*pb.SimpleResponse, error) {
			time.Sleep(50 * time.Millisecond)
			return answer(ctx, req)
		}}
		client := dial(t, serve(t, srv, append(serving(p), grpc.InTapHandle(ServerInHandle(p)))...))
		call := func(opts ...grpc.CallOption) error {
			_, err := client.UnaryCall(context.Background(), &pb.SimpleRequest{}, opts...)
			return err
		}
		wantCode(t, call(grpc.ForceCodec(garbage{})), codes.Internal)
		first := make(chan error, 1)
		go func() { first <- call() }()
		synctest.Wait()
		wantCode(t, call(grpc.ForceCodec(garbage{})), codes.ResourceExhausted)
		wantCode(t, <-first, codes.OK)
		wantCode(t, call(), codes.OK)
		if p.Count(CallShed) != 1 {
			t.Errorf("%d shed", p.Count(CallShed))
		}
	})
}

// TestStrangeNames: names that peers invent leave nothing behind, with a tap handle, which sees them.
func TestStrangeNames(t *testing.T) {
	p := file(t, "x-stile: {admission: {maxRequests: 1, maxPendingRequests: 0}}", nil)
	handle := ServerInHandle(p)
	for i := range 2 * maxRoutes {
		if _, err := handle(t.Context(), &tap.Info{FullMethodName: fmt.Sprintf("/s%d/m", i)}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(p.targets[""].table.Load().routes); n != 0 {
		t.Errorf("%d names are kept", n)
	}
}

func TestServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rec := &tape{}
		p := file(t, "x-stile: {admission: {maxRequests: 1, maxPendingRequests: 2, maxQueueDelay: 0.2s}}\nmethodConfig:\n- {name: [{}], x-stile: {criticality: sheddable}}\n- {name: [{service: grpc.testing.TestService, method: UnaryCall}], timeout: 3s, x-stile: {criticality: critical}}", rec)
		var given time.Duration
		srv := &testServer{unary: func(ctx context.Context, req *pb.SimpleRequest) (*pb.SimpleResponse, error) {
			d, _ := ctx.Deadline()
			given = time.Until(d)
			time.Sleep(50 * time.Millisecond)
			return answer(ctx, req)
		}}
		srv.duplex = func(ss pb.TestService_FullDuplexCallServer) error {
			if _, ok := ss.Context().Deadline(); !ok {
				t.Error("a stream without a deadline")
			}
			time.Sleep(50 * time.Millisecond)
			return nil
		}
		client := dial(t, serve(t, srv, serving(p)...)) // obeys nothing itself
		if _, err := client.UnaryCall(context.Background(), &pb.SimpleRequest{}); err != nil || given != 3*time.Second {
			t.Errorf("%v, the handler was given %v", err, given)
		}
		results := make(chan string, 8)
		stream := func(name string) {
			s, err := client.FullDuplexCall(context.Background())
			if err == nil {
				_, err = s.Recv()
			}
			results <- name + " " + status.Code(err).String()
		}
		unary := func(name string) {
			var trailer metadata.MD
			_, err := client.UnaryCall(context.Background(), &pb.SimpleRequest{}, grpc.Trailer(&trailer))
			if err != nil && (len(trailer[lazyctx.NotBegun]) != 1 || len(trailer[pushback]) != 1 || trailer[pushback][0] != "200") {
				t.Errorf("%s: trailer %v", name, trailer)
			}
			results <- name + " " + status.Code(err).String()
		}
		// One works, two wait; the critical ones take the places of those that may be shed.
		for _, f := range []func(){func() { stream("s1") }, func() { stream("s2") }, func() { stream("s3") }, func() { unary("u1") }, func() { unary("u2") }, func() { unary("u3") }} {
			go f()
			synctest.Wait()
		}
		got := map[string]bool{}
		for range 6 {
			got[<-results] = true
		}
		for _, want := range []string{"s1 Unknown", "s2 ResourceExhausted", "s3 ResourceExhausted", "u1 OK", "u2 OK", "u3 ResourceExhausted"} {
			if !got[want] {
				t.Errorf("no %s in %v", want, got)
			}
		}
		shed := rec.of(CallShed)
		if len(shed) != 3 || shed[0].Detail != "evicted" || shed[2].Detail != "refused" {
			t.Errorf("told %+v", shed)
		}
		for _, e := range shed {
			var info *errdetails.ErrorInfo
			for _, d := range status.Convert(e.Err).Details() {
				if i, ok := d.(*errdetails.ErrorInfo); ok {
					info = i
				}
			}
			if info.GetReason() != ReasonOverloaded || info.GetDomain() != Domain {
				t.Errorf("details of %v", e.Err)
			}
		}
	})
}

func TestServerRefusesWhatIsLate(t *testing.T) {
	p := file(t, "{}", nil)
	late, cancel := context.WithDeadline(context.Background(), time.Now().Add(-time.Second))
	defer cancel()
	_, err := UnaryServerInterceptor(p)(late, nil, &grpc.UnaryServerInfo{FullMethod: unaryMethod}, func(context.Context, any) (any, error) {
		t.Error("the handler ran")
		return nil, nil
	})
	wantCode(t, err, codes.DeadlineExceeded)
	if p.Count(CallLate) != 1 {
		t.Error("nobody was told")
	}
}

// counts has what was decided of calls.
type counts map[telemetry.Decision]int

func (c counts) Decided(d telemetry.Decision) { c[d]++ }

// due is a context of which only somebody else tells the end.
type due struct {
	context.Context
	at time.Time
}

func (d due) Deadline() (time.Time, bool) { return d.at, true }

// TestLateIsPastDeadline: a call counts as late if its deadline has passed, even if its caller has canceled it before ctx knows. What is given up earlier is not late.
func TestLateIsPastDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := file(t, "x-stile: {admission: {maxRequests: 1, maxPendingRequests: 5, maxQueueDelay: 100s}}\nmethodConfig: []", nil)
		call := func(ctx context.Context, handler grpc.UnaryHandler) error {
			_, err := UnaryServerInterceptor(p)(ctx, nil, &grpc.UnaryServerInfo{FullMethod: unaryMethod}, handler)
			return err
		}
		free, ended := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(ended)
			_ = call(t.Context(), func(context.Context, any) (any, error) { <-free; return nil, nil })
		}()
		synctest.Wait()
		for _, c := range []struct {
			gone, deadline time.Duration // 0: no deadline
			late           int
		}{{gone: -1}, {gone: -1, deadline: 2}, {gone: 1}, {gone: 1, deadline: 2}, {gone: -1, deadline: -1, late: 1}} {
			got := counts{}
			ctx, cancel := context.WithCancel(context.WithValue(t.Context(), lazyctx.DecidedKey, got))
			if c.gone < 0 {
				cancel()
			}
			time.AfterFunc(c.gone*time.Second, cancel)
			if c.deadline != 0 {
				ctx = due{ctx, time.Now().Add(c.deadline * time.Second)}
			}
			err := call(ctx, func(context.Context, any) (any, error) { t.Error("the handler ran"); return nil, nil })
			if status.Code(err) != codes.Canceled || got[telemetry.Late] != c.late || len(got) != c.late {
				t.Errorf("%+v: %v, counted %v", c, err, got)
			}
		}
		close(free)
		<-ended
	})
}

// TestPanicFreesPlaces: a panic in a handler or a codec loses no place.
func TestPanicFreesPlaces(t *testing.T) {
	p := file(t, "x-stile: {admission: {maxRequests: 1, maxPendingRequests: 0}}\nmethodConfig: [{name: [{}], timeout: 1s, "+partRetry+", x-stile: {"+pure+partBreaker+", "+partLimit+", "+partCoalesce+"}}]", nil)
	intercept, s := UnaryServerInterceptor(p), &side{p: p}
	caught := func(f func()) {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		f()
	}
	for range 3 {
		caught(func() {
			_, _ = intercept(context.Background(), nil, &grpc.UnaryServerInfo{FullMethod: unaryMethod}, func(context.Context, any) (any, error) { panic("handler") })
		})
		caught(func() {
			_ = s.unary(context.Background(), unaryMethod, &pb.SimpleRequest{}, &pb.SimpleResponse{}, nil,
				func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error { panic("codec") })
		})
	}
}

// TestConnectionsAreForgotten: what is known of a connection goes with it, and two connections of one
// interceptor are told apart for as long as they live.
func TestConnectionsAreForgotten(t *testing.T) {
	p := file(t, "{}", nil)
	s := &side{p: p}
	open := func(target string) *grpc.ClientConn {
		cc, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cc.Close() })
		return cc
	}
	a, b := open("passthrough:///a"), open("passthrough:///a")
	first, second := s.see(a), s.see(b)
	if first == second || first.t != second.t || s.see(a) != first || s.see(b) != second {
		t.Error("two connections to one target are not told apart, or do not share its state")
	}
	func() {
		own := &side{p: p} // of this connection, which thereby holds itself
		cc, err := grpc.NewClient("passthrough:///c", grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithUnaryInterceptor(own.unary))
		if err != nil {
			t.Fatal(err)
		}
		own.see(cc)
		cc.Close()
	}()
	s.see(a) // the last that was seen is held
	known := func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.targets["passthrough:///c"] != nil
	}
	for range 1000 { // cleanups run some time after a collection
		if runtime.GC(); !known() {
			return
		}
		runtime.Gosched()
		time.Sleep(time.Millisecond)
	}
	t.Error("the state of a connection that is gone is still there")
}

// TestStateOutlivesReloads also of methods that are not called between two of them.
func TestStateOutlivesReloads(t *testing.T) {
	config := func() *Config {
		c, err := Parse("a.yaml", []byte("methodConfig: [{name: [{}], timeout: 1s, x-stile: {breaker: {}, limit: {maxRequests: 1}}}]"))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	p := New(config(), WithLogger(slog.New(slog.DiscardHandler)))
	target := p.attach("x")
	a, b := target.route("/s/a"), target.route("/s/b")
	p.Apply(config())
	if next := target.route("/s/a"); next == a || next.breaker != a.breaker || next.limit != a.limit {
		t.Error("state did not go on over a reload")
	}
	p.Apply(config())
	if next := target.route("/s/b"); next == b || next.breaker != b.breaker || next.limit != b.limit {
		t.Error("state did not go on over two reloads")
	}
}

// TestQueueIsNotTheServer: the time in the limit's queue is no part of an attempt's.
func TestQueueIsNotTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := &testServer{unary: func(ctx context.Context, req *pb.SimpleRequest) (*pb.SimpleResponse, error) {
			time.Sleep(50 * time.Millisecond)
			return answer(ctx, req)
		}}
		p := rule(t, "timeout: 1s, x-stile: {perTryTimeout: 0.08s, limit: {maxRequests: 1, maxPendingRequests: 10}, breaker: {slowCallDurationThreshold: 0.08s, slowCallRateThreshold: 1, minimumNumberOfCalls: 1}}", nil)
		client := dial(t, serve(t, srv), obeying(p)...)
		done := make(chan error)
		for range 4 {
			go func() { _, err := client.UnaryCall(context.Background(), &pb.SimpleRequest{}); done <- err }()
		}
		for range 4 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if p.Count(BreakerMoved) > 0 {
			t.Error("the breaker took the queue for a slow server")
		}
	})
}
