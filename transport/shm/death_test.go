//go:build linux

package shm

import (
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stile-ipc/stile/transport"
	"github.com/stile-ipc/stile/transport/wire"
)

// patience is when a test gives up; it decides nothing else.
const patience = 30 * time.Second

// rounds is how often the fault tests do harm: STILE_ROUNDS, or standard.
func rounds(t *testing.T, standard int) int {
	s := os.Getenv("STILE_ROUNDS")
	if s == "" {
		return standard
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("STILE_ROUNDS=%q: %v", s, err)
	}
	return n
}

func await[T any](t *testing.T, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("%s: nothing in %v", what, patience)
		panic("unreachable")
	}
}

// resources counts open descriptors and mappings of segments of this process.
func resources(t *testing.T) (fds, mappings int) {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	return len(all), strings.Count(string(maps), "memfd:")
}

// TestPeerKilled kills the peer at random moments of traffic in both directions.
func TestPeerKilled(t *testing.T) {
	n := rounds(t, 25)
	round := func(i int) {
		p := startChild(t, "echo", Config{})
		cs := newCallers(16)
		p.conn.Start(cs)
		ended := make(chan struct{})
		var wg sync.WaitGroup
		for id := range cs.slots {
			wg.Go(func() {
				payload := make([]byte, rand.IntN(20000))
				for {
					if ok, err := cs.call(p.conn, id, payload, id%2 == 0); !ok || err != nil {
						return
					}
				}
			})
		}
		go func() { wg.Wait(); close(ended) }()
		time.Sleep(time.Duration(rand.IntN(3_000_000))) // the moment is what varies
		p.kill(t)
		if err := await(t, cs.closed, "HandleClose"); !errors.Is(err, transport.ErrPeerGone) {
			t.Errorf("round %d: cause is %v", i, err)
		}
		await(t, ended, "calls in flight")
		err := p.conn.Write(nil, wire.Header{Type: wire.TypePart}, nil, nil)
		if !errors.Is(err, transport.ErrPeerGone) {
			t.Errorf("round %d: write afterwards: %v", i, err)
		}
		p.conn.Close()
	}
	round(-1)
	fds, maps := resources(t)
	for i := range n {
		round(i)
	}
	// The test's own pipes to the children stay until cleanup: two a round.
	if f, m := resources(t); f > fds+2*n || m != maps {
		t.Errorf("%d descriptors and %d mappings, were %d and %d", f, m, fds, maps)
	}
}

// TestPeerStopped has a peer that is alive and never reads.
func TestPeerStopped(t *testing.T) {
	p := startChild(t, "echo", Config{})
	cs := newTolerant(1) // the peer may answer some more before it stops
	p.conn.Start(cs)
	if ok, err := cs.call(p.conn, 0, []byte{1}, true); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	blockedWriters(t, p.conn)
	p.conn.Close()
	if err := await(t, cs.closed, "HandleClose"); !errors.Is(err, transport.ErrClosed) {
		t.Error(err)
	}
}

// TestPeerDeaf has a peer that attached and never starts, and is killed while
// writers wait for it.
func TestPeerDeaf(t *testing.T) {
	p := startChild(t, "deaf", Config{})
	cs := newCallers(1)
	p.conn.Start(cs)
	blockedWriters(t, p.conn)
	result := make(chan error, 2)
	for range 2 {
		go func() { result <- fill(p.conn, nil) }()
	}
	p.kill(t)
	for range 2 {
		if err := await(t, result, "blocked write"); !errors.Is(err, transport.ErrPeerGone) {
			t.Error(err)
		}
	}
}

// fill writes until it may not.
func fill(c *Conn, cancel <-chan struct{}) error {
	for {
		err := c.Write(cancel, wire.Header{Type: wire.TypePart}, nil, make([]byte, 5000))
		if err != nil {
			return err
		}
	}
}

