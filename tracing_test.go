package stile

import (
	"context"
	"encoding/hex"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"github.com/stile-ipc/stile/internal/lazyctx"
	"github.com/stile-ipc/stile/internal/spans"
	"github.com/stile-ipc/stile/telemetry"
	"github.com/stile-ipc/stile/transport/wire"
)

// tracing has all calls of a test traced, and returns what waits until as many spans have been handed in as are wanted: a server's may come after its client's answer.
func tracing(t *testing.T) (take func(n int) []*spans.Span) {
	t.Helper()
	traced.Start()
	t.Cleanup(traced.Stop)
	return func(n int) (all []*spans.Span) {
		t.Helper()
		for begin := time.Now(); time.Since(begin) < 10*time.Second; time.Sleep(time.Millisecond) {
			some, lost := traced.Take()
			if all = append(all, some...); len(all) >= n || lost > 0 {
				if len(all) > n || lost > 0 {
					t.Errorf("%d spans, want %d; %d lost", len(all), n, lost)
				}
				return all
			}
		}
		t.Fatalf("%d spans, want %d", len(all), n)
		return nil
	}
}

// relay serves calls by what it is told.
type relay struct {
	echo
	unary func(ctx context.Context) error
}

func (r *relay) EmptyCall(ctx context.Context, _ *pb.Empty) (*pb.Empty, error) {
	return &pb.Empty{}, r.unary(ctx)
}

// tree checks that spans are one trace, whole, and returns its parents and children by "side method".
func tree(t *testing.T, all []*spans.Span) map[string][]string {
	t.Helper()
	byID := map[uint64]*spans.Span{}
	name := func(s *spans.Span) string {
		return fmt.Sprint([]string{"client ", "server "}[s.Link.Side], s.Name.Method[len("/grpc.testing.TestService/"):])
	}
	for _, s := range all {
		if byID[s.ID] != nil || s.Trace != all[0].Trace || s.Trace == (spans.TraceID{}) {
			t.Errorf("%x of trace %x, which is not %x, or is there twice", s.ID, s.Trace, all[0].Trace)
		}
		byID[s.ID] = s
	}
	got := map[string][]string{}
	for _, s := range all {
		parent := "none"
		if s.Parent == 0 && s.Weight == 0 || s.Parent != 0 && s.Weight != 0 {
			t.Errorf("%s with parent %x stands for %d", name(s), s.Parent, s.Weight)
		}
		if p := byID[s.Parent]; p != nil {
			parent = name(p)
			if s.Begun < p.Begun {
				t.Errorf("%s begins before its parent", name(s))
			}
		} else if s.Parent != 0 {
			parent = "missing"
		}
		got[parent] = append(got[parent], name(s))
		if s.Begun == 0 || s.Over < s.Begun || s.Link.Side == telemetry.Server && (s.Handling < s.Begun || s.Handled < s.Handling || s.Over < s.Handled) || s.Link.Side == telemetry.Client && s.Code == 0 && (s.Sent < s.Begun || s.Over < s.Sent) {
			t.Errorf("%s: times %+v", name(s), s)
		}
	}
	return got
}

type someKey struct{}

