package demo

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// runFor runs l in virtual time and returns its window when all is answered.
func runFor(t *testing.T, l *load, d time.Duration, send request) *window {
	t.Helper()
	l.sleep = time.Sleep
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	w := newWindow(send)
	l.enter(w)
	l.run(ctx)
	<-w.idle
	return w
}

// near allows for the width of a histogram's bucket.
func near(got, want time.Duration) bool { return got >= want-want/50 && got <= want+want/50 }

func TestLoadKeepsItsTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var mu sync.Mutex
		var at []time.Duration
		w := runFor(t, &load{rate: 100, inFlight: 10}, 995*time.Millisecond, func(_ context.Context, n int64) error {
			mu.Lock()
			at = append(at, time.Since(start)-time.Duration(n)*10*time.Millisecond)
			mu.Unlock()
			time.Sleep(35 * time.Millisecond)
			return nil
		})
		if done, failed := w.counts(); done != 100 || failed != 0 || len(at) != 100 {
			t.Errorf("%d done, %d failed, %d sent, want 100", done, failed, len(at))
		}
		for n, late := range at {
			if late < 0 || late > time.Microsecond {
				t.Errorf("a request (the %dth to run) was sent %v from when it was due", n, late)
			}
		}
		if got := w.times.Quantile(1); !near(got, 35*time.Millisecond) {
			t.Errorf("slowest %v, want 35ms", got)
		}
	})
}

// TestStallShows has the server stop for a second of ten. A load that waited for
// each answer would see one slow request of 900; this one must see those that
// people would have made meanwhile.
func TestStallShows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		w := runFor(t, &load{rate: 100, inFlight: 1000}, 10*time.Second-time.Millisecond, func(context.Context, int64) error {
			if now := time.Since(start); now >= 5*time.Second && now < 6*time.Second {
				time.Sleep(6*time.Second - now)
			}
			time.Sleep(time.Millisecond)
			return nil
		})
		if done, failed := w.counts(); done != 1000 || failed != 0 {
			t.Errorf("%d done, %d failed, want 1000, 0", done, failed)
		}
		if got := w.times.Quantile(0.5); !near(got, time.Millisecond) {
			t.Errorf("p50 %v, want 1ms", got)
		}
		if got := w.times.Quantile(0.99); !near(got, 901*time.Millisecond) && !near(got, 911*time.Millisecond) {
			t.Errorf("p99 %v, want 0.9s: a tenth of the requests were due in the stall", got)
		}
	})
}

// TestLateSenderShows delays the generator itself: that, too, is counted from
// when the requests were due.
func TestLateSenderShows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &load{rate: 100, inFlight: 1000}
		l.sleep = time.Sleep
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		w := newWindow(func(context.Context, int64) error { return nil })
		l.enter(w)
		slept := 0
		l.sleep = func(d time.Duration) {
			if slept++; slept == 5 {
				d = 500 * time.Millisecond
			}
			time.Sleep(d)
		}
		l.run(ctx)
		if got := w.times.Quantile(0.99); got < 400*time.Millisecond {
			t.Errorf("p99 %v after a pause of 0.5s in sending", got)
		}
	})
}

func TestOverflowFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := runFor(t, &load{rate: 100, inFlight: 7}, 995*time.Millisecond, func(context.Context, int64) error {
			time.Sleep(time.Minute)
			return nil
		})
		done, failed := w.counts()
		if done != 7 || failed != 93 || w.overflow != 93 || !errors.Is(w.err, errOverflow) {
			t.Errorf("%d done, %d failed, %d of them by overflow (%v), want 7, 93, 93", done, failed, w.overflow, w.err)
		}
	})
}

func TestWindowsKeepTheirRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &load{rate: 100, inFlight: 100, sleep: time.Sleep}
		ctx, cancel := context.WithCancel(t.Context())
		var sent atomic.Int64
		slow := newWindow(func(context.Context, int64) error { sent.Add(1); time.Sleep(time.Second); return nil })
		bad := errors.New("bad")
		quick := newWindow(func(context.Context, int64) error { return bad })
		l.enter(slow)
		ended := make(chan struct{})
		go func() { l.run(ctx); close(ended) }()
		time.Sleep(95 * time.Millisecond)
		l.enter(quick)
		select {
		case <-slow.idle:
			t.Error("the window is idle with requests in flight")
		default:
		}
		time.Sleep(100 * time.Millisecond)
		cancel()
		<-ended
		<-slow.idle
		<-quick.idle
		if done, failed := slow.counts(); done != 10 || failed != 0 || sent.Load() != 10 {
			t.Errorf("first window: %d done, %d failed, want 10, 0", done, failed)
		}
		if done, failed := quick.counts(); done != 0 || failed != 10 || quick.err != bad {
			t.Errorf("second window: %d done, %d failed with %v, want 0, 10", done, failed, quick.err)
		}
	})
}

func TestTakeRecent(t *testing.T) {
	w := newWindow(nil)
	w.flying = 3
	w.end(answer{took: time.Second})
	if h := w.takeRecent(); h.Count != 1 {
		t.Errorf("%d", h.Count)
	}
	w.end(answer{took: time.Second})
	w.end(answer{took: time.Second, err: errOverflow})
	if h := w.takeRecent(); h.Count != 1 {
		t.Errorf("%d", h.Count)
	}
	if done, failed := w.counts(); done != 2 || failed != 1 {
		t.Errorf("%d done in all, %d failed", done, failed)
	}
}

func TestCapacity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rate, err := capacity(t.Context(), func(context.Context, int64) error {
			time.Sleep(10 * time.Millisecond)
			return nil
		}, 8, time.Second)
		if err != nil || rate < 799 || rate > 801 {
			t.Errorf("%v, %v, want 800", rate, err)
		}
		bad := errors.New("bad")
		if _, err := capacity(t.Context(), func(context.Context, int64) error { return bad }, 8, time.Second); !errors.Is(err, bad) {
			t.Errorf("%v, want %v", err, bad)
		}
	})
}
