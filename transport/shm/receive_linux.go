package shm

import (
	"fmt"
	"runtime"
	"sync/atomic"

	"github.com/stile-ipc/stile/transport"
)

// drainBatch is how many frames are delivered before other goroutines get a turn.
const drainBatch = 128

// Who receives, and why no frame waits unseen.
//
// The holder of rlock is the only consumer: the connection's goroutine or a
// caller in Poll. sleeping is 1 only while nobody holds rlock, or its holder is
// about to look at the ring once more before it lets go:
//
//	goroutine, in its bed:        caller, leaving:
//	  lock, or mark and sleep       sleeping = 1
//	  sleeping = 1                  ring not empty? sleeping = 0, unlock, wake goroutine
//	  ring not empty? receive       unlock; was it marked? wake goroutine
//	  unlock, sleep
//
// By the argument at Conn.Write, a frame published while nobody receives either
// is seen by the look after sleeping = 1, or rings. The ring is an edge in the
// poller and runs the goroutine's up function again; an edge that comes while it
// runs is kept for after it. The goroutine then takes rlock, or it finds a caller
// there: that caller may have looked at the ring before the frame came, but has
// not let go yet. It will find the mark and wake the goroutine. The model in
// model_test.go walks through every interleaving of this.

// receive is the connection's goroutine: it sleeps, receives, and ends things.
func (c *Conn) receive() {
	for {
		c.sleep()
		switch c.serve() {
		case offDuty:
			return
		case lockLost:
			continue
		}
		if c.gone.Load() != nil {
			c.drainGone()
		}
		if c.ended.Load() != nil {
			break
		}
		c.rlock.unlock() // a mark is our own
	}
	c.handler.HandleClose(c.cause())
	c.giveBack()
}

// sleep returns with rlock held when there is something to do.
func (c *Conn) sleep() {
	parked := false
	err := c.bed.sleep(func(uintptr) bool {
		c.tellSpace()
		if !c.rlock.lockOrMark() {
			return false
		}
		if parked {
			c.spin.awoken()
		}
		if c.ending() || c.in.ready() || c.crowd.left > 0 {
			return true
		}
		c.in.sleeping.store(1)
		if c.in.ready() || c.ending() {
			c.in.sleeping.store(0)
			return true
		}
		parked = true
		c.trimmer.quiet()
		c.spin.asleep()
		c.stats.parks.Add(1)
		c.polled.Store(false)
		c.rlock.unlock()
		return false
	})
	if err != nil { // cannot be: the doorbell is open and in the poller
		c.Fail(fmt.Errorf("shm: doorbell: %w (%w)", transport.ErrClosed, err))
		for !c.rlock.tryLock() {
			runtime.Gosched()
		}
	}
}

// outcome is how serve ended.
type outcome int

const (
	lockKept outcome = iota // rlock is still held
	lockLost                // a caller has rlock now
	offDuty                 // another goroutine is the connection's now
)

// serve delivers frames until it is time to sleep. The caller holds rlock.
func (c *Conn) serve() outcome {
	c.awake()
	for {
		n, err := c.drain(drainBatch)
		if err != nil {
			c.Fail(err)
		}
		if c.ending() {
			return lockKept
		}
		c.tellSpace()
		if n > 0 && c.batcher != nil {
			if w := c.batcher.Batched(true); w != nil {
				if how := c.do(w); how != lockKept {
					return how
				}
				continue
			}
		}
		if n == drainBatch {
			runtime.Gosched()
			continue
		}
		quit := &c.polled
		if c.crowd.led(n) {
			quit = nil
		} else if c.polled.Load() {
			return lockKept // a caller is going to receive: it must find the lock free
		}
		if !c.await(nil, quit, true) {
			c.crowd.left = 0
			return lockKept
		}
	}
}

// awake takes the flag down that asks for the doorbell. The caller holds rlock.
func (c *Conn) awake() {
	if c.in.sleeping.load() != 0 {
		c.in.sleeping.store(0)
	}
}

// do does the handler's work. Nobody receives meanwhile, unless a caller polls, so
// that no doorbell is asked for: this goroutine, or the one that relieves it, looks
// at the ring afterwards.
func (c *Conn) do(w transport.Work) outcome {
	shift := c.duty.begin()
	c.rlock.unlock() // a mark is our own
	if c.ending() {
		c.Relieve() // it may be that the end was said just before the shift began
	}
	w.Do()
	switch {
	case !c.duty.end(shift):
		return offDuty
	case !c.rlock.tryLock():
		return lockLost // sleep marks the lock, and looks
	}
	c.awake()
	return lockKept
}

