package stile

import (
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"github.com/stile-ipc/stile/transport/wire"
)

type rsvc struct {
	pb.UnimplementedTestServiceServer
	slow time.Duration
	hold chan struct{}
}

func (r *rsvc) EmptyCall(ctx context.Context, _ *pb.Empty) (*pb.Empty, error) {
	grpc.SetTrailer(ctx, metadata.Pairs("secret", "of-call-one"))
	if md, _ := metadata.FromIncomingContext(ctx); len(md["slow"]) > 0 {
		time.Sleep(r.slow)
	}
	return &pb.Empty{}, nil
}
func (r *rsvc) StreamingOutputCall(_ *pb.StreamingOutputCallRequest, s pb.TestService_StreamingOutputCallServer) error {
	for range 3 {
		s.Send(&pb.StreamingOutputCallResponse{})
	}
	return nil
}
func (r *rsvc) FullDuplexCall(s pb.TestService_FullDuplexCallServer) error {
	if md, _ := metadata.FromIncomingContext(s.Context()); len(md["late"]) > 0 {
		time.Sleep(200 * time.Millisecond)
		s.SendHeader(metadata.Pairs("a", "b"))
		time.Sleep(200 * time.Millisecond)
		s.Send(&pb.StreamingOutputCallResponse{})
		<-s.Context().Done()
		return nil
	}
	s.SendHeader(nil)
	<-r.hold
	return nil
}

func rstart(t *testing.T, plain bool, svc *rsvc, opts ...grpc.ServerOption) (*Server, string) {
	if !plain {
		t.Setenv("STILE_DIR", t.TempDir())
	} else {
		t.Setenv("STILE", "off")
	}
	p := filepath.Join(t.TempDir(), "s")
	lis, _ := net.Listen("unix", p)
	s := NewServer(opts...)
	pb.RegisterTestServiceServer(s, svc)
	go s.Serve(lis)
	if !plain {
		waitOpen(t, s)
	}
	t.Cleanup(s.Stop)
	return s, "unix://" + p
}
func rdial(t *testing.T, target string, opts ...grpc.DialOption) *grpc.ClientConn {
	cc, err := NewClient(target, append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return cc
}
func rboth(t *testing.T, f func(t *testing.T, plain bool)) {
	for _, p := range []bool{true, false} {
		t.Run(fmt.Sprintf("plain=%v", p), func(t *testing.T) { f(t, p) })
	}
}

func TestTruncate(t *testing.T) {
	rboth(t, func(t *testing.T, plain bool) {
		_, target := rstart(t, plain, &rsvc{})
		c := pb.NewTestServiceClient(rdial(t, target))
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		defer cancel()
		s, err := c.StreamingOutputCall(ctx, &pb.StreamingOutputCallRequest{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Recv()
		t.Log("first", err)
		time.Sleep(500 * time.Millisecond)
		for i := range 4 {
			_, err = s.Recv()
			t.Log(i, err)
			if err == io.EOF && i < 2 {
				t.Error("clean EOF, messages missing")
			}
			if err != nil {
				break
			}
		}
	})
}

func TestMaxStreams(t *testing.T) {
	rboth(t, func(t *testing.T, plain bool) {
		_, target := rstart(t, plain, &rsvc{slow: 300 * time.Millisecond}, grpc.MaxConcurrentStreams(1))
		c := pb.NewTestServiceClient(rdial(t, target))
		var p peer.Peer
		_, err := c.EmptyCall(context.Background(), &pb.Empty{}, grpc.Peer(&p))
		t.Log("warm", err, p.AuthInfo)
		for i := range 3 {
			ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(context.Background(), "slow", "1"), 30*time.Millisecond)
			_, err = c.EmptyCall(ctx, &pb.Empty{})
			cancel()
			_, err2 := c.EmptyCall(context.Background(), &pb.Empty{})
			t.Log(i, err, "|", err2)
			if err2 != nil {
				t.Error("call after a timed-out one:", err2)
			}
		}
	})
}

func TestStaleTrailer(t *testing.T) {
	rboth(t, func(t *testing.T, plain bool) {
		svc := &rsvc{hold: make(chan struct{})}
		_, target := rstart(t, plain, svc, grpc.MaxConcurrentStreams(1))
		c := pb.NewTestServiceClient(rdial(t, target))
		var tr metadata.MD
		c.EmptyCall(context.Background(), &pb.Empty{}, grpc.Trailer(&tr))
		t.Log(tr)
		s, err := c.FullDuplexCall(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		s.Header()
		for range 20 {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
			var hd, tr2 metadata.MD
			_, err = c.EmptyCall(ctx, &pb.Empty{}, grpc.Trailer(&tr2), grpc.Header(&hd))
			cancel()
			if len(tr2["secret"]) > 0 || len(hd) > 0 {
				t.Fatal("trailer of another call:", tr2, hd, err)
			}
		}
		t.Log(err)
		close(svc.hold)
	})
}

func TestHeaderAndRecv(t *testing.T) {
	rboth(t, func(t *testing.T, plain bool) {
		_, target := rstart(t, plain, &rsvc{})
		cc := rdial(t, target)
		c := pb.NewTestServiceClient(cc)
		c.EmptyCall(context.Background(), &pb.Empty{})
		ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(context.Background(), "late", "1"), 2*time.Second)
		defer cancel()
		s, err := c.FullDuplexCall(ctx)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan string, 2)
		go func() { _, err := s.Header(); done <- fmt.Sprint("header ", err) }()
		go func() { _, err := s.Recv(); done <- fmt.Sprint("recv ", err) }()
		for range 2 {
			select {
			case x := <-done:
				t.Log(x)
			case <-time.After(4 * time.Second):
				t.Error("Header or Recv hangs past the deadline")
			}
		}
		ctx2, cancel2 := context.WithTimeout(context.Background(), time.Second)
		defer cancel2()
		_, err = c.EmptyCall(ctx2, &pb.Empty{})
		if err != nil {
			t.Error("other call on the connection:", err)
		}
	})
}

// A stream interceptor guards every stream of a service, also one whose descriptor
// says neither who streams (grpc-go does so up to 1.83).
func TestStreamInterceptorAlwaysRuns(t *testing.T) {
	t.Setenv("STILE_DIR", t.TempDir())
	p := filepath.Join(t.TempDir(), "s")
	lis, _ := net.Listen("unix", p)
	s := NewServer(grpc.StreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
		return status.Error(codes.PermissionDenied, "guard")
	}))
	s.RegisterService(&grpc.ServiceDesc{ServiceName: "x.Y", HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{{StreamName: "Z", Handler: func(_ any, ss grpc.ServerStream) error {
		var e pb.Empty
		if err := ss.RecvMsg(&e); err != nil {
			return err
		}
		return ss.SendMsg(&e)
	}}}}, struct{}{})
	go s.Serve(lis)
	defer s.Stop()
	waitOpen(t, s)
	cc := rdial(t, "unix://"+p)
	err := cc.Invoke(context.Background(), "/x.Y/Z", &pb.Empty{}, &pb.Empty{})
	if status.Code(err) != codes.PermissionDenied {
		t.Error("guard skipped:", err)
	}
}

