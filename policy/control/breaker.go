package control

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// BreakerConfig has resilience4j's words. Counts and durations that are too small count as the
// least that works: one call, one second of window, one nanosecond.
type BreakerConfig struct {
	TimeBased bool // the window counts seconds, else calls
	// Window is how many calls or seconds are looked at, 1e6 at most. Seconds are counted one
	// by one up to 1000, beyond that in thousandths of the window. The window takes a quarter
	// of a byte for each call or 24 for each second, 250 kB at most, from the beginning.
	Window        int
	MinCalls      int           // in the window before a rate is looked at; no more than a window of calls holds
	FailureRate   float64       // percent of failed calls that opens, when reached; 0: none does
	SlowCall      time.Duration // from when on a call is slow
	SlowRate      float64       // percent of slow calls that opens, when reached; 0: none does
	OpenFor       time.Duration // before calls are tried again
	HalfOpenCalls int           // calls that are tried
}

// State is what a breaker does with calls.
type State uint8

// The states of a breaker.
const (
	Closed   State = iota // calls are made
	Open                  // calls are refused
	HalfOpen              // some calls are tried, the others refused
)

func (s State) String() string {
	switch s {
	case Closed:
		return "closed"
	case Open:
		return "open"
	case HalfOpen:
		return "half-open"
	}
	return "unknown"
}

// Move is a change of state. The zero Move is none.
type Move struct{ From, To State }

// Happened reports whether the state changed.
func (m Move) Happened() bool { return m.From != m.To }

// Permit is a breaker's leave for one call. [Breaker.Done] or [Breaker.Forget] is due once for
// each. Both ignore the zero Permit, and permits of a phase that is over: a phase lasts until
// the state changes or the places of the half-open state are given out anew.
type Permit struct{ phase phase }

// phase is a state in its low bits, and above them a number that no other phase has.
type phase uint64

const stateBits = 2

func (p phase) state() State { return State(p & (1<<stateBits - 1)) }

func (p phase) next(s State) phase { return (p>>stateBits+1)<<stateBits | phase(s) }

// Breaker is a circuit breaker that behaves like resilience4j's:
//
//	Closed   → Open      a rate in the window is reached
//	Open     → HalfOpen  the first call after OpenFor
//	HalfOpen → Closed    HalfOpenCalls calls have ended, with both rates below the limits
//	HalfOpen → Open      they have ended, with a rate reached
//
// In the half-open state HalfOpenCalls calls are made and no more. If they have not all ended
// OpenFor after the last of them was permitted, their places are given out anew and their
// outcomes ignored. Outcomes count in the phase alone in which their calls were permitted.
//
// Times are since any one moment that the caller chooses. Callers on several goroutines may
// be a little out of order. All methods are safe for concurrent use and allocate nothing.
// Allow takes no lock while the breaker is closed, nor to refuse a call while it is open.
type Breaker struct {
	c      BreakerConfig
	now    atomic.Uint64 // phase; changed under mu
	opened atomic.Int64  // time.Duration; set before now becomes an open phase

	_ [64]byte // keeps what Done writes off the cache line that Allow reads

	mu     sync.Mutex
	window outcomes      // of the closed state
	tried  tally         // outcomes of this half-open phase
	given  int           // its places that are taken: calls under way, and outcomes
	last   time.Duration // when the last of them was taken
}

// NewBreaker returns a breaker that is closed.
func NewBreaker(c BreakerConfig) *Breaker {
	b := &Breaker{c: c}
	if c.TimeBased {
		b.window = newTimeWindow(c.Window)
	} else {
		w := newCallWindow(c.Window)
		b.c.MinCalls = min(c.MinCalls, w.size)
		b.window = w
	}
	b.c.FailureRate, b.c.SlowRate = limitOf(c.FailureRate), limitOf(c.SlowRate)
	b.c.OpenFor = max(c.OpenFor, 1)
	b.c.HalfOpenCalls = max(c.HalfOpenCalls, 1)
	b.now.Store(uint64(phase(0).next(Closed)))
	return b
}

func limitOf(percent float64) float64 {
	if percent > 0 {
		return percent
	}
	return math.Inf(1)
}

