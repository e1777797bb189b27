package stile

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/peer"

	"github.com/stile-ipc/stile/policy"
)

// policies are what BenchmarkPolicy compares; nothing of them trips.
var policies = []struct{ name, text string }{
	{"none", ""},
	{"empty", "{}"},
	{"timeout", "methodConfig: [{name: [{}], timeout: 1s}]"},
	{"retry", "methodConfig: [{name: [{}], timeout: 1s, " + benchRetry + ", x-stile: {idempotency: IDEMPOTENT}}]"},
	{"full", "retryThrottling: {maxTokens: 100, tokenRatio: 0.1}\nmethodConfig: [{name: [{}], timeout: 1s, " + benchRetry + ", x-stile: {idempotency: IDEMPOTENT, criticality: critical, breaker: {}, limit: {maxRequests: 200, maxPendingRequests: 50, adaptive: true}}}]"},
	{"hedge", "methodConfig: [{name: [{}], timeout: 1s, " + benchRetry + ", x-stile: {idempotency: IDEMPOTENT, breaker: {}, limit: {maxRequests: 200, maxPendingRequests: 50, adaptive: true}, hedge: {hedgingDelay: 0.5s}}}]"},
}

const benchRetry = "retryPolicy: {maxAttempts: 3, initialBackoff: 0.02s, maxBackoff: 0.2s, backoffMultiplier: 2, retryableStatusCodes: [UNAVAILABLE]}"

// BenchmarkPolicy tells what a policy adds to a call through shared memory, and through
// grpc-go over a unix socket: in turns, with nothing tripping. withtimeout is a call without
// policy to which the caller gives a deadline, by package context.
func BenchmarkPolicy(b *testing.B) {
	for _, way := range []string{"shm", "grpc"} {
		b.Run(way, func(b *testing.B) { benchPolicies(b, way == "shm") })
	}
}

func benchPolicies(b *testing.B, local bool) {
	b.Setenv("STILE_DIR", b.TempDir())
	addr := filepath.Join(b.TempDir(), "s")
	lis, err := net.Listen("unix", addr)
	if err != nil {
		b.Fatal(err)
	}
	s := NewServer()
	pb.RegisterTestServiceServer(s, &echo{})
	done := make(chan error, 1)
	go func() { done <- s.Serve(lis) }()
	b.Cleanup(func() { s.Stop(); <-done })
	waitOpen(b, s)
	var names []string
	var calls []func() error
	req := &pb.SimpleRequest{Payload: payload(64)}
	for _, p := range policies {
		cc := policyConn(b, "unix://"+addr, p.text, local)
		client := pb.NewTestServiceClient(cc)
		var seen peer.Peer
		if _, err := client.UnaryCall(context.Background(), req, grpc.Peer(&seen)); err != nil {
			b.Fatal(err)
		}
		if _, is := seen.AuthInfo.(AuthInfo); is != local {
			b.Fatalf("%s: local %v", p.name, is)
		}
		names = append(names, p.name)
		calls = append(calls, func() error { _, err := client.UnaryCall(context.Background(), req); return err })
		if p.name == "none" {
			names = append(names, "withtimeout")
			calls = append(calls, func() error {
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				defer cancel()
				_, err := client.UnaryCall(ctx, req)
				return err
			})
		}
	}
	inTurns(b, names, calls)
}

func policyConn(b *testing.B, target, text string, local bool) *grpc.ClientConn {
	opts := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	if text != "" {
		c, err := policy.Parse("bench.yaml", []byte(text))
		if err != nil {
			b.Fatal(err)
		}
		p := policy.New(c, policy.WithLogger(slog.New(slog.DiscardHandler)))
		if local {
			opts = append(opts, WithPolicy(p))
		} else {
			opts = append(opts, grpc.WithDisableRetry(), grpc.WithChainUnaryInterceptor(policy.UnaryClientInterceptor(p)))
		}
	}
	dial := grpc.NewClient
	if local {
		dial = NewClient
	}
	cc, err := dial(target, opts...)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { cc.Close() })
	return cc
}

// inTurns runs blocks of calls in turns and reports for each what it takes, and what it
// takes more than the first.
func inTurns(b *testing.B, names []string, calls []func() error) {
	const block = 100
	took, mallocs := make([]time.Duration, len(calls)), make([]uint64, len(calls))
	var before, after runtime.MemStats
	n := 0
	for b.Loop() {
		for i, call := range calls {
			runtime.ReadMemStats(&before)
			start := time.Now()
			for range block {
				if err := call(); err != nil {
					b.Fatal(err)
				}
			}
			took[i] += time.Since(start)
			runtime.ReadMemStats(&after)
			mallocs[i] += after.Mallocs - before.Mallocs
		}
		n += block
	}
	for i, name := range names {
		b.ReportMetric(float64(took[i].Nanoseconds())/float64(n), name+"-ns")
		b.ReportMetric(float64(mallocs[i])/float64(n), name+"-allocs")
	}
	b.ReportMetric(0, "ns/op")
}
