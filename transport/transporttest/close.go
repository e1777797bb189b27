package transporttest

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stile-ipc/stile/transport"
	"github.com/stile-ipc/stile/transport/wire"
)

func (s suite) testCloseDelivers(t *testing.T) {
	for _, frames := range []int{0, 1, 2, 100, 3000} {
		for _, size := range []int{0, 100, 20_000} {
			client, server := s.pair(t)
			in := newSink(t)
			var next uint64
			in.onFrame = func(h wire.Header, b *wire.Buf) {
				if h.Stream != next || len(b.B) != size {
					t.Errorf("frame %d of %d bytes, want %d of %d", h.Stream, len(b.B), next, size)
				}
				next++
				b.Release()
			}
			out := newSink(t)
			client.Start(out)
			server.Start(in)
			body := make([]byte, size)
			for i := range frames {
				if err := client.Write(nil, streamHeader(uint64(i)), nil, body); err != nil {
					t.Fatal(err)
				}
			}
			closeConn(t, client)
			out.wantClosed(t, transport.ErrClosed)
			in.wantClosed(t, transport.ErrPeerGone)
			if next != uint64(frames) {
				t.Errorf("%d frames of %d bytes arrived before the end, want %d", next, size, frames)
			}
		}
	}
}

// testCloseDeliversToSlowReader closes while the peer has read next to nothing.
func (s suite) testCloseDeliversToSlowReader(t *testing.T) {
	const frames = 3000
	client, server := s.pair(t)
	in, out := newSink(t), newSink(t)
	first, gate := make(chan struct{}), make(chan struct{})
	var next uint64
	in.onFrame = func(h wire.Header, b *wire.Buf) {
		if next == 0 {
			close(first)
			<-gate
		}
		if h.Stream != next {
			t.Errorf("frame %d, want %d", h.Stream, next)
		}
		next++
		b.Release()
	}
	client.Start(out)
	server.Start(in)
	written := make(chan struct{})
	closed := background(func() {
		for i := range uint64(frames) {
			if i == 100 {
				close(written)
			}
			if err := client.Write(nil, streamHeader(i), nil, make([]byte, 500)); err != nil {
				t.Errorf("write: %v", err)
			}
		}
		client.Close()
	})
	receive(t, first, "first frame")
	receive(t, written, "Write")
	close(gate)
	receive(t, closed, "Close")
	out.wantClosed(t, transport.ErrClosed)
	in.wantClosed(t, transport.ErrPeerGone)
	if next != frames {
		t.Errorf("%d frames arrived before the end, want %d", next, frames)
	}
}

// testCloseDespiteStuckPeer closes a full connection whose peer reads nothing.
func (s suite) testCloseDespiteStuckPeer(t *testing.T) {
	client, server := s.pair(t)
	in, out := newSink(t), newSink(t)
	in.gate = make(chan struct{})
	client.Start(out)
	server.Start(in)
	pressUntilCancel(t, client, 0)
	closeConn(t, client)
	out.wantClosed(t, transport.ErrClosed)
	close(in.gate)
	in.wantClosed(t, transport.ErrPeerGone)
}

func (s suite) testCloseOnceAndLast(t *testing.T) {
	for range 20 {
		client, server := s.started(t)
		client.mustWrite(t, streamHeader(1), []byte("x"))
		server.mustWrite(t, streamHeader(1), []byte("y"))
		closeConn(t, client)
		select {
		case <-client.closed:
		default:
			t.Error("Close returned before HandleClose had run")
		}
		server.wantClosed(t, transport.ErrPeerGone)
		wantCause(t, "write after Close", client.Write(nil, streamHeader(2), nil, nil), transport.ErrClosed)
		wantCause(t, "write after the peer's Close", server.Write(nil, streamHeader(2), nil, nil), transport.ErrPeerGone)
		client.Fail(errors.New("too late"))
		server.Fail(errors.New("too late"))
		closeConn(t, server)
		closeConn(t, client)
		wantCause(t, "write after Close and Fail", client.Write(nil, streamHeader(2), nil, nil), transport.ErrClosed)
		wantCause(t, "write after all", server.Write(nil, streamHeader(2), nil, nil), transport.ErrPeerGone)
		// The sinks fail the test if another call comes.
	}
}

