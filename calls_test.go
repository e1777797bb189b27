package stile

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// echo answers with what it is sent.
type echo struct {
	pb.UnimplementedTestServiceServer
	block chan struct{} // EmptyCall waits for it, when not nil
}

func (e *echo) EmptyCall(ctx context.Context, _ *pb.Empty) (*pb.Empty, error) {
	if e.block != nil {
		select {
		case <-e.block:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return &pb.Empty{}, nil
}

func (e *echo) UnaryCall(_ context.Context, r *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	if s := r.GetResponseStatus(); s != nil {
		return nil, status.Error(codes.Code(s.Code), s.Message)
	}
	return &pb.SimpleResponse{Payload: r.Payload}, nil
}

func (e *echo) FullDuplexCall(s pb.TestService_FullDuplexCallServer) error {
	for {
		r, err := s.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := s.Send(&pb.StreamingOutputCallResponse{Payload: r.Payload}); err != nil {
			return err
		}
	}
}

// countingListener counts the connections a listener accepts: HTTP/2's.
type countingListener struct {
	net.Listener
	accepted chan struct{}
}

func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.accepted <- struct{}{}
	}
	return c, err
}

// startServer serves impl on a unix socket with a local door, in a rendezvous
// folder of its own, until the test ends.
func startServer(t *testing.T, impl pb.TestServiceServer, opts ...grpc.ServerOption) (target string, s *Server, accepted chan struct{}) {
	t.Helper()
	t.Setenv("STILE_DIR", t.TempDir())
	path := filepath.Join(t.TempDir(), "s")
	lis, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s = NewServer(opts...)
	pb.RegisterTestServiceServer(s, impl)
	accepted = make(chan struct{}, 1000)
	done := make(chan error, 1)
	go func() { done <- s.Serve(&countingListener{lis, accepted}) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-done; err != nil && !errors.Is(err, grpc.ErrServerStopped) { // it is if it was stopped before it served, by the door alone
			t.Errorf("Serve: %v", err)
		}
	})
	waitOpen(t, s)
	return "unix://" + path, s, accepted
}

// waitOpen waits until the server listens at its local door.
func waitOpen(t testing.TB, s *Server) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		if d := s.opened(); d != nil {
			d.mu.Lock()
			n := len(d.listeners)
			d.mu.Unlock()
			if n > 0 {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("the local door did not open")
		}
		time.Sleep(time.Millisecond)
	}
}

func dialTest(t testing.TB, target string, opts ...grpc.DialOption) pb.TestServiceClient {
	t.Helper()
	opts = append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()))
	cc, err := NewClient(target, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return pb.NewTestServiceClient(cc)
}

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func payload(n int) *pb.Payload {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 7)
	}
	return &pb.Payload{Body: b}
}

func wantLocal(t *testing.T, p *peer.Peer, accepted chan struct{}) {
	t.Helper()
	if _, ok := p.AuthInfo.(AuthInfo); !ok {
		t.Errorf("peer %v with %T: the call was not local", p.Addr, p.AuthInfo)
	}
	if n := len(accepted); n != 0 {
		t.Errorf("%d HTTP/2 connections were opened", n)
	}
}

func TestUnaryIsLocal(t *testing.T) {
	target, _, accepted := startServer(t, &echo{})
	c := dialTest(t, target)
	for _, size := range []int{0, 1, 100, 4096, 65536, 1 << 20, 3 << 20} {
		var p peer.Peer
		r, err := c.UnaryCall(testContext(t), &pb.SimpleRequest{Payload: payload(size)}, grpc.Peer(&p))
		if err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		if string(r.Payload.Body) != string(payload(size).Body) {
			t.Errorf("%d bytes came back as other bytes", size)
		}
		wantLocal(t, &p, accepted)
	}
}

func TestStatusIsLocal(t *testing.T) {
	target, _, accepted := startServer(t, &echo{})
	c := dialTest(t, target)
	var p peer.Peer
	_, err := c.UnaryCall(testContext(t), &pb.SimpleRequest{ResponseStatus: &pb.EchoStatus{Code: 9, Message: "nö\n"}}, grpc.Peer(&p))
	if s := status.Convert(err); s.Code() != codes.FailedPrecondition || s.Message() != "nö\n" {
		t.Errorf("status %v", s)
	}
	wantLocal(t, &p, accepted)
}

