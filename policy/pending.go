package policy

import (
	"container/heap"
	"sync"
	"time"
)

// pending are the calls of a route whose first hedge is not due yet. One timer serves them all, and it is
// left alone while one that is due sooner is armed: a call that is answered in time, as nearly
// all are, costs no timer of its own.
type pending struct {
	p *Policy

	mu    sync.Mutex
	calls soonest
	timer *time.Timer
	armed time.Duration // when timer fires; 0: it does not
}

// turn is a call's place in pending.
type turn struct {
	due   time.Duration
	index int   // in calls
	race  *race // set when the call's turn has come
}

// add begins the wait of a call that is hedged at due.
func (q *pending) add(k *call, due time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	k.turn.due = due
	heap.Push(&q.calls, k)
	if q.armed == 0 || due < q.armed {
		q.armLocked(due)
	}
}

// remove ends the wait, if the call's turn has not come.
func (q *pending) remove(k *call) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if k.turn.race == nil {
		heap.Remove(&q.calls, k.turn.index)
	}
}

func (q *pending) armLocked(due time.Duration) {
	q.armed = due
	if d := due - q.p.now(); q.timer == nil {
		q.timer = time.AfterFunc(d, q.fire)
	} else {
		q.timer.Reset(d)
	}
}

// fire begins the races that are due.
func (q *pending) fire() {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.p.now()
	for len(q.calls) > 0 && q.calls[0].turn.due <= now {
		k := heap.Pop(&q.calls).(*call)
		k.turn.race = newRace(k)
		k.turn.race.armed = true
		go k.turn.race.start()
	}
	q.armed = 0
	if len(q.calls) > 0 {
		q.armLocked(q.calls[0].turn.due)
	}
}

// soonest is a [heap.Interface].
type soonest []*call

func (s soonest) Len() int           { return len(s) }
func (s soonest) Less(i, j int) bool { return s[i].turn.due < s[j].turn.due }

func (s soonest) Swap(i, j int) {
	s[i], s[j] = s[j], s[i]
	s[i].turn.index, s[j].turn.index = i, j
}

func (s *soonest) Push(k any) {
	c := k.(*call)
	c.turn.index = len(*s)
	*s = append(*s, c)
}

func (s *soonest) Pop() any {
	old := *s
	n := len(old) - 1
	k := old[n]
	old[n] = nil
	*s = old[:n]
	return k
}
