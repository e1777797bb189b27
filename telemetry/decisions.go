package telemetry

import (
	"math/rand/v2"
	"sync/atomic"
)

// Decision is what a policy, or a deadline, decided of a call.
type Decision uint8

// The decisions.
const (
	Retry          Decision = iota // an attempt after the first
	Hedge                          // an attempt beside one under way
	BreakerRefused                 // not sent: the breaker was open
	LimitRefused                   // not sent: no place under the limit
	BudgetRefused                  // no retry or hedge: too many were made
	AdmissionShed                  // by the server, before its handler began
	CacheHit                       // answered from the cache, which makes no call
	Coalesced                      // answered by an equal call
	FallbackServed                 // an old answer stood in
	Late                           // the deadline had passed before it was sent, or when it arrived
	decisionCount
)

// String is how maps and metrics call it.
func (d Decision) String() string {
	return [decisionCount]string{"retries", "hedges", "breaker", "limit", "budget", "admission", "cache_hits", "coalesced", "fallbacks", "late"}[d]
}

// Decisions are how many there were of each.
type Decisions [decisionCount]uint64

// Any reports whether there were some.
func (d *Decisions) Any() bool { return *d != Decisions{} }

func (d *Decisions) add(o *Decisions) {
	for i, n := range o {
		d[i] += n
	}
}

// decided counts decisions, in cache lines of its own.
type decided struct {
	counts [decisionCount]atomic.Uint64
	_      [128 - 8*decisionCount]byte
}

// Decide counts a decision. It waits for nobody, and counts also what belongs to a link that is closed.
func (r *Route) Decide(d Decision) { r.decide(d, 1) }

func (r *Route) decide(d Decision, n uint64) {
	r.decisions()[int(rand.Uint32())&(len(r.stripes)-1)].counts[d].Add(n)
	r.back()
}

// decisions is where they are counted, which routes without any have no room for.
func (r *Route) decisions() []decided {
	if at := r.decided.Load(); at != nil {
		return *at
	}
	fresh := make([]decided, len(r.stripes))
	r.decided.CompareAndSwap(nil, &fresh)
	return *r.decided.Load()
}

// takeDecisions empties what Decide has counted.
func (r *Route) takeDecisions() (all Decisions) {
	if at := r.decided.Load(); at != nil {
		for i := range *at {
			(*at)[i].take(&all)
		}
	}
	return all
}

func (c *decided) take(to *Decisions) {
	for d := range to {
		if c.counts[d].Load() > 0 {
			to[d] += c.counts[d].Swap(0)
		}
	}
}

func anyOf(all []decided) bool {
	for i := range all {
		for d := range all[i].counts {
			if all[i].counts[d].Load() > 0 {
				return true
			}
		}
	}
	return false
}

// Tally counts the decisions about calls to a method of a target, on the way that these go now. What is decided before the first has gone any way is
// counted with it. The zero value is one.
type Tally struct {
	route atomic.Pointer[Route]
	early decided
}

// Goes tells the way that a call goes. It costs nothing while all go the same.
func (t *Tally) Goes(r *Route) {
	was := t.route.Load()
	if was == r || was != nil && was.link.Transport == r.link.Transport && !was.link.closed.Load() {
		return // of several connections to the same target any will do
	}
	if t.route.Store(r); was == nil {
		t.settle(r)
	}
}

// settle counts what was decided early.
func (t *Tally) settle(r *Route) {
	var early Decisions
	t.early.take(&early)
	for d, n := range early {
		if n > 0 {
			r.decide(Decision(d), n)
		}
	}
}

// counting is set once a recorder was enabled.
var counting atomic.Bool

// Count counts a decision, if this process counts.
func (t *Tally) Count(d Decision) {
	if r := t.route.Load(); r != nil {
		r.decide(d, 1)
		return
	}
	if !counting.Load() {
		return
	}
	t.early.counts[d].Add(1)
	if r := t.route.Load(); r != nil { // which was told meanwhile
		t.settle(r)
	}
}
