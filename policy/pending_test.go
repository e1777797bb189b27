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
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"

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

// TestHedgePanics: a panic on a hedge's goroutine is the caller's.
func TestHedgePanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &side{p: rule(t, "timeout: 1s, x-stile: {idempotency: IDEMPOTENT, hedge: {hedgingDelay: 0.01s}}", nil)}
		invoke := func(ctx context.Context, _ string, _, _ any, _ *grpc.ClientConn, _ ...grpc.CallOption) error {
			if md, _ := metadata.FromOutgoingContext(ctx); len(md[previousAttempts]) > 0 {
				panic("codec")
			}
			<-ctx.Done()
			return contextStatus(ctx.Err())
		}
		defer func() {
			if v := recover(); !strings.HasPrefix(fmt.Sprint(v), "codec, in a hedge:\n") {
				t.Errorf("panic %v", v)
			}
		}()
		err := s.unary(t.Context(), unaryMethod, &pb.SimpleRequest{}, &pb.SimpleResponse{}, nil, invoke)
		t.Errorf("no panic: %v", err)
	})
}
