package telemetry

import (
	"hash/maphash"
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
	sparseAfter = 1024
	sparse      = 16
	// maxPrints is how many bodies are remembered, for memory of them, about: those of a minute, or fewer.
	maxPrints   = 4096
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
	seen  map[Print]struct{}
	since time.Duration // on this package's clock: when seen was empty
	sums  Repeats
}

// Looks reports whether the n-th call of one that counts its own is to be looked at: [Route.Look] wants its bodies' prints then.
func (r *Route) Looks(n uint32) bool { return !r.prints.sparse.Load() || n%sparse == 0 }

// Look counts the bodies of a call.
func (r *Route) Look(request, response Print, requestBytes, responseBytes int) {
	p := &r.prints
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := Now(); p.seen == nil || now-p.since > memoryOf || len(p.seen) >= maxPrints {
		p.seen, p.since = make(map[Print]struct{}), now
	}
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
	if p.again(request*31 + response) {
		s.Same++
	}
	if s.Calls >= sparseAfter {
		p.sparse.Store(true)
	}
}

func (p *prints) again(body Print) bool {
	_, again := p.seen[body]
	p.seen[body] = struct{}{}
	return again
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
