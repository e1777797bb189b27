package policy

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"google.golang.org/grpc"
	pb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/stile-ipc/stile/internal/lazyctx"
)

const benchRetry = "retryPolicy: {maxAttempts: 3, initialBackoff: 0.02s, maxBackoff: 0.2s, backoffMultiplier: 2, retryableStatusCodes: [UNAVAILABLE]}"

// private does nothing, as Stile's channel would: the attempt's context is seen by nobody.
func private(ctx context.Context, _ string, _, _ any, _ *grpc.ClientConn, _ grpc.UnaryInvoker, _ ...grpc.CallOption) error {
	if a, ok := ctx.(*lazyctx.Attempt); ok {
		a.Private = true
	}
	return nil
}

// BenchmarkChain tells what the chain itself costs, before a channel that does nothing. withtimeout is
// what a caller pays who gives a deadline by package context, and no policy.
func BenchmarkChain(b *testing.B) {
	nothing := func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error { return nil }
	req, reply := &pb.SimpleRequest{ResponseSize: 7}, new(pb.SimpleResponse)
	b.Run("withtimeout", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			_ = nothing(ctx, unaryMethod, req, reply, nil)
			cancel()
		}
	})
	late, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	for _, c := range []struct {
		name, text string
		ctx        context.Context
	}{
		{"empty-caller-deadline", "{}", late},
		{"empty", "{}", context.Background()},
		{"timeout", "methodConfig: [{name: [{}], timeout: 1s}]", context.Background()},
		{"retry", "methodConfig: [{name: [{}], timeout: 1s, " + benchRetry + ", x-stile: {idempotency: IDEMPOTENT}}]", context.Background()},
		{"breaker", "methodConfig: [{name: [{}], timeout: 1s, x-stile: {breaker: {}}}]", context.Background()},
		{"limit", "methodConfig: [{name: [{}], timeout: 1s, x-stile: {limit: {maxRequests: 200, maxPendingRequests: 50, adaptive: true}}}]", context.Background()},
		{"full", "retryThrottling: {maxTokens: 100, tokenRatio: 0.1}\nmethodConfig: [{name: [{}], timeout: 1s, " + benchRetry + ", x-stile: {idempotency: IDEMPOTENT, criticality: critical, breaker: {}, limit: {maxRequests: 200, maxPendingRequests: 50, adaptive: true}}}]", context.Background()},
		{"full-hedge", "methodConfig: [{name: [{}], timeout: 1s, " + benchRetry + ", x-stile: {idempotency: IDEMPOTENT, breaker: {}, limit: {maxRequests: 200, maxPendingRequests: 50, adaptive: true}, hedge: {hedgingDelay: 0.5s}}}]", context.Background()},
		{"cache-hit", "methodConfig: [{name: [{}], timeout: 1s, x-stile: {idempotency: NO_SIDE_EFFECTS, cache: {ttl: 1000s, keyFields: [response_size]}, coalesce: true}}]", context.Background()},
		{"coalesce-alone", "methodConfig: [{name: [{}], timeout: 1s, x-stile: {idempotency: NO_SIDE_EFFECTS, coalesce: true}}]", context.Background()},
	} {
		for name, own := range map[string]bool{"": false, "-own": true} {
			if own && (c.name == "empty-caller-deadline" || c.name == "cache-hit" || c.name == "coalesce-alone") {
				continue
			}
			b.Run(c.name+name, func(b *testing.B) {
				cfg, err := Parse("bench.yaml", []byte(c.text))
				if err != nil {
					b.Fatal(err)
				}
				s := &side{p: New(cfg, WithLogger(slog.New(slog.DiscardHandler)))}
				if own {
					s.below = private
				}
				b.ReportAllocs()
				for b.Loop() {
					if err := s.unary(c.ctx, unaryMethod, req, reply, nil, nothing); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
