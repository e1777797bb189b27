package shm

import (
	"sync"
	"sync/atomic"
	"time"
)

// trimFrom is how much must have gone through a ring since its pages were given back
// for that to be worth a timer again, in bytes.
const trimFrom = 32 << 10

// trimmer gives the pages of the ring that a side sends through back to the kernel
// when the connection has been quiet for a while. An idle connection has no timer.
type trimmer struct {
	conn *Conn

	armed   atomic.Bool
	trimmed atomic.Uint64 // bytes ever written when the pages were given back

	mu     sync.Mutex
	closed bool
	timer  *time.Timer
	seen   uint64 // bytes ever written when the timer was set
}

// quiet is called when nobody receives any more: the connection may be about to be
// quiet.
func (t *trimmer) quiet() {
	if t.armed.Load() || t.conn.out.head.load()-t.trimmed.Load() < trimFrom {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed && !t.armed.Swap(true) {
		t.seen = t.conn.out.head.load()
		t.timer = time.AfterFunc(trimAfter, t.run)
	}
}

func (t *trimmer) run() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	if at := t.conn.out.head.load(); at != t.seen || !t.conn.trimRing() {
		t.seen = at
		t.timer.Reset(trimAfter)
		return
	}
	t.trimmed.Store(t.seen)
	t.armed.Store(false)
}

func (t *trimmer) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	if t.timer != nil {
		t.timer.Stop()
	}
}

// trimRing gives the ring's pages back if the peer has read all that is in it, which
// it tells. No frame can come in between: the write lock is held.
func (c *Conn) trimRing() bool {
	if !c.wlock.tryLock() {
		return false
	}
	defer c.unlockWrite()
	if c.out.tail.load() != c.out.pos {
		return false
	}
	if removePages(c.out.data[:c.out.size]) == nil {
		c.out.emptied()
	}
	return true
}