func (b *Breaker) phase() phase { return phase(b.now.Load()) }

// Allow asks for leave to make a call. It is what moves an open breaker on to half-open.
func (b *Breaker) Allow(now time.Duration) (p Permit, move Move, ok bool) {
	ph := b.phase()
	switch ph.state() {
	case Closed:
		return Permit{ph}, Move{}, true
	case Open:
		if b.opensIn(now) > 0 {
			return Permit{}, Move{}, false
		}
	}
	return b.try(now)
}

// opensIn is how long an open breaker refuses calls yet, 0 if it does not.
func (b *Breaker) opensIn(now time.Duration) time.Duration {
	passed := max(now-time.Duration(b.opened.Load()), 0)
	return max(b.c.OpenFor-passed, 0)
}

// try is Allow in the states that count calls.
func (b *Breaker) try(now time.Duration) (p Permit, move Move, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch b.phase().state() {
	case Closed:
		return Permit{b.phase()}, Move{}, true
	case Open:
		if b.opensIn(now) > 0 {
			return Permit{}, Move{}, false
		}
		move = b.moveLocked(HalfOpen)
	case HalfOpen:
		if b.given < b.c.HalfOpenCalls {
			break
		}
		if now-b.last < b.c.OpenFor {
			return Permit{}, Move{}, false
		}
		b.moveLocked(HalfOpen)
	}
	b.given++
	b.last = now
	return Permit{b.phase()}, move, true
}

// moveLocked begins a phase.
func (b *Breaker) moveLocked(to State) Move {
	ph := b.phase()
	b.tried, b.given = tally{}, 0
	if to == Closed {
		b.window.clear()
	}
	b.now.Store(uint64(ph.next(to)))
	return Move{ph.state(), to}
}

// Done tells how a call went that ends now and took so long.
func (b *Breaker) Done(p Permit, now, took time.Duration, failed bool) Move {
	if b.phase() != p.phase {
		return Move{}
	}
	var o outcome
	if failed {
		o = failedCall
	}
	if took >= b.c.SlowCall {
		o |= slowCall
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.phase() != p.phase {
		return Move{}
	}
	if p.phase.state() == HalfOpen {
		return b.triedLocked(now, o)
	}
	if t := b.window.add(now, o); t.calls >= b.c.MinCalls && b.reached(t) {
		return b.openLocked(now)
	}
	return Move{}
}

// triedLocked counts an outcome of the half-open state; the last one decides.
func (b *Breaker) triedLocked(now time.Duration, o outcome) Move {
	if b.tried.calls == b.given { // a permit was used twice
		return Move{}
	}
	b.tried.add(o)
	switch {
	case b.tried.calls < b.c.HalfOpenCalls:
		return Move{}
	case b.reached(b.tried):
		return b.openLocked(now)
	}
	return b.moveLocked(Closed)
}

func (b *Breaker) openLocked(now time.Duration) Move {
	b.opened.Store(int64(now))
	return b.moveLocked(Open)
}

// reached reports whether a rate is. The quotient is rounded as the percentage in the file
// was, so that 333 of 1000 calls reach 33.3.
func (b *Breaker) reached(t tally) bool {
	calls := float64(t.calls)
	return float64(t.failed*100)/calls >= b.c.FailureRate || float64(t.slow*100)/calls >= b.c.SlowRate
}

// Forget tells that a call had no outcome that says something of the peer, because it was
// cancelled by the caller or never sent. In the half-open state its place is free again.
func (b *Breaker) Forget(p Permit) {
	if p.phase.state() != HalfOpen || b.phase() != p.phase {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.phase() == p.phase && b.given > b.tried.calls {
		b.given--
	}
}

// State returns the state that Allow would find: half-open as soon as OpenFor has passed.
func (b *Breaker) State(now time.Duration) State {
	s := b.phase().state()
	if s == Open && b.opensIn(now) == 0 {
		return HalfOpen
	}
	return s
}

// RetryAfter returns how long it is until calls are tried again, 0 if the breaker is not open.
func (b *Breaker) RetryAfter(now time.Duration) time.Duration {
	if b.phase().state() != Open {
		return 0
	}
	return b.opensIn(now)
}
