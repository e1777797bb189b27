package telemetry

import (
	"math/bits"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Route counts the calls of a method on a link.
type Route struct {
	name    RouteName
	link    *Link
	decided atomic.Pointer[[]decided] // nil: nothing was
	stripes []stripe
	active  atomic.Uint32 // stripes that are used: a power of 2, more when two calls have met
	gone    atomic.Bool   // the link is forgotten, and comes back if something is counted
	prints  prints
	open    Open
}

// stripe is a part of a route's counts, in cache lines of its own.
type stripe struct {
	mu    sync.Mutex
	stats *Stats           // nil: empty
	calls *[callsHeld]Call // of which n are yet to be counted in stats; nil as stats is
	n     int
	_     [96]byte
}

// Name is the route's, which for methods that are not counted apart is not that by which it was asked for.
func (r *Route) Name() RouteName { return r.name }

// Side is which end of calls it counts.
func (r *Route) Side() Side { return r.link.Side }

// stripes is how many there are of a route: one for each thread, about.
func stripes() int {
	return min(1<<bits.Len(uint(runtime.GOMAXPROCS(0)-1)), maxStripes)
}

// callsHeld is how many calls are counted at once. To count one takes some twenty lines of cache, of which a process that has slept finds none: to hold it takes one or two.
const callsHeld = 16

// Call is one that has ended.
type Call struct {
	Begun    time.Duration // on the clock of [Now]; 0: it is not known
	Duration time.Duration // as this side sees it
	Waited   time.Duration // of it, at a client until its first frame could be written
	Queued   time.Duration // at its server, until its handler began, if that is known: see Far
	Handled  time.Duration // there, from then on
	Left     time.Duration // at a server, until its deadline when it arrived; 0: it has none
	Request  int           // bytes of messages as they were sent; negative: not known
	Response int
	Code     uint32 // of gRPC
	Far      bool   // Queued and Handled are known
}

// Record counts a call. hint says which stripe to count in: callers that run at once do well to have different ones. It waits for no other call, and allocates
// nothing once the route has seen like ones.
func (r *Route) Record(hint uint32, c *Call) {
	s := r.lock(hint)
	s.calls[s.n] = *c
	if s.n++; s.n == callsHeld {
		s.count()
	}
	s.mu.Unlock()
	r.back()
}

// count counts the calls that are held.
func (s *stripe) count() {
	for i := range s.n {
		s.stats.record(&s.calls[i])
	}
	s.n = 0
}

// lock locks a stripe that nobody has, if there is one.
func (r *Route) lock(hint uint32) *stripe {
	n := r.active.Load()
	s := &r.stripes[hint&(n-1)]
	if !s.mu.TryLock() {
		if n < uint32(len(r.stripes)) {
			r.active.CompareAndSwap(n, 2*n)
		}
		s = r.lockAny(hint)
	}
	if s.stats == nil {
		s.stats, s.calls = &Stats{}, &[callsHeld]Call{}
	}
	return s
}

func (r *Route) lockAny(hint uint32) *stripe {
	n := uint32(len(r.stripes))
	for i := range n {
		if s := &r.stripes[(hint+i)&(n-1)]; s.mu.TryLock() {
			return s
		}
	}
	s := &r.stripes[hint&(n-1)]
	s.mu.Lock()
	return s
}

// Message is one that was sent, or handled.
type Message struct {
	Duration time.Duration // until it was taken in; or of its handler
	Waited   time.Duration // of one that is handled, since it was taken in; negative: it is not known
	Bytes    int
	Code     uint32 // of gRPC
}

// RecordMessage counts a message, as Record does calls.
func (r *Route) RecordMessage(hint uint32, m *Message) {
	s := r.lock(hint)
	s.stats.record(&Call{Duration: m.Duration, Request: m.Bytes, Response: -1, Code: m.Code})
	if m.Waited >= 0 {
		s.stats.Gap.Record(int64(m.Waited))
	}
	s.mu.Unlock()
	r.back()
}

// counted is how many calls the route has, which nobody has taken. Each has a duration.
func (r *Route) counted() (n uint64) {
	for i := range r.stripes {
		s := &r.stripes[i]
		s.mu.Lock()
		if s.stats != nil {
			n += s.stats.Duration.Count() + uint64(s.n)
		}
		s.mu.Unlock()
	}
	return n
}

// take empties the route. What it had is merged while nobody waits; a stripe that had nothing gives up its room.
func (r *Route) take() *Stats {
	all := &Stats{Repeats: r.prints.take(), Decisions: r.takeDecisions()}
	for i := range r.stripes {
		s := &r.stripes[i]
		s.mu.Lock()
		s.count()
		had := s.stats
		switch {
		case had == nil:
		case had.Calls() == 0:
			s.stats, s.calls = nil, nil
		default:
			s.stats = &Stats{}
			s.stats.roomOf(had)
		}
		s.mu.Unlock()
		if had != nil {
			all.Merge(had)
		}
	}
	return all
}
