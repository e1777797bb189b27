package stile

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/stile-ipc/stile/internal/spans"
	"github.com/stile-ipc/stile/telemetry"
)

// TestTracedLimits: a span says for which limit its call waited, of all that it did.
func TestTracedLimits(t *testing.T) {
	const calls, handler = 4, 20 * time.Millisecond
	limit := "methodConfig: [{name: [{}], timeout: 10s, x-stile: {limit: {maxRequests: 1, maxPendingRequests: 100}}}]"
	admission := "x-stile: {admission: {maxRequests: 1, maxPendingRequests: 100, maxQueueDelay: 10s}}"
	for _, c := range []struct {
		name   string
		side   telemetry.Side
		server []grpc.ServerOption
		client []grpc.DialOption
	}{
		{"limit", telemetry.Client, nil, []grpc.DialOption{WithPolicy(testPolicy(t, limit))}},
		{"slot", telemetry.Client, []grpc.ServerOption{MaxConcurrentStreams(1)}, nil},
		{"admission", telemetry.Server, []grpc.ServerOption{Policy(testPolicy(t, admission))}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			target, _, _ := startServer(t, &sluggish{handler: handler, waited: map[int32]stretch{}}, c.server...)
			client := dialTest(t, target, c.client...)
			take := tracing(t)
			var all sync.WaitGroup
			for range calls {
				all.Go(func() {
					if _, err := client.UnaryCall(testContext(t), &pb.SimpleRequest{}); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
			var sum time.Duration
			for _, s := range take(2 * calls) {
				parts := map[string]time.Duration{"limit": s.Limit, "slot": s.Slot, "window": s.Window, "admission": s.Admission}
				waited := s.Waited
				if s.Link.Side == telemetry.Server {
					waited = s.Queued
				}
				for name, d := range parts {
					if d > waited || d > handler/2 && (name != c.name || s.Link.Side != c.side) {
						t.Errorf("side %d: %v for the %s, %v in all", s.Link.Side, d, name, waited)
					}
				}
				sum += parts[c.name]
			}
			if want := handler * (0 + 1 + 2 + 3); sum < want*9/10 { // each waits for those before
				t.Errorf("%v of waiting for the %s, want %v", sum, c.name, want)
			}
		})
	}
}

// TestTracedCause: a span says why a call was cancelled, if who did so has said it, and that a call's connection was lost.
func TestTracedCause(t *testing.T) {
	t.Setenv("STILE_DIR", t.TempDir())
	begun := make(chan struct{})
	target, server, _ := startServer(t, &relay{unary: func(ctx context.Context) error {
		begun <- struct{}{}
		<-ctx.Done()
		return status.FromContextError(ctx.Err()).Err()
	}})
	take := tracing(t)
	client := dialTest(t, target)
	for _, c := range []struct {
		want  spans.Ended
		cause string
		end   func(cancel context.CancelCauseFunc)
	}{
		{spans.Cancelled, "", func(cancel context.CancelCauseFunc) { cancel(nil) }},
		{spans.Cancelled, "a sibling has failed", func(cancel context.CancelCauseFunc) { cancel(errors.New("a sibling has failed")) }},
		{spans.Lost, "", func(context.CancelCauseFunc) { server.Stop() }},
	} {
		ctx, cancel := context.WithCancelCause(testContext(t))
		defer cancel(nil)
		go func() {
			<-begun
			c.end(cancel)
		}()
		if _, err := client.EmptyCall(ctx, &pb.Empty{}); err == nil {
			t.Fatal("no error")
		}
		for _, s := range take(2) {
			cause := c.cause
			if s.Link.Side == telemetry.Server { // which is told no more than that it is cancelled
				cause = ""
			}
			if s.Ended != c.want || s.Cause != cause {
				t.Errorf("side %d ended by %d because of %q, want %d because of %q", s.Link.Side, s.Ended, s.Cause, c.want, c.cause)
			}
		}
	}
}