// Relieve makes another goroutine the connection's, if this one does Work. The end of
// the connection relieves it too: work may wait for just what the end brings.
func (c *Conn) Relieve() {
	if c.duty.relieve() {
		go c.receive()
	}
}

// duty tells which goroutine is the connection's while one works: the number of its
// shift, and whether it is in it.
type duty struct{ state atomic.Uint64 }

const inShift = 1

// begin is called by the connection's goroutine.
func (d *duty) begin() (shift uint64) {
	shift = d.state.Load()&^inShift + 2
	d.state.Store(shift | inShift)
	return shift
}

// end reports whether the goroutine is still the connection's.
func (d *duty) end(shift uint64) bool { return d.state.CompareAndSwap(shift|inShift, shift) }

// relieve reports whether another goroutine is to take over.
func (d *duty) relieve() bool {
	s := d.state.Load()
	return s&inShift != 0 && d.state.CompareAndSwap(s, s&^inShift+2)
}

// crowd decides who receives while callers poll: a caller that waits alone does
// it best itself, of many callers each would mostly serve the others. A caller
// that did hands over to the goroutine for a number of frames, its lease, which
// grows while it is renewed. The holder of rlock owns it.
type crowd struct {
	lease int // of the next handover
	left  int // frames the goroutine still leads for
}

const (
	minLease = 64
	maxLease = 4096
)

// met says how many frames a caller delivered that were not its own, and tells
// whether it shall hand over.
func (w *crowd) met(others int) bool {
	if others > 0 {
		w.lease = min(max(2*w.lease, minLease), maxLease)
	} else if w.lease /= 2; w.lease < minLease {
		w.lease = 0
	}
	w.left = w.lease
	return w.lease > 0
}

// led tells whether the goroutine, having delivered n frames, still leads.
func (w *crowd) led(n int) bool {
	w.left = max(w.left-n, 0)
	return w.left > 0
}

// drain delivers at most limit frames. The caller holds rlock.
func (c *Conn) drain(limit int) (n int, err error) {
	bytes := 0
	for n < limit && c.ended.Load() == nil {
		h, b, err := c.in.next()
		if err != nil || b == nil {
			return c.count(n, bytes), err
		}
		if c.in.wanting.load() != 0 && c.in.roomy() && c.in.wanting.swap(0) != 0 {
			c.stats.doorbells.Add(1)
			ring(c.bell)
		}
		n++
		bytes += len(b.B)
		raceAcquire()
		c.handler.HandleFrame(h, b)
	}
	return c.count(n, bytes), nil
}

func (c *Conn) count(n, bytes int) int {
	if n > 0 {
		c.stats.framesIn.Add(uint64(n))
		c.stats.bytesIn.Add(uint64(bytes))
	}
	return n
}

// drainGone delivers what a peer that is gone has left, and ends the connection.
// A peer that only pretends to be gone cannot make it go on for ever.
func (c *Conn) drainGone() {
	for left := c.in.size / frameAlign; left > 0; left-- {
		n, err := c.drain(1)
		if err != nil {
			c.Fail(err)
		}
		if n == 0 {
			break
		}
	}
	c.Fail(*c.gone.Load())
}

// maxPolled is how many frames a caller delivers before it looks after other things,
// such as its deadline.
const maxPolled = 1024

// Poll receives on the caller's goroutine while that is likely to bring its
// reply sooner than sleeping.
func (c *Conn) Poll(done *atomic.Bool) {
	if !c.polled.Load() {
		c.polled.Store(true)
	}
	if done.Load() || !c.rlock.tryLock() {
		return
	}
	c.stats.polls.Add(1)
	c.in.sleeping.store(0)
	total := 0
	for {
		n, err := c.drain(drainBatch)
		total += n
		if n > 0 && c.batcher != nil {
			c.batcher.Batched(false)
		}
		if err != nil {
			c.Fail(err)
			break
		}
		if done.Load() || total >= maxPolled || c.ending() || !c.await(done, nil, n > 0) {
			break
		}
	}
	if done.Load() {
		total--
	}
	c.leave(c.crowd.met(total))
}

// leave ends a caller's turn at the ring: see the argument above. A handover is
// as if frames were left.
func (c *Conn) leave(handover bool) {
	c.trimmer.quiet()
	c.in.sleeping.store(1)
	if handover || c.in.ready() {
		c.in.sleeping.store(0)
		c.rlock.unlock()
		c.bed.wake()
		return
	}
	if c.rlock.unlock() {
		c.bed.wake()
	}
}
