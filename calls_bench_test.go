package stile

import (
	"context"
	"net"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/peer"
)

// Client and server share one process here, which is enough to see what the call
// layer allocates and where its time goes; bench/ compares two processes with
// rivals.
func benchClient(b *testing.B) pb.TestServiceClient {
	return pb.NewTestServiceClient(benchConn(b, new(dialer)))
}

// benchConn is a connection whose interceptors are d's.
func benchConn(b *testing.B, d *dialer) *grpc.ClientConn {
	b.Setenv("STILE_DIR", b.TempDir())
	lis, err := net.Listen("unix", filepath.Join(b.TempDir(), "s"))
	if err != nil {
		b.Fatal(err)
	}
	s := NewServer()
	pb.RegisterTestServiceServer(s, &echo{})
	done := make(chan error, 1)
	go func() { done <- s.Serve(lis) }()
	b.Cleanup(func() { s.Stop(); <-done })
	cc, err := grpc.NewClient("unix://"+lis.Addr().String(), append(d.options(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { cc.Close() })
	return cc
}

func BenchmarkUnary(b *testing.B) {
	c := benchClient(b)
	req := &pb.SimpleRequest{Payload: payload(64)}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.UnaryCall(context.Background(), req); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkClientConn tells what *grpc.ClientConn adds to a call, which it does before
// and after its interceptors: calls with it and without it, in turns.
func BenchmarkClientConn(b *testing.B) {
	d := new(dialer)
	cc := benchConn(b, d)
	req := &pb.SimpleRequest{Payload: payload(64)}
	const method = "/grpc.testing.TestService/UnaryCall"
	const block = 200 // calls of one kind
	ctx := context.Background()
	for local := false; !local; { // the door opens just after the server listens
		var p peer.Peer
		if err := cc.Invoke(ctx, method, req, new(pb.SimpleResponse), grpc.Peer(&p)); err != nil {
			b.Fatal(err)
		}
		_, local = p.AuthInfo.(AuthInfo)
	}
	took := [2]time.Duration{}
	kinds := [2]func(reply *pb.SimpleResponse) error{
		func(reply *pb.SimpleResponse) error { return cc.Invoke(ctx, method, req, reply) },
		func(reply *pb.SimpleResponse) error { return d.unary(ctx, method, req, reply, cc, nil) },
	}
	calls := 0
	for b.Loop() {
		for i, call := range kinds {
			start := time.Now()
			for range block {
				if err := call(new(pb.SimpleResponse)); err != nil {
					b.Fatal(err)
				}
			}
			took[i] += time.Since(start)
		}
		calls += block
	}
	b.ReportMetric(float64(took[0].Nanoseconds())/float64(calls), "ns/call")
	b.ReportMetric(float64(took[1].Nanoseconds())/float64(calls), "ns/bare-call")
	b.ReportMetric(100*float64(took[0]-took[1])/float64(took[0]), "%-ClientConn")
}

func BenchmarkUnaryParallel(b *testing.B) {
	c := benchClient(b)
	b.ReportAllocs()
	b.SetParallelism(32)
	b.RunParallel(func(p *testing.PB) {
		req := &pb.SimpleRequest{Payload: payload(64)}
		for p.Next() {
			if _, err := c.UnaryCall(context.Background(), req); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
