package stile

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// maxIdleWorkers bounds the goroutines a server keeps warm.
const maxIdleWorkers = 256

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
	queue     []*serverStream // from first on
	first     int
	idle      []*worker // asleep, the last to finish at the end
	searching int
	closed    bool
}

type worker struct {
	wake chan struct{} // capacity 1, made by send; closed to end the goroutine

	// While it stands in a connection's slot:
	given *serverStream
	got   atomic.Bool // given is set
}

// run has s handled by a worker and returns at once.
func (w *workers) run(s *serverStream) {
	w.mu.Lock()
	if len(w.queue) == cap(w.queue) && w.first > 0 {
		n := copy(w.queue, w.queue[w.first:])
		clear(w.queue[n:])
		w.queue, w.first = w.queue[:n], 0
	}
	w.queue = append(w.queue, s)
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
		for s := w.takeLocked(); s != nil; s = w.takeLocked() {
			var next *worker
			if w.first < len(w.queue) {
				next = w.searcherLocked()
			}
			w.mu.Unlock()
			w.send(next)
			for s != nil {
				c := s.cc.conn
				s.serve()
				s = c.nextCall(k)
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
		w.mu.Unlock()
		if _, more := <-k.wake; !more {
			return
		}
		w.mu.Lock()
	}
}

// takeLocked takes the first call off the queue; its worker then does not search
// any more.
func (w *workers) takeLocked() *serverStream {
	if w.first == len(w.queue) {
		w.queue, w.first = w.queue[:0], 0
		return nil
	}
	s := w.queue[w.first]
	w.queue[w.first] = nil
	w.first++
	w.searching--
	return s
}

// close ends the idle workers; busy ones end with their handler.
func (w *workers) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	for _, k := range w.idle {
		close(k.wake)
	}
	w.idle = nil
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
