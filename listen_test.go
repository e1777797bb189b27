package stile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/nettest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	pb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/stile-ipc/stile/transport"
	"github.com/stile-ipc/stile/transport/local"
	"github.com/stile-ipc/stile/transport/wire"
)

// listenTest listens at a socket of its own, in a folder of doors of its own.
func listenTest(t *testing.T, addr string) net.Listener {
	t.Helper()
	t.Setenv("STILE_DIR", t.TempDir())
	if addr == "" {
		addr = filepath.Join(t.TempDir(), "s")
	}
	lis, err := Listen(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lis.Close() })
	return lis
}

// pipeTest is both ends of a connection through a door, over the named transport.
func pipeTest(t *testing.T, lis net.Listener, carrier string) (client, server net.Conn) {
	t.Helper()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, err := lis.Accept()
		if err != nil {
			t.Errorf("accept: %v", err)
		}
		accepted <- c
	}()
	client, err := new(Dialer).DialContext(testContext(t), lis.Addr().Network(), lis.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server = <-accepted
	for _, c := range []net.Conn{client, server} {
		b, ok := c.(*byteConn)
		if !ok || b.conn.Info().Transport != carrier {
			t.Fatalf("a connection is %T, want one over %s", c, carrier)
		}
	}
	return client, server
}

// Both carriers behave as the standard library asks of a net.Conn.
func TestByteConn(t *testing.T) {
	for _, carrier := range []string{"shm", "unix"} {
		t.Run(carrier, func(t *testing.T) {
			if carrier == "unix" {
				t.Setenv("STILE_TRANSPORT", "unix")
			}
			lis := listenTest(t, "")
			nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
				c1, c2 = pipeTest(t, lis, carrier)
				return c1, c2, func() { _ = c1.Close(); _ = c2.Close() }, nil
			})
		})
	}
}

// Every byte arrives, whatever the sizes of writes and reads; a half-close ends one
// direction alone.
func TestByteConnIntegrity(t *testing.T) {
	lis := listenTest(t, "")
	client, server := pipeTest(t, lis, "shm")
	defer client.Close()
	defer server.Close()
	const total = 8 << 20
	sent := make([]byte, total)
	for i := range sent {
		sent[i] = byte(i * 7 >> 3)
	}
	go func() {
		rnd := rand.New(rand.NewPCG(1, 1))
		for at := 0; at < total; {
			n := min(total-at, 1+rnd.IntN(1<<rnd.IntN(21)))
			if _, err := client.Write(sent[at : at+n]); err != nil {
				t.Errorf("write: %v", err)
				break
			}
			at += n
		}
		if err := client.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Errorf("CloseWrite: %v", err)
		}
		if _, err := client.Write([]byte{1}); err == nil {
			t.Error("a write after CloseWrite succeeded")
		}
	}()
	got, err := io.ReadAll(server)
	if err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("%d of %d bytes, equal: %v, %v", len(got), total, bytes.Equal(got, sent), err)
	}
	if _, err := server.Write([]byte("still open")); err != nil {
		t.Fatalf("the other direction: %v", err)
	}
	server.Close()
	if back, err := io.ReadAll(client); err != nil || string(back) != "still open" {
		t.Errorf("%q, %v", back, err)
	}
}

// net/http runs over it unchanged, and clients without Stile reach the same server.
func TestListenHTTP(t *testing.T) {
	for _, addr := range []string{"", "127.0.0.1:0"} {
		t.Run(addr, func(t *testing.T) {
			lis := listenTest(t, addr)
			srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				fmt.Fprintf(w, "%T %d", r.Context().Value(http.LocalAddrContextKey), len(body))
			})}
			done := make(chan error, 1)
			go func() { done <- srv.Serve(lis) }()
			at := lis.Addr()
			for name, dial := range map[string]func(context.Context) (net.Conn, error){
				"through the door": func(ctx context.Context) (net.Conn, error) {
					c, err := new(Dialer).DialContext(ctx, at.Network(), at.String())
					if _, ok := c.(*byteConn); err == nil && !ok {
						t.Errorf("a connection is %T", c)
					}
					return c, err
				},
				"without": func(ctx context.Context) (net.Conn, error) {
					return new(net.Dialer).DialContext(ctx, at.Network(), at.String())
				},
			} {
				tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }}
				for _, size := range []int{0, 100, 300_000} {
					resp, err := (&http.Client{Transport: tr}).Post("http://service/", "text/plain", bytes.NewReader(make([]byte, size)))
					if err != nil {
						t.Fatalf("%s: %v", name, err)
					}
					body, _ := io.ReadAll(resp.Body)
					resp.Body.Close()
					if want := fmt.Sprintf("%T %d", at, size); string(body) != want {
						t.Errorf("%s: %q, want %q", name, body, want)
					}
				}
				tr.CloseIdleConnections()
			}
			srv.Close()
			if err := <-done; !errors.Is(err, http.ErrServerClosed) {
				t.Errorf("Serve: %v", err)
			}
		})
	}
}