// TestTraced: the calls that a handler makes belong to the trace of the one that it serves, whatever its context is wrapped in, and whichever way they go.
func TestTraced(t *testing.T) {
	for way, opts := range map[string][]grpc.DialOption{"shm": nil, "unix-stream": {WithoutSharedMemory()}} {
		t.Run(way, func(t *testing.T) {
			t.Setenv("STILE_DIR", t.TempDir())
			behind := dialTest(t, serveUnix(t, &echo{}), opts...)
			client := dialTest(t, serveUnix(t, &relay{unary: func(ctx context.Context) error {
				ctx, cancel := context.WithTimeout(context.WithValue(ctx, someKey{}, 1), time.Minute)
				defer cancel()
				var all sync.WaitGroup // as errgroup does
				for range 2 {
					all.Go(func() {
						if _, err := behind.UnaryCall(ctx, &pb.SimpleRequest{Payload: payload(100)}); err != nil {
							t.Error(err)
						}
					})
				}
				all.Wait()
				s, err := behind.FullDuplexCall(ctx)
				if err != nil {
					return err
				}
				if err = s.Send(&pb.StreamingOutputCallRequest{}); err == nil {
					_, err = s.Recv()
				}
				_ = s.CloseSend()
				for err == nil {
					_, err = s.Recv()
				}
				return nil
			}}), opts...)
			take := tracing(t)
			if _, err := client.EmptyCall(testContext(t), &pb.Empty{}); err != nil {
				t.Fatal(err)
			}
			all := take(8)
			want := map[string][]string{
				"none": {"client EmptyCall"}, "client EmptyCall": {"server EmptyCall"}, "client UnaryCall": {"server UnaryCall", "server UnaryCall"}, "client FullDuplexCall": {"server FullDuplexCall"},
			}
			got := tree(t, all)
			if of := got["server EmptyCall"]; len(of) != 3 {
				t.Errorf("below the handler: %v", of)
			}
			delete(got, "server EmptyCall")
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%v\nwant %v", got, want)
			}
			for _, s := range all {
				if s.Link.Transport != way || !s.Far && !s.Name.Stream || s.Name.Stream != (s.Name.Method == bidiMethod) || s.Name.Method == unaryMethod && (s.Request < 100 || s.Response < 100) {
					t.Errorf("%+v", s)
				}
			}
		})
	}
}

// TestTracedLate: what a handler's goroutine calls after the handler has returned belongs to its trace, too, although its stream serves another call by then.
func TestTracedLate(t *testing.T) {
	t.Setenv("STILE_DIR", t.TempDir())
	behind := dialTest(t, serveUnix(t, &echo{}))
	returned, called := make(chan struct{}), make(chan error)
	first := true
	client := dialTest(t, serveUnix(t, &relay{unary: func(ctx context.Context) error {
		if !first {
			return nil
		}
		first = false
		go func() {
			<-returned
			_, err := behind.UnaryCall(context.WithoutCancel(ctx), &pb.SimpleRequest{})
			called <- err
		}()
		return nil
	}}))
	take := tracing(t)
	for range 2 {
		if _, err := client.EmptyCall(testContext(t), &pb.Empty{}); err != nil {
			t.Fatal(err)
		}
	}
	before := take(4)
	close(returned)
	if err := <-called; err != nil {
		t.Fatal(err)
	}
	late := take(2)
	parents := 0
	for _, s := range before {
		for _, l := range late {
			if l.Parent == s.ID && l.Trace == s.Trace && s.Link.Side == telemetry.Server {
				parents++
			}
		}
	}
	if parents != 1 {
		t.Errorf("%d of the late calls have a handler above them: %+v", parents, late)
	}
}

// TestTracedEnds: how a call has ended is told at both sides.
func TestTracedEnds(t *testing.T) {
	t.Setenv("STILE_DIR", t.TempDir())
	begun := make(chan struct{}, 10)
	client := dialTest(t, serveUnix(t, &relay{unary: func(ctx context.Context) error {
		begun <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}}))
	take := tracing(t)
	for want, of := range map[spans.Ended]func() (context.Context, context.CancelFunc){
		spans.Expired: func() (context.Context, context.CancelFunc) {
			return context.WithTimeout(context.Background(), 30*time.Millisecond)
		},
		spans.Cancelled: func() (context.Context, context.CancelFunc) { return context.WithCancel(context.Background()) },
	} {
		ctx, cancel := of()
		defer cancel()
		go func() {
			<-begun
			if want == spans.Cancelled {
				cancel()
			}
		}()
		if _, err := client.EmptyCall(ctx, &pb.Empty{}); err == nil {
			t.Fatal("no error")
		}
		all := take(2)
		tree(t, all)
		for _, s := range all {
			if s.Ended != want && (want != spans.Expired || s.Link.Side != telemetry.Server || s.Ended != spans.Cancelled) || s.Code == 0 { // by the client, whose deadline may pass first
				t.Errorf("side %d ended by %d with %d, want %d", s.Link.Side, s.Ended, s.Code, want)
			}
		}
	}
}

