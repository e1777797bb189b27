package queue

import (
	"container/heap"
	"sync"
)

// agenda is what is due when: 16 bytes for each message. It is safe for concurrent use.
type agenda struct {
	sooner chan struct{} // has one when what is due first has changed

	mu   sync.Mutex
	all  appointments
	gone map[uint64]struct{} // that are still in all
}

// appointment is a message of a delay stream.
type appointment struct {
	at  int64 // ns since 1970
	seq uint64
}

// fewGone is how many that are gone are not worth looking for.
const fewGone = 1024

func newAgenda() *agenda {
	return &agenda{sooner: make(chan struct{}, 1), gone: map[uint64]struct{}{}}
}

func (a *agenda) add(e appointment) {
	a.mu.Lock()
	defer a.mu.Unlock()
	heap.Push(&a.all, e)
	if a.all[0] == e {
		select {
		case a.sooner <- struct{}{}:
		default:
		}
	}
}

// drop takes a message out.
func (a *agenda) drop(seq uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.gone[seq] = struct{}{}
	if len(a.gone) < fewGone || len(a.gone) < len(a.all)/2 {
		return
	}
	left := a.all[:0]
	for _, e := range a.all {
		if _, gone := a.gone[e.seq]; !gone {
			left = append(left, e)
		}
	}
	a.all = left
	heap.Init(&a.all)
	clear(a.gone)
}

// take takes what is due first out, if that is at now or before. Else at is when it will be; 0: there is nothing.
func (a *agenda) take(now int64) (seq uint64, at int64, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for len(a.all) > 0 {
		first := a.all[0]
		_, gone := a.gone[first.seq]
		if !gone && first.at > now {
			return 0, first.at, false
		}
		heap.Pop(&a.all)
		if !gone {
			return first.seq, 0, true
		}
		delete(a.gone, first.seq)
	}
	return 0, 0, false
}

func (a *agenda) len() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.all)
}

// appointments is a heap: the earliest first, and of one moment those that were stored first.
type appointments []appointment

func (h appointments) Len() int { return len(h) }
func (h appointments) Less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].seq < h[j].seq
}
func (h appointments) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *appointments) Push(e any)   { *h = append(*h, e.(appointment)) }
func (h *appointments) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	*h = (*h)[:last]
	return e
}
