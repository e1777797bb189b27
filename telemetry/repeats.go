package telemetry

import (
	"hash/maphash"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

// Repeats is how much of what was looked at a route had carried before, in the last minute or so. Not all calls of busy routes are looked at.
type Repeats struct {
	Calls            uint64 // looked at
	Same             uint64 // of them, those that asked what was asked before, and had the same answer
	Request          uint64 // bytes
	RequestRepeated  uint64
	Response         uint64
	ResponseRepeated uint64
}

func (r *Repeats) add(o *Repeats) {
	r.Calls, r.Same = r.Calls+o.Calls, r.Same+o.Same
	r.Request, r.RequestRepeated = r.Request+o.Request, r.RequestRepeated+o.RequestRepeated
	r.Response, r.ResponseRepeated = r.Response+o.Response, r.ResponseRepeated+o.ResponseRepeated
}

const (
	// sparseAfter is how many calls are looked at until the next Take; of those that come later one in sparse is.
	sparseAfter = 128
	sparse      = 16
	// How many bodies are remembered: those of a minute, about, or fewer. A line of them is one of the processor's cache, in which one print can be.
	firstLines  = 4
	maxLines    = 512
	ofLine      = 8
	memoryOf    = time.Minute
	wholePrints = 64 << 10 // longer bodies are known by their length, beginning and end
)

// Print stands for a body. 0 is none.
type Print uint64

var printSeed = maphash.MakeSeed()

// PrintOf returns the print of a body. Those of other processes are others.
func PrintOf(body []byte) Print {
	if len(body) <= wholePrints {
		return Print(maphash.Bytes(printSeed, body) | 1)
	}
	var h maphash.Hash
	h.SetSeed(printSeed)
	_, _ = h.Write(body[:wholePrints/2]) // never fails
	_, _ = h.Write(body[len(body)-wholePrints/2:])
	maphash.WriteComparable(&h, len(body))
	return Print(h.Sum64() | 1)
}

// prints is which bodies a route has carried.
type prints struct {
	sparse atomic.Bool // enough were looked at until the next Take

	mu    sync.Mutex
	seen  [][ofLine]Print // a power of two of lines, in each about the oldest print first, and 0 where there is none
	held  int
	since time.Duration // on this package's clock: when seen was empty
	sums  Repeats
}

// Looks reports whether the n-th call of one that counts its own is to be looked at: [Route.Look] wants its bodies' prints then. Which do is mixed, since one who counts may make calls by turns.
func (r *Route) Looks(n uint32) bool { return !r.prints.sparse.Load() || n*0x9e3779b1 < 1<<32/sparse }

// Look counts the bodies of a call.
func (r *Route) Look(request, response Print, requestBytes, responseBytes int) {
	p := &r.prints
	p.mu.Lock()
	defer p.mu.Unlock()
	p.room()
	s := &p.sums
	s.Calls++
	s.Request += uint64(requestBytes)
	s.Response += uint64(responseBytes)
	if p.again(request) {
		s.RequestRepeated += uint64(requestBytes)
	}
	if p.again(response ^ 1<<63) { // what is asked is no answer
		s.ResponseRepeated += uint64(responseBytes)
	}
	if p.again(request ^ Print(bits.RotateLeft64(uint64(response), 32)) | 1) {
		s.Same++
	}
	if s.Calls >= sparseAfter {
		p.sparse.Store(true)
	}
}

// room has lines for the prints of a call, and forgets those of long ago.
func (p *prints) room() {
	now := Now()
	switch {
	case p.seen == nil:
		p.seen, p.since = make([][ofLine]Print, firstLines), now
	case now-p.since > memoryOf:
		clear(p.seen)
		p.held, p.since = 0, now
	case p.held > len(p.seen)*ofLine/2 && len(p.seen) < maxLines:
		old := p.seen
		p.seen, p.held = make([][ofLine]Print, 2*len(old)), 0
		for _, line := range old {
			for _, one := range line {
				if one != 0 {
					p.again(one)
				}
			}
		}
	}
}

// again reports whether a print is remembered, and remembers it; in a full line instead of the oldest, about.
func (p *prints) again(one Print) bool {
	line := &p.seen[uint64(one)>>1&uint64(len(p.seen)-1)] // the lowest bit is that of all prints
	for i, have := range line {
		switch have {
		case one:
			if last := i + 1; last < ofLine && line[last] != 0 { // so what comes often stays
				line[i], line[last] = line[last], one
			}
			return true
		case 0:
			line[i] = one
			p.held++
			return false
		}
	}
	copy(line[:], line[1:])
	line[ofLine-1] = one
	return false
}

// take returns what was counted since it was called last.
func (p *prints) take() Repeats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.sums
	p.sums = Repeats{}
	p.sparse.Store(false)
	return s
}