// blockedWriters fills the ring from several goroutines and expects each to be
// canceled on its own, the one that waits for space and those behind it.
func blockedWriters(t *testing.T, c *Conn) {
	t.Helper()
	const n = 5
	cancels := make([]chan struct{}, n)
	results := make([]chan error, n)
	for i := range n {
		cancels[i], results[i] = make(chan struct{}), make(chan error, 1)
		go func() { results[i] <- fill(c, cancels[i]) }()
	}
	for i := range n {
		close(cancels[i])
		if err := await(t, results[i], "canceled write"); !errors.Is(err, transport.ErrCanceled) {
			t.Errorf("writer %d: %v", i, err)
		}
	}
}

// TestHostileDoorbell has a peer that makes a ring of its doorbell block.
func TestHostileDoorbell(t *testing.T) {
	a, b := controlPair(t)
	defer b.Close()
	c, files, err := Create(a, transport.Info{}, Config{})
	if err != nil {
		t.Fatal(err)
	}
	fds := takeFDs(t, files)
	defer closeAll(fds)
	s, err := mapSegment(fds[0], MinRingSize)
	if err != nil {
		t.Fatal(err)
	}
	defer s.unmap()
	if err := unix.SetNonblock(fds[2], false); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Write(fds[2], fullBell); err != nil {
		t.Fatal(err)
	}
	s.control(0).sleeping.store(1)
	c.Start(newCallers(1))
	result := make(chan error, 1)
	go func() { result <- fill(c, nil) }()
	for s.control(0).sleeping.load() == 1 { // until the writer is about to ring
	}
	closed := make(chan struct{})
	go func() { c.Close(); close(closed) }()
	await(t, closed, "Close")
	if err := await(t, result, "write"); !errors.Is(err, transport.ErrClosed) {
		t.Error(err)
	}
}

// stuckReceiver is a connection whose goroutine is in the kernel: it told the peer of
// space, by a doorbell that the peer has filled and made block. The result is the
// peer's own view, and its descriptors.
func stuckReceiver(t *testing.T) (c *Conn, h *callers, ctl *net.UnixConn, s *segment, fds []int) {
	t.Helper()
	a, ctl := controlPair(t)
	c, files, err := Create(a, transport.Info{}, Config{})
	if err != nil {
		t.Fatal(err)
	}
	fds = takeFDs(t, files)
	if s, err = mapSegment(fds[0], MinRingSize); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(fds[2], false); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Write(fds[2], fullBell); err != nil {
		t.Fatal(err)
	}
	h = newCallers(1)
	c.Start(tolerant{h})
	p := newProducer(s, 1)
	p.wanting.store(1)
	p.put(wire.Header{Type: wire.TypePart}, 0, nil, nil)
	if _, err := unix.Write(fds[1], one); err != nil {
		t.Fatal(err)
	}
	for p.wanting.load() == 1 { // until it is about to ring
	}
	return c, h, ctl, s, fds
}

