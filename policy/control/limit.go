package control

import (
	"fmt"
	"sync"
	"time"
)

const (
	// estimateFrom is how many calls must have ended before their mean time tells
	// whether a deadline can be met.
	estimateFrom = 10
	// estimateOver is how many of the latest calls that mean stands for.
	estimateOver = 32
)

// LimitConfig says how many calls run at once and how many wait.
type LimitConfig struct {
	Max      int  // calls at once; the ceiling if Adaptive; at least 1
	Min      int  // the floor if Adaptive; at least 1 and at most Max
	Pending  int  // calls that may wait; 0: none
	Adaptive bool // the limit follows the latency, between Min and Max
}

// Verdict is what a Limit says of a call. The zero Verdict is none.
type Verdict uint8

const (
	Admitted Verdict = iota + 1 // it has a place, and must give it back
	Queued                      // it waits: the verdict comes later
	Refused                     // no place, and none to wait
	Evicted                     // it waited, and made room for a call of higher rank
	Hopeless                    // it would not be served before its deadline
)

// String returns the verdict in lower case.
func (v Verdict) String() string {
	switch v {
	case Admitted:
		return "admitted"
	case Queued:
		return "queued"
	case Refused:
		return "refused"
	case Evicted:
		return "evicted"
	case Hopeless:
		return "hopeless"
	}
	return fmt.Sprintf("verdict %d", uint8(v))
}

// Waiter is a call that waits for a place. It belongs to the caller and must not be
// copied. It may be used again, with any Limit, once its wait has ended: Leave has
// returned true or the verdict has been read from C.
type Waiter struct {
	C chan Verdict // capacity 1; only the Limit sends

	_        [0]sync.Mutex // go vet finds copies
	rank     int
	deadline time.Duration
	arrival  uint64
	at       int // its index in the queue; -1: it does not wait. Under the Limit's lock
}

// NewWaiter returns a Waiter that does not wait yet.
func NewWaiter() *Waiter { return &Waiter{C: make(chan Verdict, 1), at: -1} }

// before reports whether w is served before o.
func (w *Waiter) before(o *Waiter) bool {
	switch {
	case w.rank != o.rank:
		return w.rank > o.rank
	case w.deadline == o.deadline:
		return w.arrival < o.arrival
	case w.deadline == 0 || o.deadline == 0:
		return o.deadline == 0
	}
	return w.deadline < o.deadline
}

func (w *Waiter) expired(now time.Duration) bool { return w.deadline != 0 && w.deadline <= now }

// Limit bounds the calls that run at once. Those that find no place wait in a bounded
// queue: higher rank first, then the earlier deadline (none last), then arrival.
//
// Times are since an epoch of the caller's, the same in all calls. A Limit has no
// clock, no timer and no goroutine: a place that comes free is given on by the call of
// Done or Forget that frees it, and a waiter whose deadline passes is told so when its
// turn comes; whoever waits no longer calls Leave. All methods are safe for concurrent
// use and none blocks.
type Limit struct {
	mu       sync.Mutex
	limit    int
	inFlight int
	pending  int // how many may wait
	queue    waitQueue
	arrivals uint64
	samples  int     // calls that mean stands for, at most estimateOver
	mean     float64 // how long a call keeps its place, ns; exponentially weighted
	adapt    *adaptation
}

// NewLimit returns a Limit for c. Values out of range become the nearest that are not.
func NewLimit(c LimitConfig, start time.Duration) *Limit {
	l := &Limit{limit: max(c.Max, 1), pending: max(c.Pending, 0)}
	if c.Adaptive {
		l.adapt = newAdaptation(min(max(c.Min, 1), l.limit), l.limit, start)
	}
	return l
}

// Admit asks for a place. A higher rank is served first. deadline is when the call is no
// longer of use; 0: never.
//
// Admitted: Done or Forget is due. Queued: w.C will receive exactly one of Admitted,
// Evicted and Hopeless, unless Leave succeeds first. Otherwise the call has ended and w
// is as before. w may be nil: the call then does not wait, and is Refused when there is
// no place. Admit panics if w is still in use.
func (l *Limit) Admit(now, deadline time.Duration, rank int, w *Waiter) Verdict {
	if deadline != 0 && deadline <= now {
		return Hopeless
	}
	l.mu.Lock()
	if l.inFlight < l.limit && len(l.queue.heap) == 0 {
		l.inFlight++
		l.mu.Unlock()
		return Admitted
	}
	defer l.mu.Unlock()
	if w == nil || l.pending == 0 {
		return Refused
	}
	if w.at >= 0 || len(w.C) > 0 {
		panic("control: Admit with a Waiter that is in use")
	}
	w.rank, w.deadline, w.arrival = rank, deadline, l.arrivals
	l.arrivals++
	if l.hopelessLocked(now, w) {
		return Hopeless
	}
	if len(l.queue.heap) >= l.pending {
		last := l.queue.last()
		if rank <= last.rank {
			return Refused
		}
		l.queue.remove(last)
		last.C <- Evicted
	}
	l.queue.push(w)
	return Queued
}

// Full reports whether Admit would say no just now, with a Waiter or without: there is no place, and no
// room to wait or no hope before deadline. It changes nothing.
func (l *Limit) Full(now, deadline time.Duration, rank int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.inFlight < l.limit && len(l.queue.heap) == 0 {
		return false
	}
	w := Waiter{rank: rank, deadline: deadline, arrival: l.arrivals}
	return l.pending == 0 || l.hopelessLocked(now, &w) || len(l.queue.heap) >= l.pending && rank <= l.queue.last().rank
}

