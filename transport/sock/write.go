package sock

import (
	"fmt"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stile-ipc/stile/transport"
	"github.com/stile-ipc/stile/transport/wire"
)

const (
	// A writer waits while highWater bytes or more are not yet with the kernel, and
	// is let go when they have sunk to lowWater. So less than highWater plus one
	// frame is held.
	highWater = 256 << 10
	lowWater  = highWater / 2

	// keepSize is about what an idle connection keeps of a buffer, in bytes. Larger ones
	// have largeSize, which takes all that may be queued, and are shared.
	keepSize  = 16 << 10
	largeSize = highWater + wire.HeaderSize + wire.MaxPayload

	// A writer whose frames follow each other within quickWrite leaves the flush to
	// the flusher goroutine after quickStreak of them, and gathers frames meanwhile.
	quickWrite  = 10 * time.Microsecond
	quickStreak = 8

	// inlineRounds is how often a writer flushes, also for others, before it leaves
	// the rest to the flusher goroutine.
	inlineRounds = 8
)

// largeBuffers are those that connections need only while they carry much.
var largeBuffers = sync.Pool{New: func() any { return new([largeSize]byte) }}

// turn is a writer that waits for space. Writers are let go in the order they came:
// one that just got a reply would else always be faster than those that wait.
type turn struct {
	size int           // of its frame, in bytes
	come chan struct{} // closed when the space is taken for it, or frames are refused
}

// writer gathers frames and gives them to the kernel.
type writer struct {
	nc  net.Conn
	raw *rawWriter // nil where a write that does not block cannot be had

	flushAll func() // the flusher goroutine's; made once, so that go does not allocate

	// broken is set when the kernel has refused bytes for good.
	broken atomic.Bool

	mu       sync.Mutex
	err      error         // why frames are refused: the connection's cause, or what the kernel said
	pend     []byte        // accepted frames no flush has begun to write
	queued   int           // bytes not with the kernel yet, accepted or of turns that have come
	total    uint64        // bytes the kernel has taken
	flushing bool          // someone flushes; if not, pend and out are empty
	turns    []*turn       // who waits for space, in order
	idle     chan struct{} // not nil while someone waits for the end of flushing
	last     time.Time     // when a frame was accepted
	streak   int           // frames since one that did not follow quickly

	// Owned by whoever set flushing.
	out []byte // being written
	off int    // bytes of out the kernel has taken
}

func (w *writer) init(c net.Conn) {
	w.nc = c
	w.raw = newRawWriter(c)
	w.flushAll = func() { w.flush(true) }
}

func (c *conn) Write(cancel <-chan struct{}, h wire.Header, head, body []byte) error {
	n := len(head) + len(body)
	if n > wire.MaxPayload {
		return fmt.Errorf("sock: payload of %d bytes, at most %d", n, wire.MaxPayload)
	}
	h.Len = uint32(n)
	flush, quick, err := c.w.accept(cancel, h, head, body)
	if err != nil || !flush {
		return err
	}
	if c.burst.Load() {
		// Several calls are under way: let their frames join this write. Who is
		// ready to run now is ahead of this goroutine in the queue.
		runtime.Gosched()
	} else if quick {
		go c.w.flushAll()
		return nil
	}
	if c.w.raw == nil || !c.w.flush(false) {
		go c.w.flushAll()
	}
	return nil
}

// accept appends one frame, waiting for space if it must. It reports whether the
// caller has to flush, and whether more frames are likely to follow at once.
func (w *writer) accept(cancel <-chan struct{}, h wire.Header, head, body []byte) (flush, quick bool, err error) {
	size := wire.HeaderSize + len(head) + len(body)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil && (w.queued >= highWater || len(w.turns) > 0) {
		if err := w.awaitTurnLocked(cancel, size); err != nil {
			return false, false, err
		}
	} else {
		w.queued += size
	}
	if w.err != nil {
		return false, false, w.err
	}
	now := time.Now()
	if now.Sub(w.last) < quickWrite {
		w.streak++
	} else {
		w.streak = 0
	}
	w.last = now
	var enc [wire.HeaderSize]byte
	wire.PutHeader(enc[:], h)
	w.growLocked(size)
	w.pend = append(append(append(w.pend, enc[:]...), head...), body...)
	flush = !w.flushing
	w.flushing = true
	return flush, w.streak >= quickStreak, nil
}