// TestNotTraced: a call of which the user's own trace tells is in none of Stile's, and a handler's calls are in none if its own is not; nothing is sent for them.
func TestNotTraced(t *testing.T) {
	t.Setenv("STILE_DIR", t.TempDir())
	behind := dialTest(t, serveUnix(t, &echo{}))
	client := dialTest(t, serveUnix(t, &relay{unary: func(ctx context.Context) error {
		if ctx.Value(handlerKey{}).(*callContext).call.Trace != nil {
			t.Error("the call is in a trace")
		}
		_, err := behind.UnaryCall(ctx, &pb.SimpleRequest{})
		return err
	}}))
	take := tracing(t)
	ctx := metadata.AppendToOutgoingContext(testContext(t), "traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	if _, err := client.EmptyCall(ctx, &pb.Empty{}); err != nil {
		t.Fatal(err)
	}
	traced.Stop() // no root is chosen any more, as if it were not its turn
	if _, err := client.EmptyCall(testContext(t), &pb.Empty{}); err != nil {
		t.Fatal(err)
	}
	traced.Start()
	if _, err := behind.UnaryCall(testContext(t), &pb.SimpleRequest{}); err != nil { // which is the only one
		t.Fatal(err)
	}
	tree(t, take(2))
}

// taggedStats is a stats handler, as tracers are.
type taggedStats struct{}

func (taggedStats) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
}
func (taggedStats) HandleRPC(context.Context, stats.RPCStats)                         {}
func (taggedStats) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (taggedStats) HandleConn(context.Context, stats.ConnStats)                       {}

