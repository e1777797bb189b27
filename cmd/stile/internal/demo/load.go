package demo

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stile-ipc/stile/cmd/stile/internal/measure"
)

// request makes the n-th request of a load to one set of programs.
type request func(ctx context.Context, n int64) error

// load sends requests at times that are fixed in advance by its rate, however
// slow the answers are, and counts the time of each from when it was due. A
// server that stalls for a second so delays all that was due in that second, as
// it would delay people.
type load struct {
	rate     float64 // requests/s
	inFlight int     // at most; a request due beyond that has failed
	sleep    func(time.Duration)

	mu     sync.Mutex // before window.mu
	window *window    // where the next request goes; nil for nowhere

	slots atomic.Int64 // requests in flight
	next  atomic.Int64 // number of the next request
}

// window is a stretch of a load: the requests that were due between two calls of
// load.enter.
type window struct {
	send         request
	each         func(answer) // nil, or told of each request, one at a time
	begun, ended time.Time    // valid once the window is idle

	mu       sync.Mutex
	times    measure.Histogram // of the requests answered well
	recent   measure.Histogram // the same, since the last call of takeRecent
	failed   int64             // answered badly or not sent
	overflow int64             // of failed: not sent, because too many were in flight
	err      error             // of the first that failed
	flying   int
	closed   bool          // nothing more is sent
	idle     chan struct{} // closed when closed and nothing is in flight
}

// answer is the outcome of a request.
type answer struct {
	number int64 // of the request
	due    time.Time
	took   time.Duration // from when it was due
	err    error
}

func newWindow(send request) *window {
	return &window{send: send, idle: make(chan struct{})}
}

// enter sends what is due from now on to w, and ends the window before it. The
// requests in flight go on to be counted where they belong.
func (l *load) enter(w *window) {
	l.mu.Lock()
	old, now := l.window, time.Now()
	l.window = w
	if w != nil {
		w.begun = now
	}
	l.mu.Unlock()
	if old != nil {
		old.ended = now
		old.close()
	}
}

// run sends requests until ctx ends, then ends the window and returns when all
// have been answered.
func (l *load) run(ctx context.Context) {
	var sent sync.WaitGroup
	start := time.Now()
	for n := 0; ctx.Err() == nil; n++ {
		due := start.Add(time.Duration(float64(n) / l.rate * float64(time.Second)))
		if !l.await(ctx, due) {
			break
		}
		number := l.next.Add(1) - 1
		if w := l.begin(number, due); w != nil {
			sent.Go(func() {
				err := w.send(context.WithoutCancel(ctx), number)
				l.slots.Add(-1)
				w.end(answer{number, due, time.Since(due), err})
			})
		}
	}
	l.enter(nil)
	sent.Wait()
}

// await returns at due, or false when ctx has ended before. It looks at ctx every
// few milliseconds, for sleep does not.
func (l *load) await(ctx context.Context, due time.Time) bool {
	const slice = 20 * time.Millisecond
	for {
		left := time.Until(due)
		if left <= 0 {
			return true
		}
		l.sleep(min(left, slice))
		if ctx.Err() != nil {
			return false
		}
	}
}

// begin returns the window that a request belongs to, or nil if it cannot be sent.
func (l *load) begin(number int64, due time.Time) *window {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := l.window
	if w == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if l.slots.Load() >= int64(l.inFlight) {
		w.failed++
		w.overflow++
		if w.err == nil {
			w.err = errOverflow
		}
		w.tell(answer{number, due, 0, errOverflow})
		return nil
	}
	l.slots.Add(1)
	w.flying++
	return w
}

func (w *window) end(a answer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if a.err == nil {
		w.times.Record(a.took)
		w.recent.Record(a.took)
	} else {
		w.failed++
		if w.err == nil {
			w.err = a.err
		}
	}
	w.tell(a)
	w.flying--
	w.settleLocked()
}

func (w *window) tell(a answer) {
	if w.each != nil {
		w.each(a)
	}
}

func (w *window) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	w.settleLocked()
}

func (w *window) settleLocked() {
	if w.closed && w.flying == 0 {
		close(w.idle)
	}
}

// takeRecent returns the times of the requests answered since it was called last.
func (w *window) takeRecent() measure.Histogram {
	w.mu.Lock()
	defer w.mu.Unlock()
	h := w.recent
	w.recent = measure.Histogram{}
	return h
}

// counts returns how many requests were answered well, and how many failed.
func (w *window) counts() (done, failed int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.times.Count, w.failed
}

// capacity finds out how many requests/s send answers when some callers ask
// again and again, for about d.
func capacity(ctx context.Context, send request, callers int, d time.Duration) (float64, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next, done atomic.Int64
	var running sync.WaitGroup
	start := time.Now()
	for range callers {
		running.Go(func() {
			for time.Since(start) < d && ctx.Err() == nil {
				if err := send(ctx, next.Add(1)-1); err != nil {
					cancel(err)
					return
				}
				done.Add(1)
			}
		})
	}
	running.Wait()
	return float64(done.Load()) / time.Since(start).Seconds(), context.Cause(ctx)
}