func TestBidiIsLocal(t *testing.T) {
	target, _, accepted := startServer(t, &echo{})
	c := dialTest(t, target)
	s, err := c.FullDuplexCall(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 200 {
		size := i * i * 7
		if err := s.Send(&pb.StreamingOutputCallRequest{Payload: payload(size)}); err != nil {
			t.Fatal(err)
		}
		r, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Payload.Body) != size {
			t.Fatalf("sent %d bytes, got %d", size, len(r.Payload.Body))
		}
	}
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); err != io.EOF {
		t.Fatalf("end: %v, want io.EOF", err)
	}
	p, _ := peer.FromContext(s.Context())
	_ = p
	if len(accepted) != 0 {
		t.Errorf("%d HTTP/2 connections were opened", len(accepted))
	}
}

func TestDeadlineAndCancel(t *testing.T) {
	impl := &echo{block: make(chan struct{})}
	target, _, accepted := startServer(t, impl)
	c := dialTest(t, target)
	ctx, cancel := context.WithTimeout(testContext(t), 20*time.Millisecond)
	defer cancel()
	if _, err := c.EmptyCall(ctx, &pb.Empty{}); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("deadline: %v", err)
	}
	ctx, cancel = context.WithCancel(testContext(t))
	errs := make(chan error, 1)
	go func() { _, err := c.EmptyCall(ctx, &pb.Empty{}); errs <- err }()
	cancel()
	if err := <-errs; status.Code(err) != codes.Canceled {
		t.Errorf("cancel: %v", err)
	}
	if _, err := c.UnaryCall(testContext(t), &pb.SimpleRequest{}); err != nil {
		t.Errorf("after: %v", err)
	}
	if len(accepted) != 0 {
		t.Errorf("%d HTTP/2 connections were opened", len(accepted))
	}
}

func TestManyCallers(t *testing.T) {
	target, _, accepted := startServer(t, &echo{})
	c := dialTest(t, target)
	const callers, calls = 64, 200
	errs := make(chan error, callers)
	for range callers {
		go func() {
			var err error
			for i := 0; i < calls && err == nil; i++ {
				var r *pb.SimpleResponse
				r, err = c.UnaryCall(testContext(t), &pb.SimpleRequest{Payload: payload(i)})
				if err == nil && len(r.Payload.Body) != i {
					err = errors.New("wrong reply")
				}
			}
			errs <- err
		}()
	}
	for range callers {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if len(accepted) != 0 {
		t.Errorf("%d HTTP/2 connections were opened", len(accepted))
	}
}

// A few callers, now one and now another, so that the server's worker polls for
// the next call, is given one by the reader, and finds another's, in all orders.
func TestFewCallers(t *testing.T) {
	target, _, _ := startServer(t, &echo{})
	for callers := 1; callers <= 3; callers++ {
		c := dialTest(t, target)
		errs := make(chan error, callers)
		for i := range callers {
			go func() {
				var err error
				for n := 0; n < 4000 && err == nil; n++ {
					if n%(97+i) == 0 {
						time.Sleep(time.Duration(n%7) * 20 * time.Microsecond) // a gap between calls
					}
					_, err = c.UnaryCall(testContext(t), &pb.SimpleRequest{Payload: payload(n % 50)})
				}
				errs <- err
			}()
		}
		for range callers {
			if err := <-errs; err != nil {
				t.Fatalf("%d callers: %v", callers, err)
			}
		}
	}
}

func TestGracefulStopWaits(t *testing.T) {
	impl := &echo{block: make(chan struct{})}
	target, s, _ := startServer(t, impl)
	c := dialTest(t, target)
	errs := make(chan error, 1)
	go func() { _, err := c.EmptyCall(testContext(t), &pb.Empty{}); errs <- err }()
	d := s.opened()
	for { // until the call is in its handler
		d.mu.Lock()
		n := 0
		for conn := range d.conns {
			conn.mu.Lock()
			n += conn.streams.size
			conn.mu.Unlock()
		}
		d.mu.Unlock()
		if n > 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	stopped := make(chan struct{})
	go func() { s.GracefulStop(); close(stopped) }()
	select {
	case <-stopped:
		t.Error("GracefulStop returned with a call under way")
	case <-time.After(50 * time.Millisecond):
	}
	close(impl.block)
	if err := <-errs; err != nil {
		t.Errorf("the call under way: %v", err)
	}
	<-stopped
}
