package sock

import (
	"errors"
	"io"
	"net"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stile-ipc/stile/transport"
	"github.com/stile-ipc/stile/transport/wire"
)

// counter counts the frames it drops.
type counter struct {
	frames atomic.Int64
	tick   chan struct{} // capacity 1, sent to after each frame
	closed chan error    // capacity 1
}

func newCounter() *counter {
	return &counter{tick: make(chan struct{}, 1), closed: make(chan error, 1)}
}

func (c *counter) HandleFrame(_ wire.Header, b *wire.Buf) {
	b.Release()
	c.frames.Add(1)
	select {
	case c.tick <- struct{}{}:
	default:
	}
}

func (c *counter) HandleClose(err error) { c.closed <- err }

func (c *counter) waitFor(n int64) {
	for c.frames.Load() < n {
		<-c.tick
	}
}

// socketPair returns the two ends of a unix socket.
func socketPair(t testing.TB) (a, b *net.UnixConn) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	d, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); d.Close() })
	return c.(*net.UnixConn), d.(*net.UnixConn)
}

func started(t testing.TB) (a, b transport.Conn, ha, hb *counter) {
	t.Helper()
	c, d := socketPair(t)
	a, b = New(c, transport.Info{Transport: "unix"}), New(d, transport.Info{Transport: "unix"})
	ha, hb = newCounter(), newCounter()
	a.Start(ha)
	b.Start(hb)
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b, ha, hb
}

var streamFrame = wire.Header{Type: wire.TypeStream, Stream: 1}

// TestAllocs sends single frames, and bursts, and counts the allocations of both
// ends together.
func TestAllocs(t *testing.T) {
	a, _, _, hb := started(t)
	head, body := make([]byte, 16), make([]byte, 64)
	cancel := make(chan struct{})
	for _, burst := range []int64{1, 20} {
		perRun := testing.AllocsPerRun(2000, func() {
			n := hb.frames.Load()
			for range burst {
				if err := a.Write(cancel, streamFrame, head, body); err != nil {
					t.Fatal(err)
				}
			}
			hb.waitFor(n + burst)
		})
		// The race detector empties sync.Pool at random.
		if perRun != 0 && !raceEnabled {
			t.Errorf("%v allocations for %d frames written and received", perRun, burst)
		}
	}
}

func BenchmarkWrite(b *testing.B) {
	a, _, _, hb := started(b)
	body := make([]byte, 64)
	b.ReportAllocs()
	for b.Loop() {
		n := hb.frames.Load()
		if err := a.Write(nil, streamFrame, nil, body); err != nil {
			b.Fatal(err)
		}
		hb.waitFor(n + 1)
	}
}

// TestCoalesce holds the flush of one writer back and checks that the frames that
// others add meanwhile leave in one write.
func TestCoalesce(t *testing.T) {
	rec := &recordingConn{gate: make(chan struct{}), entered: make(chan struct{}, 1)}
	c := New(rec, transport.Info{}).(*conn)
	const frames = 100
	if err := c.Write(nil, streamFrame, nil, make([]byte, 64)); err != nil {
		t.Fatal(err)
	}
	<-rec.entered
	for range frames {
		if err := c.Write(nil, streamFrame, nil, make([]byte, 64)); err != nil {
			t.Fatal(err)
		}
	}
	close(rec.gate)
	c.Close()
	size := wire.HeaderSize + 64
	if len(rec.writes) != 2 || rec.writes[0] != size || rec.writes[1] != frames*size {
		t.Errorf("writes of %v bytes, want %d and %d", rec.writes, size, frames*size)
	}
}

// recordingConn is a net.Conn whose Write waits for gate.
type recordingConn struct {
	net.Conn
	gate    chan struct{}
	entered chan struct{}
	writes  []int
}

func (r *recordingConn) Write(b []byte) (int, error) {
	select {
	case r.entered <- struct{}{}:
	default:
	}
	<-r.gate
	r.writes = append(r.writes, len(b))
	return len(b), nil
}

func (r *recordingConn) Close() error                    { return nil }
func (r *recordingConn) LocalAddr() net.Addr             { return &net.UnixAddr{} }
func (r *recordingConn) RemoteAddr() net.Addr            { return &net.UnixAddr{} }
func (r *recordingConn) SetReadDeadline(time.Time) error { return nil }

// TestBounded checks how much a connection holds for a peer that reads nothing.
func TestBounded(t *testing.T) {
	c, _ := socketPair(t)
	k := New(c, transport.Info{}).(*conn)
	cancel := make(chan struct{})
	timer := time.AfterFunc(100*time.Millisecond, func() { close(cancel) })
	defer timer.Stop()
	body := make([]byte, wire.MaxPayload)
	for {
		if err := k.Write(cancel, streamFrame, nil, body); err != nil {
			if !errors.Is(err, transport.ErrCanceled) {
				t.Fatal(err)
			}
			break
		}
	}
	k.w.mu.Lock()
	queued, held := k.w.queued, len(k.w.pend)
	k.w.mu.Unlock()
	if limit := highWater + wire.HeaderSize + wire.MaxPayload; queued > limit || held > limit {
		t.Errorf("%d bytes queued, %d of them gathered; limit %d", queued, held, limit)
	}
	k.Fail(errors.New("enough"))
	if idle := k.w.idleSignal(); idle != nil {
		<-idle
	}
	k.Close()
}

