package stile

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// maxIdleWorkers bounds the goroutines a server keeps warm.
const maxIdleWorkers = 256

// workers runs handlers on goroutines whose stacks have grown already. The last
// one to finish is the first to be used again. The zero value is ready.
type workers struct {
	mu     sync.Mutex
	idle   []*worker
	closed bool
}

type worker struct {
	next chan *serverStream // capacity 1; closed to end the goroutine

	// While it stands in a connection's slot:
	given *serverStream
	got   atomic.Bool // given is set
}

// run has s handled by a worker and returns at once.
func (w *workers) run(s *serverStream) {
	w.mu.Lock()
	if n := len(w.idle); n > 0 {
		k := w.idle[n-1]
		w.idle = w.idle[:n-1]
		w.mu.Unlock()
		k.next <- s
		return
	}
	w.mu.Unlock()
	k := &worker{next: make(chan *serverStream, 1)}
	k.next <- s
	go k.loop(w)
}

func (k *worker) loop(w *workers) {
	for s := range k.next {
		for s != nil {
			c := s.conn
			s.serve()
			s = c.nextCall(k)
		}
		w.mu.Lock()
		if w.closed || len(w.idle) >= maxIdleWorkers {
			w.mu.Unlock()
			return
		}
		w.idle = append(w.idle, k)
		w.mu.Unlock()
	}
}

// close ends the idle workers; busy ones end with their handler.
func (w *workers) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	for _, k := range w.idle {
		close(k.next)
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
	return len(c.streams) == 0
}