func (s suite) testCloseBothAtOnce(t *testing.T) {
	for range 50 {
		client, server := s.started(t)
		a := background(func() { client.Close() })
		b := background(func() { server.Close() })
		receive(t, a, "Close")
		receive(t, b, "Close")
		for _, e := range []*end{client, server} {
			receive(t, e.closed, "HandleClose")
			if !errors.Is(e.err, transport.ErrClosed) && !errors.Is(e.err, transport.ErrPeerGone) {
				t.Errorf("HandleClose: %v", e.err)
			}
		}
	}
}

func (s suite) testCloseConcurrent(t *testing.T) {
	for range 20 {
		client, server := s.started(t)
		client.mustWrite(t, streamHeader(1), []byte("last words"))
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if err := client.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
				select {
				case <-client.closed:
				default:
					t.Error("Close returned before HandleClose had run")
				}
			})
		}
		receive(t, background(wg.Wait), "Close")
		server.next(t).release()
		server.wantClosed(t, transport.ErrPeerGone)
	}
}

// testCloseDuringWrites closes under fire: what was accepted before is a prefix of
// what each writer wrote, and all of it arrives.
func (s suite) testCloseDuringWrites(t *testing.T) {
	const writers = 8
	for range 10 {
		client, server := s.pair(t)
		in, out := newSink(t), newSink(t)
		var arrived [writers]uint64
		in.onFrame = func(h wire.Header, b *wire.Buf) {
			w := h.Stream % writers
			if got := h.Stream / writers; got != arrived[w] {
				t.Errorf("writer %d: frame %d, want %d", w, got, arrived[w])
			}
			arrived[w]++
			b.Release()
		}
		client.Start(out)
		server.Start(in)
		var accepted [writers]uint64
		var written atomic.Int64
		half := make(chan struct{})
		var wg sync.WaitGroup
		for w := range uint64(writers) {
			wg.Go(func() {
				for {
					err := client.Write(nil, streamHeader(accepted[w]*writers+w), nil, make([]byte, 300))
					if err != nil {
						wantCause(t, "write during Close", err, transport.ErrClosed)
						return
					}
					accepted[w]++
					if written.Add(1) == 1000 {
						close(half)
					}
				}
			})
		}
		receive(t, half, "writers")
		closeConn(t, client)
		receive(t, background(wg.Wait), "writers")
		in.wantClosed(t, transport.ErrPeerGone)
		if arrived != accepted {
			t.Errorf("arrived %v, accepted %v", arrived, accepted)
		}
	}
}

func (s suite) testCloseBeforeStart(t *testing.T) {
	client, server := s.pair(t)
	in := newSink(t)
	server.Start(in)
	closeConn(t, client)
	closeConn(t, client)
	in.wantClosed(t, transport.ErrPeerGone)
	wantCause(t, "write after Close", client.Write(nil, streamHeader(1), nil, nil), transport.ErrClosed)

	client, server = s.pair(t)
	closeConn(t, server)
	closeConn(t, client)
}

// testPeerClosedBeforeStart starts an end whose peer has gone, and one whose peer
// has written and is going.
func (s suite) testPeerClosedBeforeStart(t *testing.T) {
	for _, frames := range []uint64{0, 10} {
		client, server := s.pair(t)
		client.Start(newSink(t))
		for i := range frames {
			(&end{Conn: client}).mustWrite(t, streamHeader(i), []byte("post"))
		}
		closed := background(func() { client.Close() })
		if frames == 0 {
			receive(t, closed, "Close")
		}
		in := newSink(t)
		server.Start(in)
		in.wantClosed(t, transport.ErrPeerGone)
		receive(t, closed, "Close")
		if n := uint64(in.count.Load()); n != frames {
			t.Errorf("%d frames arrived, want %d", n, frames)
		}
	}
}

