package spans

import (
	"encoding/binary"
	"sync/atomic"
)

// How many calls are looked at in a window, about. To look costs a call some ten times what its span does.
const (
	rootLooks = 100  // that begin a trace: with all others of it, in whichever process
	userLooks = 400  // of traces that users make
	maxLooks  = 2000 // of traces whose first call chose it, here or elsewhere
)

// looks chooses which traces are looked at: by their IDs, one in a power of 2, so that processes choose the same ones, but for those that
// are busier than others.
type looks struct {
	most   uint32        // in a window, about
	every  atomic.Uint32 // 0: as 1
	chosen atomic.Uint32
}

// choose chooses for a trace.
func (l *looks) choose(trace *TraceID) bool {
	every := max(l.every.Load(), 1)
	if binary.BigEndian.Uint64(trace[8:])&uint64(every-1) != 0 {
		return false
	}
	if l.chosen.Add(1) == l.most { // what is left of the window is sparser, and so on
		l.every.Store(min(4*every, mostSparse))
		l.chosen.Store(l.most * 3 / 4)
	}
	return true
}

// next begins a window.
func (l *looks) next() {
	every, chosen := l.every.Load(), l.chosen.Swap(0)
	for ; every > 1 && chosen < l.most/4; chosen *= 2 {
		every /= 2
	}
	l.every.Store(every)
}

// LooksForUser reports whether bodies of a trace that the user makes are to be looked at.
func (b *Buffer) LooksForUser(trace TraceID) bool {
	return b.choice.every.Load() != 0 && b.forUser.choose(&trace)
}

// Looks reports whether bodies of a call of a trace that Stile makes are to be looked at, as the process has chosen in which it begins.
func (b *Buffer) Looks(trace TraceID) bool {
	return trace.looked() && b.choice.every.Load() != 0 && b.looked.Add(1) <= maxLooks
}

// looked reports whether a trace is one that is looked at; look makes it one, or none. It is a bit of the ID, so it is known wherever that is.
func (t *TraceID) looked() bool { return t[0]&1 == 1 }

func (t *TraceID) look(is bool) {
	t[0] &^= 1
	if is {
		t[0] |= 1
	}
}