func TestServeStopDuringGraceful(t *testing.T) {
	rboth(t, func(t *testing.T, plain bool) {
		if plain {
			t.Setenv("STILE", "off")
		} else {
			t.Setenv("STILE_DIR", t.TempDir())
		}
		p := filepath.Join(t.TempDir(), "s")
		lis, _ := net.Listen("unix", p)
		s := grpc.NewServer()
		svc := &rsvc{hold: make(chan struct{})}
		pb.RegisterTestServiceServer(s, svc)
		go Serve(s, lis)
		time.Sleep(100 * time.Millisecond)
		c := pb.NewTestServiceClient(rdial(t, "unix://"+p))
		st, err := c.FullDuplexCall(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		st.Header()
		go s.GracefulStop()
		time.Sleep(200 * time.Millisecond)
		done := make(chan bool)
		go func() { st.Recv(); close(done) }()
		go s.Stop()
		select {
		case <-done:
		case <-time.After(3 * time.Second):
			t.Error("Stop during GracefulStop did not end the call")
		}
		close(svc.hold)
	})
}

func TestServeListenerClosed(t *testing.T) {
	rboth(t, func(t *testing.T, plain bool) {
		if plain {
			t.Setenv("STILE", "off")
		} else {
			t.Setenv("STILE_DIR", t.TempDir())
		}
		p := filepath.Join(t.TempDir(), "s")
		lis, _ := net.Listen("unix", p)
		s := grpc.NewServer()
		svc := &rsvc{hold: make(chan struct{})}
		pb.RegisterTestServiceServer(s, svc)
		served := make(chan bool)
		go func() { Serve(s, lis); close(served) }()
		time.Sleep(100 * time.Millisecond)
		c := pb.NewTestServiceClient(rdial(t, "unix://"+p))
		if _, err := c.EmptyCall(context.Background(), &pb.Empty{}); err != nil {
			t.Fatal(err)
		}
		lis.Close()
		<-served
		s.Stop()
		// Stop does not know of the door, which follows at once but not before it returns.
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
			if _, err := c.EmptyCall(context.Background(), &pb.Empty{}); err != nil {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("a stopped server still answers")
			}
		}
		close(svc.hold)
	})
}

