package shm

import (
	"runtime"
	"time"

	"github.com/stile-ipc/stile/transport"
	"github.com/stile-ipc/stile/transport/wire"
)

// Write sends one frame whose payload is head followed by body.
//
// A sleeping reader is never missed. The producer stores head, then takes the
// sleeping flag; the consumer stores the flag, then loads head (receive_linux.go).
// All four are sequentially consistent, so in their one order either the
// producer's look at the flag comes after the consumer's store, and it rings, or
// the consumer's look at head comes after the producer's store, and it sees the
// frame. Taking the flag with an exchange lets one frame ring, not all of a burst.
//
// Free space is told of the same way: the consumer stores tail, then takes
// wanting; a producer without space stores wanting, then loads tail.
func (c *Conn) Write(cancel <-chan struct{}, h wire.Header, head, body []byte) error {
	return c.write(cancel, h, 0, head, body)
}

// Lend returns memory for a large payload.
func (c *Conn) Lend(n int) (transport.Loan, bool) { return c.lender.lend(n) }

// Return gives up a loan that is not sent.
func (c *Conn) Return(l transport.Loan) { c.lender.done(l.Slot, false) }

// WriteLoan sends one frame whose payload is head followed by a loan. The slot's word
// is set before the frame is published.
func (c *Conn) WriteLoan(cancel <-chan struct{}, h wire.Header, head []byte, l transport.Loan) error {
	var ref [refSize]byte
	putRef(&ref, l.Slot, len(l.B))
	c.lender.sending(l.Slot)
	if err := c.write(cancel, h, markRef, head, ref[:]); err != nil {
		return err
	}
	c.lender.done(l.Slot, true)
	return nil
}

func (c *Conn) write(cancel <-chan struct{}, h wire.Header, mark byte, head, body []byte) error {
	n := len(head) + len(body)
	if n > wire.MaxPayload {
		return errTooLong
	}
	if !c.wlock.tryLock() && !c.wlock.lock(cancel, c.dead) {
		return c.giveUp()
	}
	if err := c.reserve(cancel, frameSize(n)); err != nil {
		c.unlockWrite()
		return err
	}
	h.Len = uint32(n)
	raceRelease()
	c.out.put(h, mark, head, body)
	if c.out.sleeping.load() != 0 && c.out.sleeping.swap(0) != 0 {
		c.stats.doorbells.Add(1)
		ring(c.bell)
	}
	c.unlockWrite()
	c.stats.framesOut.Add(1)
	c.stats.bytesOut.Add(uint64(n))
	return nil
}

func (c *Conn) unlockWrite() {
	c.wlock.unlock()
	if c.ended.Load() != nil {
		c.hangUp()
	}
}

// giveUp is what a writer returns whose cancel or dead channel closed.
func (c *Conn) giveUp() error {
	if err := c.ended.Load(); err != nil {
		return *err
	}
	return transport.ErrCanceled
}

// reserve waits until n bytes fit. The caller holds wlock.
func (c *Conn) reserve(cancel <-chan struct{}, n uint64) error {
	for {
		if err := c.ended.Load(); err != nil {
			return *err
		}
		ok, err := c.out.fits(n)
		if err != nil {
			c.Fail(err)
			return c.cause()
		}
		if ok {
			return nil
		}
		if c.spinSpace(n) {
			continue
		}
		if err := c.waitSpace(cancel, n); err != nil {
			return err
		}
	}
}

// spinSpace waits a moment for a reader that is busy emptying the ring, and tells
// whether there is news.
func (c *Conn) spinSpace(n uint64) bool {
	limit := min(c.spin.limit, spaceSpin)
	start := now()
	for took, step := time.Duration(0), spinYield; took < limit && c.ended.Load() == nil; took = now() - start {
		for range spinChecks {
			if ok, err := c.out.fits(n); ok || err != nil {
				return true
			}
			pause(spinPause)
		}
		if took > step {
			runtime.Gosched()
			step *= 2
		}
	}
	return false
}

// waitSpace waits once for news of free space.
func (c *Conn) waitSpace(cancel <-chan struct{}, n uint64) error {
	c.blocked.Store(true)
	defer c.blocked.Store(false)
	c.out.wanting.store(1)
	if ok, err := c.out.fits(n); ok || err != nil {
		c.out.wanting.store(0)
		return nil // reserve looks again
	}
	select {
	case <-c.space:
		return nil
	case <-cancel:
		c.out.wanting.store(0)
		return c.giveUp()
	case <-c.dead:
		return c.cause()
	}
}

// tellSpace wakes the writer that waits if the peer took its flag down. The
// connection's goroutine calls it before each sleep and after each ring of its
// doorbell; others may.
func (c *Conn) tellSpace() {
	if c.blocked.Load() && c.out.wanting.load() == 0 {
		select {
		case c.space <- struct{}{}:
		default:
		}
	}
}
