package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/stile-ipc/stile/cmd/stile/internal/measure"
)

// window is what a stretch of calls took.
type window struct {
	elapsed time.Duration
	times   measure.Histogram
	used    *measure.Usage // of the processes known; nil where it cannot be read
}

// load is callers that each call again as soon as they have their reply, or, if
// pace is not 0, one call at the beginning of each such interval.
type load struct {
	conn    grpc.ClientConnInterface
	call    call
	callers int
	pace    time.Duration
	pids    []int
	reply   time.Duration // limit of one call
}

// errNoReply ends calls that take longer than they may.
var errNoReply = errors.New("a call did not end")

func noReply(limit time.Duration) error { return fmt.Errorf("%w within %s", errNoReply, limit) }

// within makes one call that may take that long.
func (c call) within(ctx context.Context, limit time.Duration, conn grpc.ClientConnInterface, opts ...grpc.CallOption) error {
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := c(ctx, conn, opts...)
	if err != nil && time.Since(start) >= limit { // the server may have noticed first
		return noReply(limit)
	}
	return err
}

// run calls for about length and fails with the first call that does.
func (l load) run(ctx context.Context, length time.Duration) (*window, error) {
	// A context without a deadline, and one timer for all calls: a timer a call would
	// cost more than a call.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer time.AfterFunc(length+l.reply, func() { cancel(noReply(l.reply)) }).Stop()

	before, usageErr := measure.UsageOf(l.pids)
	var failed atomic.Pointer[error]
	histograms := make([]measure.Histogram, l.callers)
	start := time.Now()
	var running sync.WaitGroup
	for i := range histograms {
		running.Go(func() {
			if err := l.caller(ctx, &histograms[i], start, length, &failed); err != nil {
				failed.CompareAndSwap(nil, &err)
			}
		})
	}
	running.Wait()
	w := &window{elapsed: time.Since(start)}
	if err := failed.Load(); err != nil {
		return nil, cmp.Or(context.Cause(ctx), *err)
	}
	if after, err := measure.UsageOf(l.pids); err == nil && usageErr == nil && len(l.pids) > 0 {
		used := after.Since(before)
		w.used = &used
	}
	for i := range histograms {
		w.times.Add(&histograms[i])
	}
	return w, nil
}

// caller makes at least one call.
func (l load) caller(ctx context.Context, times *measure.Histogram, start time.Time, length time.Duration, failed *atomic.Pointer[error]) error {
	last := time.Duration(0)
	for turn := l.pace; times.Count == 0 || last < length; turn += l.pace {
		if failed.Load() != nil {
			return nil
		}
		if l.pace > 0 {
			wait := turn - time.Since(start)
			if wait <= 0 && times.Count > 0 {
				last = time.Since(start)
				continue // a late reply took this turn
			}
			time.Sleep(wait)
			last = time.Since(start)
		}
		if err := l.call(ctx, l.conn); err != nil {
			return err
		}
		now := time.Since(start)
		times.Record(now - last)
		last = now
	}
	return nil
}