var fullBell = []byte{0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// TestHostileDoorbellDeath has the peer die while our receiver is in the kernel for it.
func TestHostileDoorbellDeath(t *testing.T) {
	c, h, ctl, s, fds := stuckReceiver(t)
	s.release()
	closeAll(fds)
	ctl.Close()
	if err := await(t, h.closed, "HandleClose"); !errors.Is(err, transport.ErrPeerGone) {
		t.Error(err)
	}
	c.Close()
}

// TestHostileDoorbellRefilled has a peer that fills the doorbell again and again while
// we close.
func TestHostileDoorbellRefilled(t *testing.T) {
	c, _, ctl, s, fds := stuckReceiver(t)
	defer ctl.Close()
	defer s.release()
	defer closeAll(fds)
	var stop atomic.Bool
	var refill sync.WaitGroup
	for range 4 {
		refill.Go(func() {
			for !stop.Load() {
				_ = unix.SetNonblock(fds[2], false)
				// Only as much as fits now: this goroutine must end, too.
				if p := []unix.PollFd{{Fd: int32(fds[2]), Events: unix.POLLOUT}}; pollNow(p) {
					_, _ = unix.Write(fds[2], fullBell)
				}
			}
		})
	}
	closed := make(chan struct{})
	go func() { c.Close(); close(closed) }()
	await(t, closed, "Close")
	stop.Store(true)
	for done := false; !done; { // lets go who fills it last
		unstick(fds[2])
		wait := make(chan struct{})
		go func() { refill.Wait(); close(wait) }()
		select {
		case <-wait:
			done = true
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// pollNow tells whether the first descriptor is ready.
func pollNow(p []unix.PollFd) bool {
	n, err := unix.Poll(p, 0)
	return n == 1 && err == nil
}

// TestHostileScribble runs traffic while a third mapping of the segment writes
// over everything both sides rely on.
func TestHostileScribble(t *testing.T) {
	for _, where := range []string{"control", "headers", "slots", "anywhere"} {
		t.Run(where, func(t *testing.T) {
			for range rounds(t, 8) {
				scribble(t, where)
			}
		})
	}
}

func scribble(t *testing.T, where string) {
	a, b := controlPair(t)
	server, files, err := Create(a, transport.Info{}, Config{})
	if err != nil {
		t.Fatal(err)
	}
	fds := takeFDs(t, files)
	evil, err := mapSegment(fds[0], MinRingSize)
	if err != nil {
		t.Fatal(err)
	}
	defer evil.unmap()
	client, err := Attach(b, fds, transport.Info{}, Config{})
	if err != nil {
		t.Fatal(err)
	}
	e, cs := newEchoer(server), newTolerant(8)
	server.Start(e)
	client.Start(cs)
	var wg sync.WaitGroup
	for id := range cs.slots {
		wg.Go(func() {
			for {
				if loan, ok := client.Lend(1 + rand.IntN(50_000)); ok {
					if client.WriteLoan(nil, wire.Header{Type: wire.TypePart}, nil, loan) != nil {
						client.Return(loan)
					}
				}
				if ok, err := cs.call(client, id, make([]byte, rand.IntN(9000)), true); !ok || err != nil {
					return
				}
			}
		})
	}
	for end := time.Now().Add(60 * time.Millisecond); time.Now().Before(end); {
		for range 1 + rand.IntN(50) {
			w := evil.control(rand.IntN(2))
			data := evil.data(rand.IntN(2))
			if where == "slots" || (where == "anywhere" && rand.IntN(4) == 0) {
				side, i := rand.IntN(2), rand.IntN(numSlots)
				evil.slotWord(side, i).store(rand.Uint64() % 3)
				at := slots[i].at
				evil.arena(side)[at+rand.IntN(100)] = byte(rand.Uint32())
				// What looks like a reference, where the next frame will be.
				ref := data[(w.head.load()+uint64(rand.IntN(64)))%MinRingSize:]
				ref[offMark] = markRef
			} else if where == "control" || (where == "anywhere" && rand.IntN(2) == 0) {
				word := []word{w.head, w.tail, w.sleeping, w.wanting}[rand.IntN(4)]
				v := word.load()
				switch rand.IntN(3) {
				case 0:
					v = rand.Uint64()
				case 1:
					v += uint64(rand.IntN(9)-4) * frameAlign
				case 2:
					v ^= 1
				}
				word.store(v)
			} else {
				at := (w.tail.load() + uint64(rand.IntN(4096))&^(frameAlign-1)) % MinRingSize
				data[at+uint64(rand.IntN(wire.HeaderSize))] = byte(rand.Uint32())
			}
		}
		time.Sleep(time.Duration(rand.IntN(100_000)))
	}
	client.Close()
	server.Close()
	wg.Wait()
	await(t, e.closed, "server")
	for _, c := range []*Conn{client, server} {
		err := c.cause()
		if !errors.Is(err, transport.ErrProtocol) && !errors.Is(err, transport.ErrClosed) && !errors.Is(err, transport.ErrPeerGone) {
			t.Errorf("cause: %v", err)
		}
	}
}

// tolerant is callers that expect replies to nobody, or twice.
type tolerant struct{ *callers }

func newTolerant(n int) tolerant { return tolerant{newCallers(n)} }

func (cs tolerant) HandleFrame(h wire.Header, b *wire.Buf) {
	defer b.Release()
	if h.Stream-1 < uint64(len(cs.slots)) {
		s := &cs.slots[h.Stream-1]
		s.done.Store(true)
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}