// TestTracedByUser: what a stats handler puts into a call counts, too; over gRPC, where it cannot be seen, there are no spans beside one.
func TestTracedByUser(t *testing.T) {
	target, _, _ := startServer(t, &echo{})
	take := tracing(t)
	p := testPolicy(t, "methodConfig: [{name: [{}], timeout: 10s, x-stile: {transport: {prefer: [tcp]}}}]")
	for _, opts := range [][]grpc.DialOption{{grpc.WithStatsHandler(taggedStats{})}, {grpc.WithStatsHandler(taggedStats{}), WithPolicy(p)}, {WithPolicy(p)}} {
		if _, err := dialTest(t, target, opts...).UnaryCall(testContext(t), &pb.SimpleRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	if s := bodiesOf(take(2))["client"][0]; s.Link.Transport != byUnix || s.Link.Side != telemetry.Client || s.Request != -1 || s.Parent != 0 {
		t.Errorf("%+v", s)
	}
}

// TestTracedTries: attempts say which they are.
func TestTracedTries(t *testing.T) {
	t.Setenv("STILE_DIR", t.TempDir())
	tries := 0
	target := serveUnix(t, &relay{unary: func(context.Context) error {
		if tries++; tries < 3 {
			return errGoingAway
		}
		return nil
	}})
	p := testPolicy(t, "methodConfig: [{name: [{}], timeout: 10s, retryPolicy: {maxAttempts: 3, initialBackoff: 0.001s, maxBackoff: 0.001s, backoffMultiplier: 1, retryableStatusCodes: [UNAVAILABLE]}, x-stile: {idempotency: IDEMPOTENT}}]")
	take := tracing(t)
	if _, err := dialTest(t, target, WithPolicy(p)).EmptyCall(testContext(t), &pb.Empty{}); err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for _, s := range take(6) {
		got[fmt.Sprint(s.Link.Side, s.Try, codes.Code(s.Code))]++
	}
	if want := fmt.Sprint(map[string]int{"0 0 Unavailable": 1, "0 1 Unavailable": 1, "0 2 OK": 1, "1 0 Unavailable": 1, "1 1 Unavailable": 1, "1 2 OK": 1}); fmt.Sprint(got) != want {
		t.Errorf("%v\nwant %v", got, want)
	}
}

// TestTracedTogether: whatever goes on at once, and however calls end, each handler's calls are in its own trace, and below it; those of calls that are in none are in none.
func TestTracedTogether(t *testing.T) {
	t.Setenv("STILE_DIR", t.TempDir())
	behind := dialTest(t, serveUnix(t, &echo{}))
	client := dialTest(t, serveUnix(t, &relay{unary: func(ctx context.Context) error {
		md, _ := metadata.FromIncomingContext(ctx)
		for range 2 {
			if _, err := behind.UnaryCall(ctx, &pb.SimpleRequest{Payload: payload(len(md["long"]))}); err != nil {
				return err
			}
		}
		if len(md["wait"]) > 0 {
			<-ctx.Done()
		}
		return ctx.Err()
	}}))
	tracing(t)
	const callers, each = 8, 60
	var all sync.WaitGroup
	for caller := range callers {
		all.Go(func() {
			for n := range each {
				ctx, cancel := context.WithCancel(testContext(t))
				switch (caller + n) % 4 {
				case 0:
					ctx = metadata.AppendToOutgoingContext(ctx, "traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
				case 1:
					var end context.CancelFunc
					ctx, end = context.WithTimeout(metadata.AppendToOutgoingContext(ctx, "wait", "1"), 20*time.Millisecond)
					defer end()
				}
				_, err := client.EmptyCall(ctx, &pb.Empty{})
				if (err != nil) != ((caller+n)%4 == 1) {
					t.Error(err)
				}
				cancel()
			}
		})
	}
	all.Wait()
	const calls = callers * each * 3 / 4
	var got []*spans.Span
	count := func() (waiting int) { // for the server's span of a call of which the client's is there
		some, lost := traced.Take()
		got = append(got, slices.DeleteFunc(some, func(s *spans.Span) bool { return s.Note })...)
		if lost > 0 {
			t.Fatalf("%d spans are lost", lost)
		}
		for _, s := range got {
			if waiting++; s.Link.Side == telemetry.Server {
				waiting -= 2
			}
		}
		return waiting
	}
	for end := time.Now().Add(10 * time.Second); count() != 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
	byID := map[uint64]*spans.Span{}
	for _, s := range got {
		byID[s.ID] = s
	}
	roots := 0
	for _, s := range got {
		p := byID[s.Parent]
		switch {
		case s.Parent == 0:
			roots++
			if s.Name.Method != "/grpc.testing.TestService/EmptyCall" || s.Link.Side != telemetry.Client {
				t.Errorf("a root %+v", s)
			}
		case p == nil || p.Trace != s.Trace || p.Link.Side == s.Link.Side:
			t.Errorf("%+v below %+v", s, p)
		}
	}
	if roots > calls || roots < calls*2/3 { // a third had little time, which may be over before they are sent
		t.Errorf("%d roots, want %d", roots, calls)
	}
}

// BenchmarkNotTraced is what tracing costs a call that is in no trace: at its client, which is not in a handler, or in one of a call in no trace, in contexts on top of each
// TestTracedKeepsLittle: a span that is held does not hold what its call was asked.
func TestTracedKeepsLittle(t *testing.T) {
	t.Setenv("STILE_DIR", t.TempDir())
	client := dialTest(t, serveUnix(t, &asks{do: parroting}))
	tracing(t)
	ctx, req := testContext(t), says("x", make([]byte, 15<<10)...)
	const n = 1000
	before := heap()
	for range n {
		if _, err := client.UnaryCall(ctx, req); err != nil {
			t.Fatal(err)
		}
	}
	grown := int64(heap()) - int64(before)
	all, lost := traced.Take()
	if each := grown / n; len(all) < n || lost > 0 || each > 4<<10 {
		t.Errorf("%d spans, %d lost: %d bytes a call", len(all), lost, each)
	}
	runtime.KeepAlive(all)
}

// TestHandlerOfMany: the trace of a handler that calls again and again, or for long, has an end, and leaves room for others.
func TestHandlerOfMany(t *testing.T) {
	tracing(t)
	root := traced.Root()
	cc := &callContext{conn: &serverConn{ctx: context.Background()}, begun: 1}
	cc.call.Trace = &wire.Trace{ID: root.Trace, Span: root.ID}
	in := 0
	for range 2 * maxChildren {
		if s := spanOf(cc, 2); s != nil && s.Trace == root.Trace {
			in++
		}
	}
	if in != maxChildren {
		t.Errorf("%d calls are of the handler's trace, want %d", in, maxChildren)
	}
	traced.Stop()
	traced.Start() // with room for new roots
	for _, trace := range []*wire.Trace{nil, {ID: root.Trace, Span: root.ID}} {
		late := &callContext{conn: cc.conn, begun: 1}
		late.call.Trace = trace
		if s := spanOf(late, 2+longHandler); s == nil || s.Trace == root.Trace {
			t.Errorf("a call after %s: %+v, want a trace of its own", longHandler, s)
		}
	}
}

// TestZeroTrace: what the user's tracing says is no trace if its ID is zero.
func TestZeroTrace(t *testing.T) {
	tracing(t)
	for id, want := range map[string]bool{strings.Repeat("0", 32): false, strings.Repeat("0", 31) + "1": true} {
		if _, _, recorded := parentOf(wire.MD{traceParent: {"00-" + id + "-00000000000000ff-01"}}); recorded != want {
			t.Errorf("%s is a trace: %v", id, recorded)
		}
	}
}

// other; and at its server.
func BenchmarkNotTraced(b *testing.B) {
	traced.Stop() // no root is chosen
	layers := func(ctx context.Context, n int) context.Context {
		for i := range n {
			ctx = context.WithValue(ctx, someKey{}, i)
		}
		return ctx
	}
	handler := &callContext{conn: &serverConn{ctx: context.Background(), clientTraces: true}}
	for name, ctx := range map[string]context.Context{"root": context.Background(), "root5": layers(context.Background(), 5), "handler": handler, "handler5": layers(handler, 5)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if spanOf(handlerOf(ctx), 0) != nil {
					b.Fatal("traced")
				}
			}
		})
	}
	b.Run("server", func(b *testing.B) {
		s := &serverStream{cc: handler, rec: serverRecord{arrived: 1}}
		b.ReportAllocs()
		for b.Loop() {
			s.trace()
		}
	})
}

