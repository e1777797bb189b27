package transporttest

import (
	"hash/crc32"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stile-ipc/stile/transport"
	"github.com/stile-ipc/stile/transport/wire"
)

// testPollIdle polls where nothing arrives: Poll gives up by itself.
func (s suite) testPollIdle(t *testing.T) {
	client, server := s.started(t)
	for _, e := range []*end{client, server} {
		var never atomic.Bool
		receive(t, background(func() {
			for range 20 {
				e.Poll(&never)
			}
		}), "Poll")
	}
	client.mustWrite(t, streamHeader(1), nil)
	server.next(t).release() // an idle Poll leaves nobody deaf
}

func (s suite) testPollEnded(t *testing.T) {
	client, server := s.started(t)
	closeConn(t, client)
	server.wantClosed(t, transport.ErrPeerGone)
	var never atomic.Bool
	receive(t, background(func() {
		client.Poll(&never)
		server.Poll(&never)
	}), "Poll")
	closeConn(t, server)
	receive(t, background(func() { server.Poll(&never) }), "Poll")
}

// testPollDone polls with done set before, and set by what arrives, while frames
// come without end.
func (s suite) testPollDone(t *testing.T) {
	client, server := s.pair(t)
	in := newSink(t)
	var done, stop atomic.Bool
	in.onFrame = func(h wire.Header, b *wire.Buf) {
		b.Release()
		done.Store(true)
		runtime.Gosched() // gives a second receiver the time to show itself
	}
	client.Start(newSink(t))
	server.Start(in)
	writer := background(func() {
		for !stop.Load() {
			if err := client.Write(nil, streamHeader(1), nil, make([]byte, 100)); err != nil {
				t.Errorf("write: %v", err)
				return
			}
		}
	})
	var pollers sync.WaitGroup
	for range 3 {
		pollers.Go(func() {
			for range 300 {
				server.Poll(&done)
				done.Store(false)
			}
			set := new(atomic.Bool)
			set.Store(true)
			server.Poll(set)
		})
	}
	receive(t, background(pollers.Wait), "Poll while frames arrive")
	stop.Store(true)
	receive(t, writer, "writer")
}

// caller makes calls on a connection as the layer above does: it writes, polls,
// then sleeps until the reply's handler wakes it.
type caller struct {
	done  atomic.Bool
	reply chan received // capacity 1
}

// callers is the client side of an echo, keyed by the low half of Stream.
type callers struct {
	t   *testing.T
	c   transport.Conn
	all []*caller
}

func newCallers(t *testing.T, c transport.Conn, n int) *callers {
	k := &callers{t: t, c: c}
	for range n {
		k.all = append(k.all, &caller{reply: make(chan received, 1)})
	}
	return k
}

func (k *callers) onFrame(h wire.Header, b *wire.Buf) {
	id := int(uint32(h.Stream))
	if id >= len(k.all) {
		k.t.Errorf("reply to unknown caller %d", id)
		b.Release()
		return
	}
	k.all[id].done.Store(true)
	select {
	case k.all[id].reply <- received{h, b}:
	default:
		k.t.Errorf("caller %d: second reply to one call", id)
		b.Release()
	}
}

// call makes round trip number seq and reports whether the reply was right.
func (k *callers) call(id, seq int, body []byte, poll bool, timer *time.Timer) bool {
	me := k.all[id]
	me.done.Store(false)
	h := wire.Header{Type: wire.TypeStream, Flags: wire.FlagCall, Stream: uint64(seq)<<32 | uint64(id)}
	if err := k.c.Write(nil, h, nil, body); err != nil {
		k.t.Errorf("caller %d: write %d: %v", id, seq, err)
		return false
	}
	if poll {
		k.c.Poll(&me.done)
	}
	timer.Reset(patience)
	select {
	case r := <-me.reply:
		defer r.release()
		if r.h.Stream != h.Stream || crc32.ChecksumIEEE(r.b.B) != crc32.ChecksumIEEE(body) {
			k.t.Errorf("caller %d: call %d of %d bytes got reply %+v", id, seq, len(body), r.h)
			return false
		}
		return true
	case <-timer.C:
		k.t.Errorf("caller %d: reply %d is lost", id, seq)
		return false
	}
}