func (s suite) testFailFirstCause(t *testing.T) {
	client, server := s.started(t)
	first := errors.New("first")
	client.Fail(fmt.Errorf("wrapped: %w", first))
	client.Fail(errors.New("second"))
	wantCause(t, "write after Fail", client.Write(nil, streamHeader(1), nil, nil), first)
	client.wantClosed(t, first)
	closeConn(t, client)
	wantCause(t, "write after Fail and Close", client.Write(nil, streamHeader(1), nil, nil), first)
	server.wantClosed(t, transport.ErrPeerGone)
}

func (s suite) testFailConcurrent(t *testing.T) {
	for range 20 {
		client, server := s.started(t)
		causes := make([]error, 8)
		var wg sync.WaitGroup
		for i := range causes {
			causes[i] = fmt.Errorf("cause %d", i)
			wg.Go(func() { client.Fail(causes[i]) })
		}
		receive(t, background(wg.Wait), "Fail")
		receive(t, client.closed, "HandleClose")
		err := client.Write(nil, streamHeader(1), nil, nil)
		known := false
		for _, c := range causes {
			known = known || errors.Is(err, c)
		}
		if !known || !errors.Is(client.err, err) {
			t.Errorf("Write says %v, HandleClose said %v", err, client.err)
		}
		server.wantClosed(t, transport.ErrPeerGone)
	}
}

// testFailFromHandler fails from HandleFrame while the peer goes on writing, and
// from HandleClose.
func (s suite) testFailFromHandler(t *testing.T) {
	bad := fmt.Errorf("%w: bad frame", transport.ErrProtocol)
	client, server := s.pair(t)
	in := newSink(t)
	in.onFrame = func(h wire.Header, b *wire.Buf) {
		b.Release()
		if h.Stream == 2 {
			server.Fail(bad)
		}
		if h.Stream > 2 {
			t.Errorf("frame %d is delivered after Fail", h.Stream)
		}
	}
	out := newSink(t)
	client.Start(out)
	server.Start(in)
	for i := uint64(0); ; i++ {
		if err := client.Write(nil, streamHeader(i), nil, []byte("hello")); err != nil {
			wantCause(t, "write to a failed peer", err, transport.ErrPeerGone)
			break
		}
	}
	in.wantClosed(t, bad)
	out.wantClosed(t, transport.ErrPeerGone)
	closeConn(t, server)

	a, b := s.pair(t)
	fin := failInClose{newSink(t), a}
	a.Start(fin)
	b.Start(newSink(t))
	closeConn(t, b)
	fin.wantClosed(t, transport.ErrPeerGone)
	closeConn(t, a)
}

type failInClose struct {
	*sink
	c transport.Conn
}

func (f failInClose) HandleClose(err error) {
	f.c.Fail(errors.New("as it is over anyway"))
	f.sink.HandleClose(err)
}

// testFailUnderLoad fails an end while both sides write and poll.
func (s suite) testFailUnderLoad(t *testing.T) {
	boom := errors.New("boom")
	for range 10 {
		client, server := s.pair(t)
		in, out := newSink(t), newSink(t)
		moving := make(chan struct{})
		var frames int
		drop := func(_ wire.Header, b *wire.Buf) { b.Release() }
		out.onFrame = drop
		in.onFrame = func(h wire.Header, b *wire.Buf) {
			drop(h, b)
			if frames++; frames == 500 {
				close(moving)
			}
		}
		client.Start(out)
		server.Start(in)
		var wg sync.WaitGroup
		for i, c := range []transport.Conn{client, server, client, server} {
			want := []error{boom, transport.ErrPeerGone}[i%2]
			wg.Go(func() {
				var never atomic.Bool
				for {
					if err := c.Write(nil, streamHeader(7), nil, make([]byte, 700)); err != nil {
						wantCause(t, "write", err, want)
						return
					}
					c.Poll(&never)
				}
			})
		}
		receive(t, moving, "traffic")
		client.Fail(boom)
		receive(t, background(wg.Wait), "writers")
		out.wantClosed(t, boom)
		in.wantClosed(t, transport.ErrPeerGone)
	}
}
