package spans

import (
	"encoding/binary"
	"sync/atomic"
)

// maxLooks is how many of the calls that users trace are looked at in a window, about.
const maxLooks = 400

// looks chooses which of the traces that users make are looked at: by their IDs, one in a power of 2, so that processes choose the same ones, but for those that
// are busier than others.
type looks struct {
	every  atomic.Uint32 // 0: as 1
	chosen atomic.Uint32
}

// Looks reports whether bodies of a trace that the user makes are to be looked at.
func (b *Buffer) Looks(trace TraceID) bool {
	if b.choice.every.Load() == 0 {
		return false
	}
	l := &b.looks
	every := max(l.every.Load(), 1)
	if binary.BigEndian.Uint64(trace[8:])&uint64(every-1) != 0 {
		return false
	}
	if l.chosen.Add(1) == maxLooks { // what is left of the window is sparser, and so on
		l.every.Store(min(4*every, mostSparse))
		l.chosen.Store(maxLooks * 3 / 4)
	}
	return true
}

// next begins a window.
func (l *looks) next() {
	every, chosen := l.every.Load(), l.chosen.Swap(0)
	for ; every > 1 && chosen < maxLooks/4; chosen *= 2 {
		every /= 2
	}
	l.every.Store(every)
}
