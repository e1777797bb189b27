package stile

import (
	"context"
	"net"
	"path/filepath"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	pb "google.golang.org/grpc/interop/grpc_testing"
)

// Client and server share one process here, which is enough to see what the call
// layer allocates and where its time goes; bench/ compares two processes with
// rivals.
func benchClient(b *testing.B) pb.TestServiceClient {
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
	cc, err := NewClient("unix://"+lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { cc.Close() })
	return pb.NewTestServiceClient(cc)
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