// TestTracedDecisions: what a policy decides names the trace that Stile has made, of the attempt that failed or of the handler in which it was decided.
func TestTracedDecisions(t *testing.T) {
	t.Setenv("STILE_DIR", t.TempDir())
	handlers := map[string]bool{}
	target := serveUnix(t, &relay{unary: func(ctx context.Context) error {
		handlers[lazyctx.TraceOf(ctx)] = true
		return status.Error(codes.Unavailable, "order 17 failed")
	}})
	p := testPolicy(t, "methodConfig: [{name: [{}], timeout: 10s, retryPolicy: {maxAttempts: 2, initialBackoff: 0.001s, maxBackoff: 0.001s, backoffMultiplier: 1, retryableStatusCodes: [UNAVAILABLE]}, x-stile: {idempotency: IDEMPOTENT}}]")
	take := tracing(t)
	r := telemetry.Process()
	r.TakeEvents()
	if _, err := dialTest(t, target, WithPolicy(p)).EmptyCall(testContext(t), &pb.Empty{}); status.Code(err) != codes.Unavailable {
		t.Fatal(err)
	}
	made := map[string]bool{}
	for _, s := range take(4) {
		made[hex.EncodeToString(s.Trace[:])] = true
	}
	if !maps.Equal(handlers, made) {
		t.Errorf("handlers were in %v, of traces %v", handlers, made)
	}
	got := map[string]bool{}
	for begin := time.Now(); len(got) < 2 && time.Since(begin) < 10*time.Second; time.Sleep(time.Millisecond) { // they are told by a goroutine
		all, _ := r.TakeEvents()
		for _, e := range all {
			if e.Kind == "retried" || e.Kind == "retry given up" {
				got[e.Kind] = made[e.Trace] && e.Example == "order 17 failed"
			}
		}
	}
	if want := map[string]bool{"retried": true, "retry given up": true}; !maps.Equal(got, want) {
		t.Errorf("told with a trace: %v", got)
	}
}

// TestAnnounced: a client that counts, and tells no hub, wants a server's times, and leaves it to the server which calls are traced.
func TestAnnounced(t *testing.T) {
	e := &entrance{d: &dialer{own: ownDialOptions{recorder: telemetry.Process()}}, log: quiet()}
	for _, traces := range []bool{false, true, false} {
		if traces {
			traced.Start()
		}
		if self := e.dialConfig().Self; !self.ReadsTimes || self.Traces != traces {
			t.Errorf("traces %v: %+v", traces, self)
		}
		traced.Stop()
	}
}