// A concrete *grpc.Server and ClientConn run over it with two words of options.
func TestListenGRPC(t *testing.T) {
	lis := listenTest(t, "")
	srv := grpc.NewServer()
	pb.RegisterTestServiceServer(srv, &echo{})
	done := make(chan error, 1)
	go func() { done <- srv.Serve(lis) }()
	cc, err := grpc.NewClient("passthrough:///"+lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			return new(Dialer).DialContext(ctx, "unix", addr)
		}))
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{0, 1000, 1 << 20} {
		r, err := pb.NewTestServiceClient(cc).UnaryCall(testContext(t), &pb.SimpleRequest{Payload: payload(size)})
		if err != nil || len(r.GetPayload().GetBody()) != size {
			t.Errorf("%d bytes: %d, %v", size, len(r.GetPayload().GetBody()), err)
		}
	}
	cc.Close()
	srv.Stop()
	if err := <-done; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

// Where nothing is published, or Stile is off, the dialer is net.Dialer; a door for
// bytes is not taken for one for calls.
func TestDialerFallsBack(t *testing.T) {
	t.Setenv("STILE_DIR", t.TempDir())
	plain, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	c, err := new(Dialer).Dial("unix", plain.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := c.(*net.UnixConn); !ok {
		t.Errorf("a connection without a door is %T", c)
	}
	c.Close()
	if _, err := new(Dialer).Dial("unix", filepath.Join(t.TempDir(), "nobody")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nobody listens: %v", err)
	}
	lis := listenTest(t, "")
	if d, err := Diagnose(testContext(t), "unix://"+lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil || d.Way == "local" {
		t.Errorf("a door for bytes: %+v, %v", d, err)
	}
	t.Setenv("STILE", "off")
	off, err := Listen(filepath.Join(t.TempDir(), "off"))
	if err != nil {
		t.Fatal(err)
	}
	defer off.Close()
	if _, ok := off.(*net.UnixListener); !ok {
		t.Errorf("a listener with Stile off is %T", off)
	}
}

// A peer that sends what is no byte stream is cut off.
func TestByteConnLies(t *testing.T) {
	for name, lie := range map[string]struct {
		h    wire.Header
		body []byte
	}{
		"another stream":  {wire.Header{Type: wire.TypeStream, Stream: 2}, nil},
		"a call":          {wire.Header{Type: wire.TypeStream, Flags: wire.FlagCall, Stream: byteStream}, []byte("call")},
		"a goodbye":       {wire.Header{Type: wire.TypeGoAway, Stream: byteStream}, nil},
		"a short window":  {wire.Header{Type: wire.TypeWindow, Stream: byteStream}, []byte{1}},
		"a window of 4 G": {wire.Header{Type: wire.TypeWindow, Stream: byteStream}, []byte{255, 255, 255, 255}},
	} {
		t.Run(name, func(t *testing.T) {
			lis := listenTest(t, "")
			accepted := make(chan net.Conn, 1)
			go func() {
				c, _ := lis.Accept()
				accepted <- c
			}()
			key, err := local.KeyOf(lis.Addr())
			if err != nil {
				t.Fatal(err)
			}
			conn, _, err := local.Dial(testContext(t), bytesPrefix+key, local.DialConfig{})
			if err != nil {
				t.Fatal(err)
			}
			conn.Start(discard{})
			defer conn.Close()
			server := <-accepted
			defer server.Close()
			_ = conn.Write(nil, lie.h, nil, lie.body)
			_ = server.SetReadDeadline(time.Now().Add(20 * time.Second))
			if _, err := server.Read(make([]byte, 1)); !errors.Is(err, transport.ErrProtocol) {
				t.Errorf("%v, want a protocol violation", err)
			}
		})
	}
}

// A write that waits ends with net.ErrClosed when its own side closes, with EPIPE when
// the other does.
func TestByteConnBlockedWrite(t *testing.T) {
	for _, own := range []bool{true, false} {
		lis := listenTest(t, "")
		client, server := pipeTest(t, lis, "shm")
		result := make(chan error, 1)
		blocked := make(chan struct{})
		go func() {
			_ = client.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
			var err error
			for err == nil {
				_, err = client.Write(make([]byte, 100_000))
			}
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("a write that nobody reads: %v", err)
			}
			_ = client.SetWriteDeadline(time.Time{})
			close(blocked)
			_, err = client.Write(make([]byte, 100_000))
			result <- err
		}()
		<-blocked
		end, want := server, error(syscall.EPIPE)
		if own {
			end, want = client, net.ErrClosed
		}
		_ = end.Close()
		if err := <-result; !errors.Is(err, want) {
			t.Errorf("own side closes: %v: %v, want %v", own, err, want)
		}
		client.Close()
		server.Close()
	}
}

// onceFailing is a listener whose first Accept fails for want of descriptors.
type onceFailing struct {
	net.Listener
	failed atomic.Bool
}

func (l *onceFailing) Accept() (net.Conn, error) {
	if !l.failed.Swap(true) {
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	return l.Listener.Accept()
}

// A listener goes on after an error that is temporary.
func TestListenGoesOn(t *testing.T) {
	l, ok := listenTest(t, "127.0.0.1:0").(*byteListener)
	if !ok {
		t.Fatal("the listener has no door")
	}
	failing := &byteListener{
		Listener: &onceFailing{Listener: l.Listener}, door: l.door,
		accepted: make(chan net.Conn), failed: make(chan error), done: make(chan struct{}),
	}
	// l's own loop may take the first connections: two are made for each Accept.
	failing.loops.Go(failing.acceptOutside)
	if _, err := failing.Accept(); !errors.Is(err, syscall.EMFILE) {
		t.Fatalf("first: %v", err)
	}
	accepted := make(chan error, 1)
	go func() {
		c, err := failing.Accept()
		if err == nil {
			_ = c.Close()
		}
		accepted <- err
	}()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
	for done := false; !done; {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-accepted:
			if err != nil {
				t.Errorf("second: %v", err)
			}
			done = true
		case <-time.After(10 * time.Millisecond):
		}
		_ = c.Close()
	}
	close(failing.done)
	_ = l.Close()
	failing.loops.Wait()
}

// Reading fails once the connection is closed, also where the peer has ended the
// stream before.
func TestByteConnReadAfterClose(t *testing.T) {
	client, server := pipeTest(t, listenTest(t, ""), "shm")
	if err := server.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Read(make([]byte, 1)); err != io.EOF {
		t.Fatal(err)
	}
	_ = client.Close()
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read after close: %v", err)
	}
	_ = server.Close()
}

