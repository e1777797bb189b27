package policy

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/stile-ipc/stile/policy/control"
)

// TestHedgesOnTime lets many calls overlap, some of which panic: those and only those that take longer than
// the delay are hedged, each just then. That the delay moves, as one at a percentile does, makes calls
// due in another order than they began in.
func TestHedgesOnTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := rule(t, "timeout: 1s, x-stile: {idempotency: IDEMPOTENT, hedge: {hedgingDelay: 0.01s}}", nil)
		s := &side{p: p}
		r := s.see(nil).t.route(unaryMethod)
		r.budget.budget = control.NewBudget(10_000, 10_000)
		rnd := rand.New(rand.NewPCG(4, 2))
		var calls sync.WaitGroup
		for range 5000 {
			time.Sleep(time.Duration(rnd.IntN(200)) * time.Microsecond)
			synctest.Wait()
			delay := time.Duration(2+rnd.IntN(10)) * time.Millisecond
			r.hedge.HedgingDelay.Fixed = Duration(delay)
			took := time.Duration(rnd.IntN(15_000))*time.Microsecond + 500*time.Nanosecond
			panics := rnd.IntN(10) == 0
			began, hedged := time.Now(), make(chan time.Time, 1)
			invoke := func(ctx context.Context, _ string, _, _ any, _ *grpc.ClientConn, _ ...grpc.CallOption) error {
				if md, _ := metadata.FromOutgoingContext(ctx); len(md[previousAttempts]) > 0 {
					hedged <- time.Now()
					<-ctx.Done()
					return contextStatus(ctx.Err())
				}
				time.Sleep(took)
				if panics {
					panic("codec")
				}
				return nil
			}
			calls.Go(func() {
				defer func() {
					if (recover() != nil) != panics {
						t.Errorf("panicked: %v", !panics)
					}
					time.Sleep(time.Nanosecond) // a hedge that is due now has begun by then
					close(hedged)
					at, was := <-hedged
					if was != (took > delay) || was && at.Sub(began) != delay {
						t.Errorf("a call of %v was hedged after %v: %v, %v", took, delay, was, at.Sub(began))
					}
				}()
				if err := s.unary(t.Context(), unaryMethod, &pb.SimpleRequest{}, &pb.SimpleResponse{}, nil, invoke); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		calls.Wait()
		if n := len(r.pending.calls); n != 0 {
			t.Errorf("%d calls still wait", n)
		}
	})
}

// hanging is an invoker whose first attempt hangs until it is cancelled, and whose others are hedge.
func hanging(hedge func()) grpc.UnaryInvoker {
	return func(ctx context.Context, _ string, _, _ any, _ *grpc.ClientConn, _ ...grpc.CallOption) error {
		if md, _ := metadata.FromOutgoingContext(ctx); len(md[previousAttempts]) > 0 {
			hedge()
		}
		<-ctx.Done()
		return contextStatus(ctx.Err())
	}
}

// TestHedgePanics: a panic on a hedge's goroutine is the caller's, and gives the budget back.
func TestHedgePanics(t *testing.T) {
	for name, invoke := range map[string]grpc.UnaryInvoker{
		"codec": hanging(func() { panic("codec") }),
		"trace": hanging(func() {}),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := rule(t, "timeout: 1s, x-stile: {idempotency: IDEMPOTENT, hedge: {hedgingDelay: 0.01s}}", nil)
				if name == "trace" {
					p.news.trace = func(context.Context) string { panic("trace") }
				}
				s := &side{p: p}
				b := s.see(nil).t.route(unaryMethod).budget.budget
				func() {
					defer func() {
						if v := recover(); !strings.HasPrefix(fmt.Sprint(v), name+", in a hedge:\n") {
							t.Errorf("panic %v", v)
						}
					}()
					err := s.unary(t.Context(), unaryMethod, &pb.SimpleRequest{}, &pb.SimpleResponse{}, nil, invoke)
					t.Errorf("no panic: %v", err)
				}()
				for i := range 3 { // minRetryConcurrency
					if !b.Take() {
						t.Errorf("the budget has kept something: %d", i)
					}
				}
			})
		})
	}
}

// TestHedgeNeedsMessages: what cannot be copied is not hedged.
func TestHedgeNeedsMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &side{p: rule(t, "timeout: 1s, x-stile: {idempotency: IDEMPOTENT, hedge: {hedgingDelay: 0.01s}}", nil)}
		for _, reply := range []any{nil, new(string)} {
			err := s.unary(t.Context(), unaryMethod, &pb.SimpleRequest{}, reply, nil, hanging(func() { t.Error("hedged") }))
			wantCode(t, err, codes.DeadlineExceeded)
		}
	})
}

// TestHedgeWhileDecoding: a hedge begins while the first attempt's answer is being decoded; the race detector looks on.
func TestHedgeWhileDecoding(t *testing.T) {
	data, err := proto.Marshal(&pb.SimpleResponse{Username: "first"})
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		synctest.Test(t, func(t *testing.T) {
			s := &side{p: rule(t, "timeout: 1s, x-stile: {idempotency: IDEMPOTENT, hedge: {hedgingDelay: 0.01s}}", nil)}
			invoke := func(ctx context.Context, _ string, _, reply any, _ *grpc.ClientConn, _ ...grpc.CallOption) error {
				if md, _ := metadata.FromOutgoingContext(ctx); len(md[previousAttempts]) > 0 {
					<-ctx.Done()
					return contextStatus(ctx.Err())
				}
				time.Sleep(10 * time.Millisecond)
				return proto.Unmarshal(data, reply.(proto.Message))
			}
			reply := new(pb.SimpleResponse)
			if err := s.unary(t.Context(), unaryMethod, &pb.SimpleRequest{}, reply, nil, invoke); err != nil || reply.GetUsername() != "first" {
				t.Errorf("%v, %v", reply, err)
			}
		})
	}
}

// TestNoHedgeAfterStop: the first attempt brings word that nobody is to try again, just when the hedge begins.
func TestNoHedgeAfterStop(t *testing.T) {
	s := &side{p: rule(t, "timeout: 1s, x-stile: {idempotency: IDEMPOTENT, hedge: {hedgingDelay: 0.01s}}", nil)}
	k := &call{side: s, r: s.see(nil).t.route(unaryMethod), ctx: t.Context(), deadline: time.Now().Add(time.Hour), req: &pb.SimpleRequest{}, reply: &pb.SimpleResponse{}}
	k.invoke = func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error {
		t.Error("hedged")
		return nil
	}
	first := k.next()
	h := newRace(k) // as pending.fire does
	h.armed = true
	first.err = status.Error(codes.Unavailable, "no more")
	first.Report.Trailer = map[string][]string{pushback: {"-1"}}
	h.finish(first)
	h.start()
}
