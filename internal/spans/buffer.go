package spans

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
)

// Bounds of a window. A span is of some 300 bytes, and what was seen of its bodies.
const (
	maxSpans  = 20_000
	rootsUpTo = maxSpans * 3 / 4 // no trace is begun when more are held: those that have begun become whole
	maxClaims = maxSpans / 4     // calls of one connection whose client has chosen them
	stripes   = 8
)

// Buffer chooses which calls are traced, and holds their spans until they are taken. The zero value is not ready, see [New]. Its methods are safe for concurrent use, and wait
// for nothing.
type Buffer struct {
	choice  choice
	forRoot looks
	forUser looks
	looked  atomic.Uint32 // calls of this window, of traces that are looked at
	window  atomic.Uint32
	held    atomic.Int64
	lost    atomic.Uint64
	full    atomic.Bool // traces were not begun for want of room
	stripes [stripes]stripe
}

type stripe struct {
	mu    sync.Mutex
	spans []*Span
	_     [96]byte
}

// New returns one that chooses nothing until Start.
func New() *Buffer {
	b := &Buffer{forRoot: looks{most: rootLooks}, forUser: looks{most: userLooks}}
	b.choice.random = random
	return b
}

// Start begins to choose: somebody is going to take spans.
func (b *Buffer) Start() {
	b.lost.Store(0)
	b.forRoot.every.Store(0)
	b.forUser.every.Store(0)
	b.choice.start()
}

// Started reports whether it chooses.
func (b *Buffer) Started() bool { return b.choice.every.Load() != 0 }

// Stop ends that, and forgets what is held.
func (b *Buffer) Stop() {
	b.choice.stop()
	b.Take()
}

// Root returns the span of a call that is made for no other one, if it is chosen.
func (b *Buffer) Root() *Span {
	weight, chosen := b.choice.draw()
	if !chosen {
		return nil
	}
	if b.held.Load() >= rootsUpTo {
		b.full.Store(true)
		return nil
	}
	s := &Span{ID: b.choice.id(), Weight: weight}
	binary.LittleEndian.PutUint64(s.Trace[:], b.choice.id())
	binary.LittleEndian.PutUint64(s.Trace[8:], b.choice.id())
	s.Trace.look(b.forRoot.choose(&s.Trace))
	return s
}

// Child returns the span of a call of a trace, which a span of it has made; or of the other side of that call.
func (b *Buffer) Child(trace TraceID, parent uint64) *Span {
	if !b.Started() {
		return nil
	}
	return &Span{Trace: trace, ID: b.choice.id(), Parent: parent}
}

// Claims counts what a connection's client has chosen. It is for one goroutine at a time.
type Claims struct {
	window uint32
	n      int
}

// Claim reports whether one more call of a connection may be one that its client has chosen. If not, it counts as lost.
func (b *Buffer) Claim(c *Claims) bool {
	if w := b.window.Load(); c.window != w {
		c.window, c.n = w, 0
	}
	if c.n >= maxClaims {
		b.lost.Add(1)
		return false
	}
	c.n++
	return true
}

// Add takes in the span of a call that has ended. There is no room for too many, and none if all stripes are in use just now: it counts as lost then.
func (b *Buffer) Add(hint uint32, s *Span) {
	if !b.Started() {
		return
	}
	if b.held.Add(1) > maxSpans {
		b.held.Add(-1)
		b.lost.Add(1)
		return
	}
	for i := range uint32(stripes) {
		if of := &b.stripes[(hint+i)%stripes]; of.mu.TryLock() {
			of.spans = append(of.spans, s)
			of.mu.Unlock()
			return
		}
	}
	b.held.Add(-1)
	b.lost.Add(1)
}

// Take returns the spans since it was called last, in no order, and how many were lost. It begins a window.
func (b *Buffer) Take() (all []*Span, lost uint64) {
	for i := range b.stripes {
		of := &b.stripes[i]
		of.mu.Lock()
		all = append(all, of.spans...)
		of.spans = nil
		of.mu.Unlock()
	}
	b.held.Add(-int64(len(all)))
	b.window.Add(1)
	b.forRoot.next()
	b.forUser.next()
	b.looked.Store(0)
	b.choice.next(len(all), b.full.Swap(false))
	return all, b.lost.Swap(0)
}