// stuckReader takes one frame and no more until it may.
type stuckReader struct{ free chan struct{} }

func (s *stuckReader) HandleFrame(_ wire.Header, b *wire.Buf) {
	b.Release()
	<-s.free
}

func (*stuckReader) HandleClose(error) {}

// A read returns what has come although the peer, which reads nothing, cannot be told
// that it may send more.
func TestByteConnReadFromStuckPeer(t *testing.T) {
	t.Setenv("STILE_DIR", t.TempDir())
	path := filepath.Join(t.TempDir(), "s")
	lis, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	keys, err := local.KeysForListener(lis)
	if err != nil {
		t.Fatal(err)
	}
	door, err := local.Listen(local.ListenConfig{Keys: byteKeys(keys)})
	if err != nil {
		t.Fatal(err)
	}
	defer door.Close()
	peer := &stuckReader{free: make(chan struct{})}
	const size = 50_000
	sent := make(chan error, 1)
	go func() {
		c, err := door.Accept()
		if err != nil {
			sent <- err
			return
		}
		c.Start(peer)
		for range 4 {
			err = errors.Join(err, c.Write(nil, wire.Header{Type: wire.TypeStream, Stream: 1}, make([]byte, size), nil))
		}
		sent <- err
	}()
	c, err := new(Dialer).Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	for n := 0; n < 100_000; n++ { // the ring fills before the window is used up
		_ = c.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		if _, err := c.Write([]byte{1}); err != nil {
			break
		}
	}
	read := make(chan int, 1)
	go func() {
		n, _ := io.ReadFull(c, make([]byte, 4*size))
		read <- n
	}()
	select {
	case n := <-read:
		if n != 4*size {
			t.Errorf("read %d bytes, want %d", n, 4*size)
		}
	case <-time.After(20 * time.Second):
		t.Error("the read waits for the peer")
	}
	close(peer.free)
}
