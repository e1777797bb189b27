package stile

import (
	"context"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	"github.com/stile-ipc/stile/transport/local"
	"github.com/stile-ipc/stile/transport/wire"
)

func TestChunksGrow(t *testing.T) {
	var in inbox
	var w atomic.Int32
	in.init(1, nil, &w)
	put := func() {
		b := wire.GetBuf(6)
		copy(b.B, []byte{0, 0, 0, 0, 1, 7})
		if err := in.deliver(1, &delivery{buf: b, data: b.B}); err != nil {
			t.Fatal(err)
		}
	}
	put()
	for range 100000 {
		put()
		m, err := in.readMessage(context.Background(), 100, func(int) {})
		if err != nil {
			t.Fatal(err)
		}
		m.release()
	}
	if n := cap(in.chunks); n > 100 {
		t.Error("cap of chunks", n)
	}
}

func rawDial(t *testing.T, target string) (c interface {
	Write(<-chan struct{}, wire.Header, []byte, []byte) error
	Close() error
}) {
	key, err := local.KeyOf(&net.UnixAddr{Net: "unix", Name: strings.TrimPrefix(target, "unix://")})
	if err != nil {
		t.Fatal(err)
	}
	conn, _, err := local.Dial(context.Background(), key, local.DialConfig{})
	if err != nil {
		t.Fatal(err)
	}
	conn.Start(discard{})
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestHeaderLimit(t *testing.T) {
	got := make(chan metadata.MD, 1)
	_, target := rstart(t, false, &rsvc{}, grpc.MaxHeaderListSize(1000), grpc.UnaryInterceptor(func(ctx context.Context, r any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		got <- md
		return h(ctx, r)
	}))
	c := rawDial(t, target)
	call := wire.Call{Method: "/grpc.testing.TestService/EmptyCall", MD: wire.MD{"x": {strings.Repeat("a", 50000)}, "bad key": {"v\r\nInjected: 1"}}}
	b := wire.EndSection(wire.AppendCall(wire.BeginSection(nil), &call), 0)
	b = append(b, 0, 0, 0, 0, 0)
	if err := c.Write(nil, wire.Header{Type: wire.TypeStream, Flags: wire.FlagCall | wire.FlagHalfClose, Stream: 1}, b, nil); err != nil {
		t.Fatal(err)
	}
	select {
	case md := <-got:
		t.Errorf("handler saw %d bytes, limit 1000; bad key: %q", len(md["x"][0]), md["bad key"])
	case <-time.After(time.Second):
	}
}

type stuck struct{ ch chan struct{} }

func (s stuck) HandleFrame(_ wire.Header, b *wire.Buf) { b.Release(); <-s.ch }
func (s stuck) HandleClose(error)                      {}

func TestRefuseFlood(t *testing.T) {
	svc := &rsvc{hold: make(chan struct{})}
	s, target := rstart(t, false, svc)
	key, _ := local.KeyOf(&net.UnixAddr{Net: "unix", Name: strings.TrimPrefix(target, "unix://")})
	conn, _, err := local.Dial(context.Background(), key, local.DialConfig{})
	if err != nil {
		t.Fatal(err)
	}
	st := stuck{make(chan struct{})}
	conn.Start(st)
	mk := func(m string) []byte {
		return wire.EndSection(wire.AppendCall(wire.BeginSection(nil), &wire.Call{Method: m}), 0)
	}
	h := wire.Header{Type: wire.TypeStream, Flags: wire.FlagCall, Stream: 1}
	conn.Write(nil, h, mk("/grpc.testing.TestService/FullDuplexCall"), nil)
	time.Sleep(100 * time.Millisecond)
	conn.Write(nil, wire.Header{Type: wire.TypeGoAway}, nil, nil)
	before := runtime.NumGoroutine()
	stop := make(chan struct{})
	time.AfterFunc(2*time.Second, func() { close(stop) })
	for i := uint64(2); i < 200000; i++ {
		h.Stream = i
		if err := conn.Write(stop, h, mk("/x/y"), nil); err != nil {
			t.Log(i, err)
			break
		}
	}
	time.Sleep(200 * time.Millisecond)
	n := runtime.NumGoroutine() - before
	t.Log("goroutines", n)
	if n > maxRefusals+20 { // the rest is the connection's and the test's own
		t.Error("goroutines for refused calls:", n)
	}
	close(st.ch)
	close(svc.hold)
	conn.Close()
	s.Stop()
}

func TestResolverMoves(t *testing.T) {
	rboth(t, func(t *testing.T, plain bool) {
		if plain {
			t.Setenv("STILE", "off")
		} else {
			t.Setenv("STILE_DIR", t.TempDir())
		}
		var hits [2]atomic.Int32
		var addrs [2]string
		for i := range 2 {
			p := filepath.Join(t.TempDir(), "s")
			lis, _ := net.Listen("unix", p)
			s := NewServer(grpc.UnaryInterceptor(func(ctx context.Context, r any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
				hits[i].Add(1)
				return h(ctx, r)
			}))
			pb.RegisterTestServiceServer(s, &rsvc{})
			go s.Serve(lis)
			defer s.Stop()
			addrs[i] = "unix:" + p
		}
		time.Sleep(100 * time.Millisecond)
		r := manual.NewBuilderWithScheme("rev")
		r.InitialState(resolver.State{Addresses: []resolver.Address{{Addr: addrs[0]}}})
		cc, err := NewClient("rev:///x", grpc.WithResolvers(r), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		defer cc.Close()
		c := pb.NewTestServiceClient(cc)
		for range 3 {
			if _, err := c.EmptyCall(context.Background(), &pb.Empty{}); err != nil {
				t.Fatal(err)
			}
		}
		r.UpdateState(resolver.State{Addresses: []resolver.Address{{Addr: addrs[1]}}})
		time.Sleep(1500 * time.Millisecond)
		for range 3 {
			c.EmptyCall(context.Background(), &pb.Empty{})
		}
		t.Log(hits[0].Load(), hits[1].Load())
		if hits[1].Load() == 0 {
			t.Error("calls stay at the address that the resolver took away")
		}
	})
}

func TestInterceptorAfter(t *testing.T) {
	_, target := rstart(t, false, &rsvc{})
	ran := 0
	opts := append(DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		ran++
		return invoker(ctx, method, req, reply, cc, opts...)
	}))
	cc, err := grpc.NewClient(target, opts...)
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	if _, err := pb.NewTestServiceClient(cc).EmptyCall(context.Background(), &pb.Empty{}); err != nil {
		t.Fatal(err)
	}
	if ran == 0 {
		t.Error("an interceptor after DialOptions was skipped")
	}
}
