package values

import (
	"slices"
	"sync"
)

// MaxUses is how many calls are told of whose answers a call asks with: the latest.
const MaxUses = 8

// Bounds of what is remembered of a handler.
const (
	maxCalls     = 64
	maxRemember  = 16 << 10 // values, of all bodies
	fewerToShift = 16       // a list that is so many times shorter is looked up in the longer one
)

// Calls is what a handler was asked, and what it has asked others. It is safe for concurrent use.
type Calls struct {
	mu    sync.Mutex
	asked *Body
	all   []*Call
	room  int  // for values
	lost  bool // there was a call that nobody could look at: it may have used any answer
	ended bool
}

// Call is one that a handler makes. A nil one does nothing.
type Call struct {
	of    *Calls
	span  uint64
	asked *Body
	fresh []uint64 // values of its answer that were new to the handler
	whole bool     // all of its answer was looked at
	done  bool
	used  bool
	uses  []uint64
}

// Told is what is known of a call once its handler has ended.
type Told struct {
	Span   uint64
	Looked bool     // at all of its request and its answer: else the rest says little
	Uses   []uint64 // spans of earlier calls, something of whose answers it asks with
	Used   bool     // something of its answer is in a later call's request, or in the handler's answer, or that is not known, as the handler answers nothing, or what nobody can read
}

// NewCalls returns what remembers the calls of a handler that was asked this.
func NewCalls(asked *Body) *Calls {
	return &Calls{asked: asked, room: maxRemember - len(asked.values)}
}

// Begin says that the handler has made a call. nil: there is no room for it.
func (c *Calls) Begin(span uint64, asked *Body) *Call {
	c.mu.Lock()
	defer c.mu.Unlock()
	one := &Call{of: c, span: span, asked: asked}
	for _, earlier := range c.all {
		if earlier.done && meet(earlier.fresh, asked.values) {
			earlier.used = true
			one.uses = append(one.uses, earlier.span)
		}
	}
	one.uses = one.uses[max(len(one.uses)-MaxUses, 0):]
	c.lost = c.lost || !asked.Whole
	if c.ended || len(c.all) >= maxCalls || len(asked.values) > c.room {
		c.lost = true
		return nil
	}
	c.room -= len(asked.values)
	c.all = append(c.all, one)
	return one
}

// Unseen says that the handler has made a call whose bodies nobody looked at.
func (c *Calls) Unseen() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lost = true
}

// End says what a call was answered. Whoever knows of no answer does not call it.
func (one *Call) End(answer *Body) {
	if one == nil {
		return
	}
	c := one.of
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended || one.done || len(answer.values) > c.room {
		return
	}
	one.done, one.whole = true, answer.Whole
	one.fresh = without(answer.values, c.asked.values, one.asked.values)
	c.room -= len(one.fresh)
}

// End says what the handler has answered, and returns what is known of its calls, in the order in which they began.
func (c *Calls) End(answer *Body) []Told {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	blind := c.lost || !answer.Whole || len(answer.values) == 0
	var told []Told
	for _, one := range c.all {
		told = append(told, Told{
			Span: one.span, Looked: one.done && one.whole && one.asked.Whole,
			Uses: one.uses, Used: one.used || blind || meet(one.fresh, answer.values),
		})
	}
	return told
}

// without returns the values of all that are in neither of two other lists. All are sorted.
func without(all, a, b []uint64) []uint64 {
	var out []uint64
	for _, v := range all {
		if _, inA := slices.BinarySearch(a, v); inA {
			continue
		}
		if _, inB := slices.BinarySearch(b, v); !inB {
			out = append(out, v)
		}
	}
	return out
}

// meet reports whether two sorted lists have something in common.
func meet(a, b []uint64) bool {
	if len(a) > len(b) {
		a, b = b, a
	}
	if len(a)*fewerToShift < len(b) {
		return slices.ContainsFunc(a, func(v uint64) bool { _, has := slices.BinarySearch(b, v); return has })
	}
	for i, j := 0, 0; i < len(a) && j < len(b); {
		switch {
		case a[i] == b[j]:
			return true
		case a[i] < b[j]:
			i++
		default:
			j++
		}
	}
	return false
}