// run makes calls round trips from every caller, resting before each as long as
// rest says, with payloads up to maxSize.
func (k *callers) run(calls, maxSize int, rest func(rnd *rand.Rand) time.Duration) {
	var wg sync.WaitGroup
	for id := range k.all {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(id), 6))
			timer := time.NewTimer(patience)
			defer timer.Stop()
			body := make([]byte, maxSize)
			fill(rnd, body)
			for seq := range calls {
				if rest != nil {
					time.Sleep(rest(rnd))
				}
				poll := rnd.IntN(8) > 0 // some callers sleep at once
				if !k.call(id, seq, body[:rnd.IntN(maxSize+1)], poll, timer) {
					return
				}
			}
		})
	}
	wg.Wait()
}

// echo answers every call on c from workers goroutines, as a handler must not
// write. Replies that find their frame's flag clear are for next. The workers end
// with the connection.
func echo(t *testing.T, c transport.Conn, workers int, next func(wire.Header, *wire.Buf)) *sink {
	in := newSink(t)
	work := make(chan received, 1024)
	in.onFrame = func(h wire.Header, b *wire.Buf) {
		if h.Flags&wire.FlagCall == 0 {
			next(h, b)
			return
		}
		work <- received{h, b}
	}
	for range workers {
		go func() {
			for {
				select {
				case r := <-work:
					h := r.h
					h.Flags = wire.FlagTrailer
					if err := c.Write(nil, h, nil, r.b.B); err != nil {
						t.Errorf("reply: %v", err)
					}
					r.release()
				case <-in.closed:
					return
				}
			}
		}()
	}
	return in
}

// echoPair makes a connection whose server echoes.
func (s suite) echoPair(t *testing.T, n, workers int) *callers {
	t.Helper()
	client, server := s.pair(t)
	k := newCallers(t, client, n)
	out := newSink(t)
	out.onFrame = k.onFrame
	client.Start(out)
	server.Start(echo(t, server, workers, nil))
	return k
}

func (s suite) testEcho(t *testing.T, n, calls int) {
	if testing.Short() {
		calls /= 4
	}
	for _, workers := range []int{1, 4} {
		s.echoPair(t, n, workers).run(calls, 64, nil)
	}
}

// testEchoIdleGaps rests between calls: around the time that a spinning receiver
// needs to give up, and long enough that everyone sleeps.
func (s suite) testEchoIdleGaps(t *testing.T) {
	gaps := map[string]struct {
		callers, calls int
		rest           func(*rand.Rand) time.Duration
	}{
		"Tiny": {2, 1500, func(rnd *rand.Rand) time.Duration { return time.Duration(rnd.IntN(100_000)) }},
		"Some": {3, 300, func(rnd *rand.Rand) time.Duration { return time.Duration(rnd.IntN(3_000_000)) }},
		"Long": {1, 8, func(*rand.Rand) time.Duration { return 60 * time.Millisecond }},
		"Mixed": {16, 60, func(rnd *rand.Rand) time.Duration {
			return time.Duration(rnd.IntN(1 << (10 + rnd.IntN(14))))
		}},
	}
	for name, g := range gaps {
		t.Run(name, func(t *testing.T) { s.echoPair(t, g.callers, 2).run(g.calls, 64, g.rest) })
	}
}

// testEchoBothWays lets both ends call and answer on one connection.
func (s suite) testEchoBothWays(t *testing.T) {
	const n, calls = 8, 500
	client, server := s.pair(t)
	a, b := newCallers(t, client, n), newCallers(t, server, n)
	client.Start(echo(t, client, 2, a.onFrame))
	server.Start(echo(t, server, 2, b.onFrame))
	other := background(func() { b.run(calls, 2000, nil) })
	a.run(calls, 2000, nil)
	receive(t, other, "the server's own calls")
}

func (s suite) testEchoLarge(t *testing.T) {
	s.echoPair(t, 8, 4).run(150, wire.MaxPayload, nil)
}

func (s suite) testInfo(t *testing.T) {
	client, server := s.started(t)
	a, b := client.Info(), server.Info()
	if a.Transport == "" || a.Transport != b.Transport {
		t.Errorf("transports %q and %q", a.Transport, b.Transport)
	}
	for _, i := range []transport.Info{a, b} {
		if i.LocalAddr == nil || i.RemoteAddr == nil {
			t.Errorf("address missing in %+v", i)
		}
		if !i.Peer.Known && i.Peer != (transport.Cred{}) {
			t.Errorf("unknown peer has credentials: %+v", i.Peer)
		}
	}
	closeConn(t, client)
	server.wantClosed(t, transport.ErrPeerGone)
	if client.Info() != a || server.Info() != b {
		t.Error("Info changed with the end of the connection")
	}
}