// TestIdleBuffers checks that a burst's buffers are given back.
func TestIdleBuffers(t *testing.T) {
	a, _, _, hb := started(t)
	body := make([]byte, wire.MaxPayload)
	const frames = 200
	for range frames {
		if err := a.Write(nil, streamFrame, nil, body); err != nil {
			t.Fatal(err)
		}
	}
	hb.waitFor(frames)
	w := &a.(*conn).w
	if idle := w.idleSignal(); idle != nil {
		<-idle
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if cap(w.pend) > 2*keepSize || cap(w.out) > 2*keepSize { // slices grow by more than asked
		t.Errorf("an idle connection keeps %d and %d bytes", cap(w.pend), cap(w.out))
	}
}

// TestPeerStopsReading half-closes the peer's receiving side: writing fails, what
// the peer still sends is delivered, and the connection ends although the peer
// never closes.
func TestPeerStopsReading(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Log("other systems drop what was sent before, too")
	}
	c, d := socketPair(t)
	a, h := New(c, transport.Info{}), newCounter()
	var enc [wire.HeaderSize]byte
	wire.PutHeader(enc[:], streamFrame)
	if _, err := d.Write(enc[:]); err != nil {
		t.Fatal(err)
	}
	if err := d.CloseRead(); err != nil {
		t.Fatal(err)
	}
	var err error
	for err == nil {
		err = a.Write(nil, streamFrame, nil, nil)
	}
	if !errors.Is(err, transport.ErrPeerGone) {
		t.Errorf("write: %v", err)
	}
	a.Start(h)
	if err := <-h.closed; !errors.Is(err, transport.ErrPeerGone) {
		t.Errorf("HandleClose: %v", err)
	}
	if h.frames.Load() != 1 {
		t.Errorf("%d frames delivered, want 1", h.frames.Load())
	}
	a.Close()
}

// TestLinger closes towards a peer that takes nothing, then one that takes little
// by little, in virtual time.
func TestLinger(t *testing.T) {
	for name, slow := range map[string]bool{"Stuck": false, "Slow": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far := net.Pipe()
				defer far.Close()
				c := New(near, transport.Info{})
				c.Start(newCounter())
				for range 4 {
					if err := c.Write(nil, streamFrame, nil, make([]byte, 50_000)); err != nil {
						t.Fatal(err)
					}
				}
				if slow {
					go func() {
						b := make([]byte, readSize)
						for {
							time.Sleep(lingerStall / 2)
							if _, err := io.ReadFull(far, b); err != nil {
								return
							}
						}
					}()
				}
				start := time.Now()
				c.Close()
				if took := time.Since(start); took > lingerMax+2*lingerStall || took < lingerStall {
					t.Errorf("Close took %v", took)
				}
			})
		})
	}
}

// TestTurns has a writer wait for space: one that comes when there is some, but not
// enough for the first, waits behind it.
func TestTurns(t *testing.T) {
	gated := &gatedConn{tokens: make(chan struct{}), bytes: make(chan int, 1000)}
	a := New(gated, transport.Info{}).(*conn)
	body := make([]byte, wire.MaxPayload)
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	watchdog := time.After(time.Minute)
	await := func(turns int) {
		t.Helper()
		for {
			a.w.mu.Lock()
			n, queued := len(a.w.turns), a.w.queued
			a.w.mu.Unlock()
			if n == turns {
				return
			}
			select {
			case <-poll.C:
			case <-watchdog:
				t.Fatalf("%d writers wait and %d bytes are queued, want %d writers", n, queued, turns)
			}
		}
	}
	results := make(chan error, 3)
	write := func(cancel chan struct{}) { results <- a.Write(cancel, streamFrame, nil, body) }
	for range highWater / (wire.HeaderSize + wire.MaxPayload) {
		if err := a.Write(nil, streamFrame, nil, body); err != nil {
			t.Fatal(err)
		}
	}
	go write(nil)
	await(1)
	gated.tokens <- struct{}{}
	<-gated.bytes // the kernel took some: less is queued than highWater, and more than lowWater
	go write(nil)
	await(2)
	cancel := make(chan struct{})
	go write(cancel)
	await(3)
	close(cancel)
	await(2)
	if err := <-results; !errors.Is(err, transport.ErrCanceled) {
		t.Errorf("one that gave up: %v", err)
	}
	close(gated.tokens)
	for range 2 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	a.Close()
}

// gatedConn is a net.Conn whose every Write waits for a token.
type gatedConn struct {
	recordingConn
	tokens chan struct{}
	bytes  chan int // what each Write took
}

func (c *gatedConn) Write(b []byte) (int, error) {
	<-c.tokens
	c.bytes <- len(b)
	return len(b), nil
}
