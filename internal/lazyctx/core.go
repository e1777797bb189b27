// Package lazyctx has contexts whose deadline costs nothing until somebody waits for it:
// no timer, no channel and no lock of a parent before Done or AfterFunc is called.
// [context.WithDeadline] pays for all of them at once, which is more than a whole call
// through shared memory.
package lazyctx

import (
	"context"
	"sync"
	"time"
)

// Core is a context's deadline and end, without values: a type that embeds it adds Value.
// Its methods are safe for concurrent use.
type Core struct {
	parent context.Context // nil: none

	mu       sync.Mutex
	deadline time.Time // zero: none
	err      error
	done     chan struct{}
	cut      chan struct{} // see Cut
	timer    *time.Timer   // set once someone waits
	unwatch  func() bool   // of the parent, set once someone waits
	waited   bool          // someone waits: timer and parent will tell
	one      *func()       // the first of funcs, which are rarely more
	funcs    map[*func()]struct{}
}

// closed is the channel of contexts that had ended before anyone asked.
var closed = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// SetDeadline sets the deadline, unless there is one.
func (c *Core) SetDeadline(deadline time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.deadline.IsZero() {
		c.deadline = deadline
		if c.waited && c.err == nil {
			c.armLocked()
		}
	}
}

// Parent returns the context that this one ends with, or nil.
func (c *Core) Parent() context.Context { return c.parent }

// Waited reports whether somebody waits for the end already, so that its channel is there.
func (c *Core) Waited() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.waited || c.err != nil
}

// Deadline implements [context.Context].
func (c *Core) Deadline() (time.Time, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.deadline, !c.deadline.IsZero()
}

// Done implements [context.Context].
func (c *Core) Done() <-chan struct{} {
	c.mu.Lock()
	c.waitLocked()
	if c.done == nil {
		c.done = make(chan struct{})
	}
	done := c.done
	c.mu.Unlock()
	return done
}

// Cut returns a channel that Cancel closes, and no end that nobody was told of. It is for who
// looks at the deadline and waits for the parent by himself, and costs no timer.
func (c *Core) Cut() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return closed
	}
	if c.cut == nil {
		c.cut = make(chan struct{})
	}
	return c.cut
}

// Err implements [context.Context]. Where both the parent has ended and the deadline passed before
// anybody looked, the parent's reason is told, whichever came first.
func (c *Core) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lookLocked()
	return c.err
}

// lookLocked finds an end that nobody was told of.
func (c *Core) lookLocked() {
	if c.err != nil || c.waited {
		return
	}
	if c.parent != nil {
		if err := c.parent.Err(); err != nil {
			c.endLocked(err)
			return
		}
	}
	if !c.deadline.IsZero() && time.Until(c.deadline) <= 0 {
		c.endLocked(context.DeadlineExceeded)
	}
}

// waitLocked makes the deadline and the parent tell of the end.
func (c *Core) waitLocked() {
	c.lookLocked()
	if c.err != nil || c.waited {
		return
	}
	c.waited = true
	c.armLocked()
	if c.parent != nil && c.parent.Done() != nil {
		c.unwatch = context.AfterFunc(c.parent, func() { c.Cancel(c.parent.Err()) })
	}
}

func (c *Core) armLocked() {
	if !c.deadline.IsZero() {
		c.timer = time.AfterFunc(time.Until(c.deadline), c.expire)
	}
}

func (c *Core) expire() { c.Cancel(context.DeadlineExceeded) }

// Cancel ends the context. Only the first reason counts. Whoever makes a context calls it
// in the end.
func (c *Core) Cancel(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.endLocked(err)
	}
}

func (c *Core) endLocked(err error) {
	c.err = err
	if c.timer != nil {
		c.timer.Stop()
	}
	if c.unwatch != nil {
		c.unwatch()
	}
	if c.done == nil {
		c.done = closed
	} else {
		close(c.done)
	}
	if c.cut != nil {
		close(c.cut)
	}
	if c.one != nil {
		go (*c.one)()
		c.one = nil
	}
	for f := range c.funcs {
		go (*f)()
	}
	c.funcs = nil
}

// AfterFunc lets package context derive contexts without a goroutine for each. f runs on a
// goroutine of its own once the context has ended.
func (c *Core) AfterFunc(f func()) (stop func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waitLocked()
	if c.err != nil {
		go f()
		return func() bool { return false }
	}
	if c.one == nil {
		c.one = &f
	} else {
		if c.funcs == nil {
			c.funcs = map[*func()]struct{}{}
		}
		c.funcs[&f] = struct{}{}
	}
	return func() bool { return c.drop(&f) }
}

// drop reports whether f was still to be called.
func (c *Core) drop(f *func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.one == f {
		c.one = nil
		return true
	}
	_, waiting := c.funcs[f]
	delete(c.funcs, f)
	return waiting
}