// awaitTurnLocked waits until there is space and size bytes of it are the caller's, or
// frames are refused.
func (w *writer) awaitTurnLocked(cancel <-chan struct{}, size int) error {
	t := &turn{size, make(chan struct{})}
	w.turns = append(w.turns, t)
	w.mu.Unlock()
	select {
	case <-t.come:
		w.mu.Lock()
		return nil
	case <-cancel:
	}
	w.mu.Lock()
	if i := slices.Index(w.turns, t); i >= 0 {
		w.turns = slices.Delete(w.turns, i, i+1)
		return transport.ErrCanceled
	}
	return nil // it came meanwhile
}

// growLocked makes room for size more bytes in pend.
func (w *writer) growLocked(size int) {
	n := len(w.pend) + size
	if n <= cap(w.pend) {
		return
	}
	if n <= keepSize {
		w.pend = slices.Grow(w.pend, size)
		return
	}
	w.pend = append(largeBuffers.Get().(*[largeSize]byte)[:0], w.pend...)
}

// freed returns what an idle connection keeps of a buffer.
func freed(b []byte) []byte {
	if cap(b) < largeSize {
		return b[:0]
	}
	largeBuffers.Put((*[largeSize]byte)(b[:largeSize]))
	return nil
}

// flush writes until nothing is left, and reports so. Without block it gives up,
// still flushing, when the kernel is full or others keep adding.
func (w *writer) flush(block bool) bool {
	more := w.advance(0, nil)
	for round := 0; more; round++ {
		if !block && round == inlineRounds {
			return false
		}
		var n int
		var err error
		if w.raw != nil {
			n, err = w.raw.write(w.out[w.off:], block)
		} else {
			n, err = w.nc.Write(w.out[w.off:min(len(w.out), w.off+readSize)])
		}
		more = w.advance(n, err)
		if more && n == 0 && !block {
			return false
		}
	}
	return true
}

// advance notes what the kernel took of out and puts the next bytes there. It
// reports false, and ends the flushing, when there are none.
func (w *writer) advance(n int, err error) (more bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.off += n
	w.queued -= n
	w.total += uint64(n)
	if err != nil {
		if w.err == nil {
			w.err = fmt.Errorf("sock: write: %w: %w", transport.ErrPeerGone, err)
		}
		w.out, w.pend, w.off, w.queued = nil, nil, 0, 0
		w.broken.Store(true)
		w.nc.SetReadDeadline(time.Now().Add(drainIdle))
	}
	if w.queued <= lowWater {
		w.comeLocked()
	}
	if w.off < len(w.out) {
		return true
	}
	w.out, w.pend, w.off = w.pend, w.out[:0], 0
	if len(w.out) > 0 {
		return true
	}
	w.flushing = false
	w.out, w.pend = freed(w.out), freed(w.pend)
	if w.idle != nil {
		close(w.idle)
		w.idle = nil
	}
	return false
}

// comeLocked lets those go for whom there is space; all, when frames are refused.
func (w *writer) comeLocked() {
	for len(w.turns) > 0 && (w.err != nil || w.queued < highWater) {
		t := w.turns[0]
		w.turns = slices.Delete(w.turns, 0, 1)
		if w.err == nil {
			w.queued += t.size
		}
		close(t.come)
	}
}

// refuse makes every frame not accepted yet be refused with err.
func (w *writer) refuse(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = err
	w.comeLocked()
}

// idleSignal returns a channel that closes when nobody flushes any more, or nil
// when nobody does.
func (w *writer) idleSignal() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.flushing {
		return nil
	}
	if w.idle == nil {
		w.idle = make(chan struct{})
	}
	return w.idle
}

// taken returns how many bytes the kernel has taken so far.
func (w *writer) taken() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.total
}
