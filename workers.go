package stile

import "sync"

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
		s.serve()
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