func TestCloseWhileDraining(t *testing.T) {
	rboth(t, func(t *testing.T, plain bool) {
		svc := &rsvc{hold: make(chan struct{})}
		s, target := rstart(t, plain, svc)
		cc := rdial(t, target)
		c := pb.NewTestServiceClient(cc)
		st, err := c.FullDuplexCall(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		st.Header()
		go s.GracefulStop()
		time.Sleep(300 * time.Millisecond)
		cc.Close()
		done := make(chan bool)
		go func() { _, err := st.Recv(); t.Log(err); close(done) }()
		select {
		case <-done:
		case <-time.After(2 * time.Second):
			t.Error("cc.Close did not end the call")
		}
		close(svc.hold)
		<-done
		time.Sleep(200 * time.Millisecond)
	})
}

func TestShutEntranceLeak(t *testing.T) {
	t.Setenv("STILE_DIR", t.TempDir())
	d := &dialer{}
	for range 10 {
		cc, _ := grpc.NewClient("passthrough:///127.0.0.1:1", append([]grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return nil, io.EOF })}, d.options()...)...)
		cc.Invoke(context.Background(), "/a/b", &pb.Empty{}, &pb.Empty{})
		cc.Close()
	}
	time.Sleep(300 * time.Millisecond)
	d.mu.Lock()
	defer d.mu.Unlock()
	if n := len(d.entrances); n > 0 {
		t.Error("entrances kept:", n)
	}
}

// noted is a stats handler that notes what it is told of calls.
type noted struct {
	mu   sync.Mutex
	list []stats.RPCStats
}

func (*noted) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (*noted) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (*noted) HandleConn(context.Context, stats.ConnStats)                       {}

func (n *noted) HandleRPC(_ context.Context, s stats.RPCStats) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.list = append(n.list, s)
}

// detailed fails with details.
type detailed struct{ echo }

func (*detailed) UnaryCall(ctx context.Context, _ *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	_ = grpc.SetTrailer(ctx, metadata.Pairs("a", "b"))
	st, err := status.New(codes.NotFound, "x").WithDetails(&pb.Empty{})
	if err != nil {
		return nil, err
	}
	return nil, st.Err()
}

// A stats handler sees the handler's own trailer, not what Stile adds for the wire.
func TestOutTrailer(t *testing.T) {
	n := &noted{}
	target, s, _ := startServer(t, &detailed{}, grpc.StatsHandler(n))
	if _, err := dialTest(t, target).UnaryCall(testContext(t), &pb.SimpleRequest{}); len(status.Convert(err).Details()) != 1 {
		t.Fatal(err)
	}
	s.Stop()
	n.mu.Lock()
	defer n.mu.Unlock()
	found := false
	for _, e := range n.list {
		if o, ok := e.(*stats.OutTrailer); ok {
			found = true
			if len(o.Trailer) != 1 {
				t.Errorf("%v", o.Trailer)
			}
		}
	}
	if !found {
		t.Error("no trailer was told of")
	}
}

// The stats of a call that the server refused end with a status.
func TestRefusedStats(t *testing.T) {
	n := &noted{}
	i := newImpostor(t, "shm", nil, func(a *answer) {
		a.send(wire.TypeReset, 0, wire.AppendReset(nil, &wire.Reset{Code: wire.ResetRefused}))
	})
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	_, _ = i.dial(grpc.WithStatsHandler(n)).UnaryCall(ctx, &pb.SimpleRequest{})
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, e := range n.list {
		if end, ok := e.(*stats.End); ok {
			if code := status.Code(end.Error); code == codes.Unknown {
				t.Errorf("a call ended with %v", end.Error)
			}
			return
		}
	}
	t.Error("no end was told of")
}
