package stile

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

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

// BenchmarkShed tells what a call that a server sheds costs both sides, in turns: by the interceptor of a grpc-go
// server, by its tap handle, and at Stile's own door. The request has 64 KiB in a repeated message field.
func BenchmarkShed(b *testing.B) {
	b.Setenv("STILE_DIR", b.TempDir())
	cfg, err := policy.Parse("bench.yaml", []byte("x-stile: {admission: {maxRequests: 1, maxPendingRequests: 0}}"))
	if err != nil {
		b.Fatal(err)
	}
	req := &pb.StreamingOutputCallRequest{}
	for range 8 << 10 {
		req.ResponseParameters = append(req.ResponseParameters, &pb.ResponseParameters{Size: 1 << 20})
	}
	method := pb.TestService_StreamingOutputCall_FullMethodName + "Unary"
	var names []string
	var calls []func() error
	for _, name := range []string{"interceptor", "tap", "door"} {
		p := policy.New(cfg, policy.WithLogger(slog.New(slog.DiscardHandler)))
		begun, end := make(chan struct{}), make(chan struct{})
		first := true
		desc := &grpc.ServiceDesc{ServiceName: "grpc.testing.TestService", HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{{
			MethodName: "StreamingOutputCallUnary",
			Handler: func(srv any, ctx context.Context, dec func(any) error, in grpc.UnaryServerInterceptor) (any, error) {
				req := new(pb.StreamingOutputCallRequest)
				if err := dec(req); err != nil {
					return nil, err
				}
				return in(ctx, req, &grpc.UnaryServerInfo{Server: srv, FullMethod: method}, func(context.Context, any) (any, error) {
					if first {
						first = false
						close(begun)
						<-end
					}
					return &pb.Empty{}, nil
				})
			},
		}}}
		lis, err := net.Listen("unix", filepath.Join(b.TempDir(), "s"))
		if err != nil {
			b.Fatal(err)
		}
		var s interface {
			grpc.ServiceRegistrar
			Serve(net.Listener) error
			Stop()
		}
		dial := grpc.NewClient
		switch name {
		case "interceptor":
			s = grpc.NewServer(grpc.UnaryInterceptor(policy.UnaryServerInterceptor(p)))
		case "tap":
			s = grpc.NewServer(grpc.UnaryInterceptor(policy.UnaryServerInterceptor(p)), grpc.InTapHandle(policy.ServerInHandle(p)))
		case "door":
			s, dial = NewServer(Policy(p)), NewClient
		}
		s.RegisterService(desc, struct{}{})
		done := make(chan error, 1)
		go func() { done <- s.Serve(lis) }()
		b.Cleanup(func() { s.Stop(); <-done })
		if own, ok := s.(*Server); ok {
			waitOpen(b, own)
		}
		cc, err := dial("unix://"+lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { cc.Close() })
		kept := make(chan error, 1)
		go func() { kept <- cc.Invoke(context.Background(), method, &pb.StreamingOutputCallRequest{}, &pb.Empty{}) }()
		<-begun // the only place is taken from now on
		b.Cleanup(func() {
			close(end)
			if err := <-kept; err != nil {
				b.Error(err)
			}
		})
		names = append(names, name)
		calls = append(calls, func() error {
			if err := cc.Invoke(context.Background(), method, req, &pb.Empty{}); status.Code(err) != codes.ResourceExhausted {
				return fmt.Errorf("not shed: %w", err)
			}
			return nil
		})
	}
	inTurns(b, names, calls)
}
