package stile

import (
	"bytes"
	"context"
	"log/slog"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/stile-ipc/stile/transport/local"
	"github.com/stile-ipc/stile/transport/wire"
)

const testService = "/grpc.testing.TestService/"

// TestNonBlocking makes calls of all sizes, alone and many at once, beside streams:
// those declared run on the connection's goroutine.
func TestNonBlocking(t *testing.T) {
	var inline, others atomic.Int64
	onReader := func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		stack := make([]byte, 8<<10)
		if strings.Contains(string(stack[:runtime.Stack(stack, false)]), ".(*Conn).receive") {
			inline.Add(1)
		} else {
			others.Add(1)
		}
		return handler(ctx, req)
	}
	target, _, _ := startServer(t, &echo{}, NonBlocking(testService+"UnaryCall"), grpc.UnaryInterceptor(onReader))
	c := dialTest(t, target)
	for i := range 300 {
		size := i * i
		r, err := c.UnaryCall(testContext(t), &pb.SimpleRequest{Payload: payload(size)})
		if err != nil || len(r.GetPayload().GetBody()) != size {
			t.Fatalf("%d bytes: %d came back, %v", size, len(r.GetPayload().GetBody()), err)
		}
	}
	if inline.Load() == 0 && runtime.GOOS == "linux" {
		t.Error("no call ran on the connection's goroutine")
	}
	before := inline.Load()
	for range 10 {
		if _, err := c.EmptyCall(testContext(t), &pb.Empty{}); err != nil {
			t.Fatal(err)
		}
	}
	if inline.Load() != before {
		t.Error("a method that was not declared ran on the connection's goroutine")
	}
	var running sync.WaitGroup
	for n := range 32 {
		running.Go(func() {
			for i := range 200 {
				size := (n*211 + i*37) % 3000
				if i%40 == 0 {
					size = 100_000
				}
				r, err := c.UnaryCall(testContext(t), &pb.SimpleRequest{Payload: payload(size)})
				if err != nil || len(r.GetPayload().GetBody()) != size {
					t.Errorf("%d bytes: %d came back, %v", size, len(r.GetPayload().GetBody()), err)
					return
				}
			}
		})
	}
	running.Go(func() {
		s, err := c.FullDuplexCall(testContext(t))
		for i := 0; i < 300 && err == nil; i++ {
			if err = s.Send(&pb.StreamingOutputCallRequest{Payload: payload(100)}); err == nil {
				_, err = s.Recv()
			}
		}
		if err != nil {
			t.Error(err)
		}
	})
	running.Wait()
	t.Logf("%d calls on the connection's goroutine, %d on others", inline.Load(), others.Load())
}

// greedy answers with as much as it is asked for.
type greedy struct{ echo }

// noise cannot be compressed.
var noise = func() []byte {
	b := make([]byte, 600<<10)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}()

func (g *greedy) UnaryCall(_ context.Context, r *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	return &pb.SimpleResponse{Payload: &pb.Payload{Body: noise[:r.GetResponseSize()]}}, nil
}

func (g *greedy) EmptyCall(ctx context.Context, _ *pb.Empty) (*pb.Empty, error) {
	if err := grpc.SendHeader(ctx, metadata.Pairs("k", strings.Repeat("v", 100))); err != nil {
		return nil, err
	}
	return &pb.Empty{}, nil
}

