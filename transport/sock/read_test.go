package sock

import (
	"bytes"
	"errors"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stile-ipc/stile/transport"
	"github.com/stile-ipc/stile/transport/wire"
)

func encode(h wire.Header, payload []byte) []byte {
	b := make([]byte, wire.HeaderSize)
	h.Len = uint32(len(payload))
	wire.PutHeader(b, h)
	return append(b, payload...)
}

// TestHostileStream feeds a connection bytes that no peer in order sends.
func TestHostileStream(t *testing.T) {
	good := encode(streamFrame, []byte("payload"))
	bad := bytes.Clone(good)
	bad[4] = 0xff
	long := bytes.Clone(good)
	long[2] = 0xff
	for _, c := range []struct {
		name   string
		in     []byte
		hangUp bool
		frames int64
		want   error
		text   string
	}{
		{"HangUp", nil, true, 0, transport.ErrPeerGone, ""},
		{"HangUpAfterFrames", append(bytes.Clone(good), good...), true, 2, transport.ErrPeerGone, ""},
		{"HangUpInHeader", append(bytes.Clone(good), good[:5]...), true, 1, transport.ErrPeerGone, "5 bytes"},
		{"HangUpAfterHeader", good[:wire.HeaderSize], true, 0, transport.ErrPeerGone, "16 bytes"},
		{"HangUpInPayload", good[:len(good)-1], true, 0, transport.ErrPeerGone, "22 bytes"},
		{"BadType", append(bytes.Clone(good), bad...), false, 1, transport.ErrProtocol, "type 255"},
		{"TooLong", long, false, 0, transport.ErrProtocol, "at most 65520"},
		{"AnotherProtocol", []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), false, 0, transport.ErrProtocol, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			nc, peer := socketPair(t)
			k, h := New(nc, transport.Info{}), newCounter()
			k.Start(h)
			defer k.Close()
			if _, err := peer.Write(c.in); err != nil {
				t.Fatal(err)
			}
			if c.hangUp {
				peer.Close()
			}
			err := <-h.closed
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("HandleClose: %v, want %v and %q", err, c.want, c.text)
			}
			if (c.want == transport.ErrProtocol) != errors.Is(err, wire.ErrMalformed) {
				t.Errorf("HandleClose: %v: wire.ErrMalformed is wrong", err)
			}
			if h.frames.Load() != c.frames {
				t.Errorf("%d frames delivered, want %d", h.frames.Load(), c.frames)
			}
			if err := k.Write(nil, streamFrame, nil, nil); !errors.Is(err, c.want) {
				t.Errorf("write: %v, want %v", err, c.want)
			}
			if !c.hangUp {
				// The peer is hung up on.
				peer.SetReadDeadline(time.Now().Add(time.Minute))
				if _, err := peer.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("the peer reads: %v", err)
				}
			}
		})
	}
}

// TestFragments sends frames byte by byte and in odd pieces.
func TestFragments(t *testing.T) {
	for _, piece := range []int{1, 7, 17, 1000} {
		nc, peer := net.Pipe()
		k, h := New(nc, transport.Info{}), newCounter()
		k.Start(h)
		var in []byte
		for n := range 40 {
			in = append(in, encode(streamFrame, make([]byte, n*3))...)
		}
		for len(in) > 0 {
			n, err := peer.Write(in[:min(piece, len(in))])
			if err != nil {
				t.Fatal(err)
			}
			in = in[n:]
		}
		peer.Close()
		<-h.closed
		if h.frames.Load() != 40 {
			t.Errorf("in pieces of %d: %d frames, want 40", piece, h.frames.Load())
		}
		k.Close()
	}
}

// FuzzReceive feeds a stream of arbitrary bytes: the reader must end, with a cause.
func FuzzReceive(f *testing.F) {
	good := encode(streamFrame, []byte("payload"))
	f.Add(good)
	f.Add(append(bytes.Clone(good), good[:9]...))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add(bytes.Repeat([]byte{0xff}, 40))
	f.Fuzz(func(t *testing.T, b []byte) {
		nc := &streamConn{Reader: bytes.NewReader(b)}
		k, h := New(nc, transport.Info{}), newCounter()
		k.Start(h)
		err := <-h.closed
		if !errors.Is(err, transport.ErrPeerGone) && !errors.Is(err, transport.ErrProtocol) {
			t.Fatalf("HandleClose: %v", err)
		}
		if max := int64(len(b) / wire.HeaderSize); h.frames.Load() > max {
			t.Fatalf("%d frames out of %d bytes", h.frames.Load(), len(b))
		}
		k.Close()
	})
}

// streamConn reads from memory and swallows what is written.
type streamConn struct {
	*bytes.Reader
	net.Conn
}

func (s *streamConn) Read(b []byte) (int, error)  { return s.Reader.Read(b) }
func (s *streamConn) Write(b []byte) (int, error) { return len(b), nil }
func (s *streamConn) Close() error                { return nil }
func (s *streamConn) LocalAddr() net.Addr         { return &net.UnixAddr{} }
func (s *streamConn) RemoteAddr() net.Addr        { return &net.UnixAddr{} }

func TestPeerCred(t *testing.T) {
	a, b := socketPair(t)
	for _, c := range []*net.UnixConn{a, b} {
		cred, err := PeerCred(c)
		if err != nil {
			t.Fatal(err)
		}
		want := transport.Cred{PID: os.Getpid(), UID: os.Geteuid(), GID: os.Getegid(), Known: true}
		if runtime.GOOS != "linux" {
			want = transport.Cred{}
		}
		if cred != want {
			t.Errorf("got %+v, want %+v", cred, want)
		}
	}
	a.Close()
	if _, err := PeerCred(a); err == nil && runtime.GOOS == "linux" {
		t.Error("a closed socket has a peer")
	}
}

func TestInfoAddresses(t *testing.T) {
	a, _ := socketPair(t)
	k := New(a, transport.Info{Transport: "unix", Peer: transport.Cred{PID: 7, Known: true}})
	defer k.Close()
	want := transport.Info{
		Transport: "unix", Peer: transport.Cred{PID: 7, Known: true},
		LocalAddr: a.LocalAddr(), RemoteAddr: a.RemoteAddr(),
	}
	if k.Info() != want {
		t.Errorf("got %+v, want %+v", k.Info(), want)
	}
}