// hopelessLocked estimates whether w would wait until its deadline: each of the waiters
// before it, and w itself, takes the next place that comes free, and limit of these come
// free in the mean time that a call keeps one. Waiters that have expired take none.
func (l *Limit) hopelessLocked(now time.Duration, w *Waiter) bool {
	if w.deadline == 0 || l.samples < estimateFrom {
		return false
	}
	// So many places come free before the deadline.
	free := (float64(w.deadline) - float64(now)) * float64(l.limit) / l.mean
	if free > float64(len(l.queue.heap)+1) {
		return false
	}
	return float64(l.queue.ahead(w, now, 0, int(free))+1) >= free
}

// Leave takes a waiter out of the queue, in time logarithmic in its length. False: w
// does not wait any more. If it did, its verdict is in C and must be read; if that is
// Admitted, Done or Forget is due.
func (l *Limit) Leave(w *Waiter) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if w.at < 0 {
		return false
	}
	l.queue.remove(w)
	return true
}

// Done frees the place of an admitted call that took so long, learns from it, and gives
// the place on. overloaded: the call's outcome says that the server has too much to do,
// such as RESOURCE_EXHAUSTED or a deadline exceeded.
func (l *Limit) Done(now, took time.Duration, overloaded bool) {
	l.mu.Lock()
	took = max(took, 0)
	if l.samples < estimateOver {
		l.samples++
		l.mean += (float64(took) - l.mean) / float64(l.samples)
	} else {
		l.mean += (float64(took) - l.mean) * (1.0 / estimateOver)
	}
	if l.adapt != nil {
		l.limit = l.adapt.done(now, took, overloaded, l.inFlight)
	}
	l.freeLocked(now)
}

// Forget frees the place of an admitted call without learning from it, and gives the
// place on.
func (l *Limit) Forget(now time.Duration) {
	l.mu.Lock()
	l.freeLocked(now)
}

// freeLocked takes a place back, serves those who wait, and unlocks.
func (l *Limit) freeLocked(now time.Duration) {
	l.inFlight--
	if len(l.queue.heap) > 0 {
		l.serveLocked(now)
	}
	wrong := l.inFlight < 0
	l.mu.Unlock()
	if wrong {
		panic("control: more places freed than given")
	}
}

func (l *Limit) serveLocked(now time.Duration) {
	for l.inFlight < l.limit && len(l.queue.heap) > 0 {
		w := l.queue.heap[0]
		l.queue.remove(w)
		if w.expired(now) {
			w.C <- Hopeless
			continue
		}
		l.inFlight++
		w.C <- Admitted
	}
}

// Stats returns how many calls may run now, how many do, and how many wait. inFlight
// exceeds limit for a while after an adaptive limit has shrunk.
func (l *Limit) Stats() (limit, inFlight, pending int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.limit, l.inFlight, len(l.queue.heap)
}

// waitQueue is a binary heap, the first to be served at its root. Each waiter knows its
// index.
type waitQueue struct {
	heap  []*Waiter
	worst *Waiter // the last to be served; nil: to be searched for
}

func (q *waitQueue) push(w *Waiter) {
	if len(q.heap) == 0 || q.worst != nil && q.worst.before(w) {
		q.worst = w
	}
	q.heap = append(q.heap, w)
	w.at = len(q.heap) - 1
	q.up(w.at)
}

func (q *waitQueue) remove(w *Waiter) {
	if q.worst == w {
		q.worst = nil
	}
	i, n := w.at, len(q.heap)-1
	q.swap(i, n)
	q.heap[n] = nil
	q.heap = q.heap[:n]
	w.at = -1
	if i < n {
		q.down(i)
		q.up(i)
	}
}

// last returns the last to be served. It looks at all leaves if the one it returned
// before has gone: a queue is a few thousand long at most, and only an arrival that
// finds it full asks. The queue must not be empty.
func (q *waitQueue) last() *Waiter {
	if q.worst == nil {
		for _, w := range q.heap[len(q.heap)/2:] {
			if q.worst == nil || q.worst.before(w) {
				q.worst = w
			}
		}
	}
	return q.worst
}

// ahead counts the waiters in the subtree at i that are served before w and have not
// expired. It stops soon after enough.
func (q *waitQueue) ahead(w *Waiter, now time.Duration, i, enough int) int {
	if i >= len(q.heap) || !q.heap[i].before(w) {
		return 0 // nor is any below it
	}
	n := 0
	if !q.heap[i].expired(now) {
		n = 1
	}
	for c := 2*i + 1; c <= 2*i+2 && n < enough; c++ {
		n += q.ahead(w, now, c, enough-n)
	}
	return n
}

func (q *waitQueue) up(i int) {
	for i > 0 && q.heap[i].before(q.heap[(i-1)/2]) {
		q.swap(i, (i-1)/2)
		i = (i - 1) / 2
	}
}

func (q *waitQueue) down(i int) {
	for {
		c := 2*i + 1
		if c >= len(q.heap) {
			return
		}
		if c+1 < len(q.heap) && q.heap[c+1].before(q.heap[c]) {
			c++
		}
		if !q.heap[c].before(q.heap[i]) {
			return
		}
		q.swap(i, c)
		i = c
	}
}

func (q *waitQueue) swap(i, k int) {
	q.heap[i], q.heap[k] = q.heap[k], q.heap[i]
	q.heap[i].at, q.heap[k].at = i, k
}
