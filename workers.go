package stile

import (
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxIdleWorkers bounds the goroutines a server keeps warm after a burst, and
	// keepIdleWorkers those that it keeps for good.
	maxIdleWorkers  = 256
	keepIdleWorkers = 8
	// shrinkAfter is how long a worker must not have been needed.
	shrinkAfter = 10 * time.Second
)

// job is what a worker does; it may have the worker do another one after it.
type job interface{ run(*worker) (next job) }

// workers runs handlers on goroutines whose stacks have grown already. The zero
// value is ready.
//
// Calls wait in one queue. A worker takes one after the other, so that a batch of
// short calls costs no switch of goroutines for each. Handlers may block, so a
// worker about to run one sees to it that a searching worker is left for the calls
// behind it: one that was woken, or has finished, and will look at the queue before
// it sleeps. While the queue holds a call some worker is searching.
type workers struct {
	mu        sync.Mutex
	queue     []job // from first on
	first     int
	idle      []*worker // asleep, the last to finish at the end
	searching int
	closed    bool
	spare     int         // how many were idle at least since the last look of shrink
	timer     *time.Timer // runs shrink; nil: there is nothing to shrink
}

type worker struct {
	wake chan struct{} // capacity 1, made by send; closed to end the goroutine

	// While it stands in a connection's slot:
	given *serverStream
	got   atomic.Bool // given is set
}

// run has j done by a worker and returns at once.
func (w *workers) run(j job) {
	w.mu.Lock()
	if len(w.queue) == cap(w.queue) && w.first > 0 {
		n := copy(w.queue, w.queue[w.first:])
		clear(w.queue[n:])
		w.queue, w.first = w.queue[:n], 0
	}
	w.queue = append(w.queue, j)
	k := w.searcherLocked()
	w.mu.Unlock()
	w.send(k)
}

// searcherLocked returns the worker to be sent searching, nil if one is.
func (w *workers) searcherLocked() *worker {
	if w.searching > 0 {
		return nil
	}
	w.searching++
	n := len(w.idle)
	if n == 0 {
		return &worker{}
	}
	k := w.idle[n-1]
	w.idle[n-1] = nil
	w.idle = w.idle[:n-1]
	w.spare = min(w.spare, n-1)
	return k
}

func (w *workers) send(k *worker) {
	switch {
	case k == nil:
	case k.wake == nil:
		k.wake = make(chan struct{}, 1)
		go k.loop(w)
	default:
		k.wake <- struct{}{}
	}
}

// loop is a worker's goroutine. It begins searching.
func (k *worker) loop(w *workers) {
	w.mu.Lock()
	for {
		for j := w.takeLocked(); j != nil; j = w.takeLocked() {
			var next *worker
			if w.first < len(w.queue) {
				next = w.searcherLocked()
			}
			w.mu.Unlock()
			w.send(next)
			for j != nil {
				j = j.run(k)
			}
			w.mu.Lock()
			w.searching++
		}
		w.searching--
		if w.closed || len(w.idle) >= maxIdleWorkers {
			w.mu.Unlock()
			return
		}
		w.idle = append(w.idle, k)
		if w.timer == nil && len(w.idle) > keepIdleWorkers {
			w.spare = len(w.idle)
			w.timer = time.AfterFunc(shrinkAfter, w.shrink)
		}
		w.mu.Unlock()
		if _, more := <-k.wake; !more {
			return
		}
		w.mu.Lock()
	}
}

// takeLocked takes the first call off the queue; its worker then does not search
// any more.
func (w *workers) takeLocked() job {
	if w.first == len(w.queue) {
		w.queue, w.first = w.queue[:0], 0
		return nil
	}
	j := w.queue[w.first]
	w.queue[w.first] = nil
	w.first++
	w.searching--
	return j
}

// shrink ends workers that were idle all the time since it looked last, those that
// have slept longest. It stops when few are left.
func (w *workers) shrink() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	n := max(min(w.spare, len(w.idle)-keepIdleWorkers), 0)
	for _, k := range w.idle[:n] {
		close(k.wake)
	}
	w.idle = slices.Delete(w.idle, 0, n)
	w.spare = len(w.idle)
	if w.spare > keepIdleWorkers {
		w.timer.Reset(shrinkAfter)
	} else {
		w.timer = nil
	}
}

// close ends the idle workers; busy ones end with their handler.
func (w *workers) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	if w.timer != nil {
		w.timer.Stop()
	}
	for _, k := range w.idle {
		close(k.wake)
	}
	w.idle = nil
}

// run implements [job].
func (s *serverStream) run(k *worker) job {
	c := s.cc.conn // s may serve another call once it is over
	s.serve()
	if next := c.nextCall(k); next != nil {
		return next
	}
	return nil
}

// nextCall lets the worker that has just served the connection's only call
// receive the next one itself, for as long as Poll finds that worth while: a
// client that makes one call after another then costs no switch of goroutines.
// It returns nil when there is none.
func (c *serverConn) nextCall(k *worker) *serverStream {
	k.got.Store(false) // before k stands in the slot, where a call may be given to it at once
	if !c.alone() || !c.slot.CompareAndSwap(nil, k) {
		return nil
	}
	c.conn.Poll(&k.got)
	if c.slot.CompareAndSwap(k, nil) {
		return nil
	}
	for !k.got.Load() { // somebody has taken k out of the slot and is giving it a call
		runtime.Gosched()
	}
	s := k.given
	k.given = nil
	return s
}

// dispatch hands a call to the worker that polls for it, or to any.
func (c *serverConn) dispatch(s *serverStream) {
	if k := c.slot.Swap(nil); k != nil {
		k.given = s
		k.got.Store(true)
		return
	}
	c.door.workers.run(s)
}

// alone reports whether no call of the connection is under way.
func (c *serverConn) alone() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.streams.size == 0
}