// A reply that does not fit the window or the ring waits on the goroutine that was to
// receive: another one takes over, or the window would never open.
func TestNonBlockingWaits(t *testing.T) {
	target, _, _ := startServer(t, &greedy{}, NonBlocking(testService))
	c := dialTest(t, target)
	var running sync.WaitGroup
	for range 8 {
		running.Go(func() {
			for range 5 {
				// Compressed it is sent through the ring, and is more than a window.
				r, err := c.UnaryCall(testContext(t), &pb.SimpleRequest{ResponseSize: int32(len(noise))}, grpc.UseCompressor("gzip"))
				if err != nil || !bytes.Equal(r.GetPayload().GetBody(), noise) {
					t.Errorf("%d bytes came back, %v", len(r.GetPayload().GetBody()), err)
					return
				}
				if _, err := c.EmptyCall(testContext(t), &pb.Empty{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	running.Wait()
}

// A client that reads nothing holds up itself: others' calls go on, its own end once
// it reads, and the server stops.
func TestNonBlockingStuckClient(t *testing.T) {
	target, s, _ := startServer(t, &greedy{}, NonBlocking(testService))
	key, err := local.KeyOf(&net.UnixAddr{Net: "unix", Name: strings.TrimPrefix(target, "unix://")})
	if err != nil {
		t.Fatal(err)
	}
	conn, _, err := local.Dial(testContext(t), key, local.DialConfig{})
	if err != nil {
		t.Fatal(err)
	}
	stuck := &stuckReader{free: make(chan struct{})}
	conn.Start(stuck)
	request, err := proto.Marshal(&pb.SimpleRequest{ResponseSize: 5_000})
	if err != nil {
		t.Fatal(err)
	}
	const calls = 1000 // 5 MB of replies, more than a ring
	for id := uint64(1); id <= calls; id++ {
		frame := append(call(wire.Call{Method: unaryMethod}), framed(0, request)...)
		if err := conn.Write(nil, wire.Header{Type: wire.TypeStream, Flags: wire.FlagCall | wire.FlagHalfClose, Stream: id}, frame, nil); err != nil {
			t.Fatal(err)
		}
	}
	other := dialTest(t, target)
	for range 300 {
		if _, err := other.UnaryCall(testContext(t), &pb.SimpleRequest{ResponseSize: 100}); err != nil {
			t.Fatal(err)
		}
	}
	close(stuck.free)
	s.GracefulStop() // waits for all handlers
	_ = conn.Close()
}

// A breach of the promise delays calls, and loses none.
func TestNonBlockingBlocks(t *testing.T) {
	svc := &slowUnary{free: make(chan struct{})}
	target, s, _ := startServer(t, svc, NonBlocking(testService+"EmptyCall"))
	c := dialTest(t, target)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.EmptyCall(ctx, &pb.Empty{}); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("a handler that waits: %v", err)
	}
	time.AfterFunc(50*time.Millisecond, func() { close(svc.free) })
	if _, err := c.UnaryCall(testContext(t), &pb.SimpleRequest{}); err != nil {
		t.Errorf("the next call: %v", err)
	}
	s.GracefulStop()
}

type slowUnary struct {
	echo
	free chan struct{}
}

func (s *slowUnary) EmptyCall(context.Context, *pb.Empty) (*pb.Empty, error) {
	<-s.free
	return &pb.Empty{}, nil
}

// patient waits for the end of its call.
type patient struct {
	echo
	left chan struct{}
}

func (p *patient) EmptyCall(ctx context.Context, _ *pb.Empty) (*pb.Empty, error) {
	<-ctx.Done()
	close(p.left)
	return nil, ctx.Err()
}

// A handler that breaks the promise and waits for the end of its call is canceled when
// the connection ends, by whichever side.
func TestNonBlockingEnds(t *testing.T) {
	for name, end := range map[string]func(s *Server, cc *grpc.ClientConn){
		"Stop":          func(s *Server, _ *grpc.ClientConn) { s.Stop() },
		"client closes": func(_ *Server, cc *grpc.ClientConn) { _ = cc.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			svc := &patient{left: make(chan struct{})}
			target, s, _ := startServer(t, svc, NonBlocking(testService+"EmptyCall"))
			cc, err := NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				t.Fatal(err)
			}
			defer cc.Close()
			ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
			defer cancel()
			if _, err := pb.NewTestServiceClient(cc).EmptyCall(ctx, &pb.Empty{}); status.Code(err) != codes.DeadlineExceeded {
				t.Fatal(err)
			}
			ended := make(chan struct{})
			go func() {
				end(s, cc)
				close(ended)
			}()
			for what, ch := range map[string]chan struct{}{"the handler": svc.left, "the end": ended} {
				select {
				case <-ch:
				case <-time.After(20 * time.Second):
					t.Errorf("%s takes for ever", what)
				}
			}
		})
	}
}

// A name that means nothing is said in the log, once.
func TestNonBlockingUnknown(t *testing.T) {
	var log bytes.Buffer
	target, s, _ := startServer(t, &echo{}, Logger(slog.New(slog.NewTextHandler(&log, nil))),
		NonBlocking(testService+"UnaryCall", testService+"FullDuplexCall", "/nothing/"))
	var p peer.Peer
	if _, err := dialTest(t, target).UnaryCall(testContext(t), &pb.SimpleRequest{}, grpc.Peer(&p)); err != nil {
		t.Fatal(err)
	}
	s.Stop()
	if text := log.String(); strings.Count(text, "NonBlocking") != 1 || !strings.Contains(text, "FullDuplexCall") || !strings.Contains(text, "/nothing/") ||
		strings.Contains(text, "UnaryCall") {
		t.Errorf("%s", text)
	}
}
