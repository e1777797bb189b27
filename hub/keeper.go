package hub

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/stile-ipc/stile/hub/internal/store"
	"github.com/stile-ipc/stile/routemap"
)

// sweepEvery is how long a trace has to be quiet, at least, to be complete; at most twice as long.
const sweepEvery = 5 * time.Second

// keeper makes maps of the traces that are complete, a window after the other, and has them kept.
type keeper struct {
	in     *intake
	store  windowStore
	clock  func() time.Time
	log    *slog.Logger
	cancel context.CancelFunc
	all    sync.WaitGroup

	windows chan window // that are over
	mu      sync.Mutex
	err     error // why what is over is not kept, or the folder not tidy
}

type window struct {
	start time.Time
	m     *routemap.Map
}

// windowStore is what a keeper wants of a store.
type windowStore interface {
	Put(ctx context.Context, start time.Time, m *routemap.Map) error
	Tidy(ctx context.Context, now time.Time) error
}

func newKeeper(in *intake, s windowStore, clock func() time.Time, log *slog.Logger) *keeper {
	ctx, cancel := context.WithCancel(context.Background())
	k := &keeper{in: in, store: s, clock: clock, log: log, cancel: cancel, windows: make(chan window, 1)}
	k.all.Go(func() { k.sweep(ctx) })
	k.all.Go(k.draw)
	k.all.Go(k.keep)
	return k
}

func (k *keeper) sweep(ctx context.Context) {
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			k.in.sweep()
		case <-ctx.Done():
			k.in.end()
			return
		}
	}
}

// draw puts traces on the map of the window that is open.
func (k *keeper) draw() {
	defer close(k.windows)
	open := window{k.clock().Truncate(store.Finest), routemap.New()}
	next := time.NewTimer(0)
	defer next.Stop()
	drawn := false
	for {
		next.Reset(min(open.start.Add(store.Finest).Sub(k.clock()), store.Finest)) // the clock may go back
		select {
		case t, more := <-k.in.traces:
			if !more {
				if drawn {
					k.windows <- open
				}
				return
			}
			open.m.Add(t)
			drawn = true
			continue
		case <-next.C:
		}
		if drawn { // of a window in which nothing came there is nothing to keep
			k.windows <- open // waits for the disk, and exporters wait in turn
		}
		open, drawn = window{k.clock().Truncate(store.Finest), routemap.New()}, false
	}
}

// keep writes windows, and keeps the folder tidy. While it cannot, what is over becomes one longer window in memory.
func (k *keeper) keep() {
	ctx := context.Background()
	var unkept *window
	tidied := time.Time{}
	for w := range k.windows {
		if unkept != nil {
			unkept.m.Merge(w.m)
			w = *unkept
		}
		if err := k.store.Put(ctx, w.start, w.m); err != nil {
			k.told("hub: what is over cannot be kept now, and is held in memory", err)
			unkept = &w
			continue
		}
		unkept = nil
		now := k.clock()
		if !tidied.IsZero() && now.After(tidied) && now.Sub(tidied) < tidyEvery {
			k.told("", nil)
			continue
		}
		tidied = now
		k.told("hub: windows could not be made longer, or taken away", k.store.Tidy(ctx, now))
	}
}

const tidyEvery = time.Minute

// told remembers what is wrong, or that nothing is any more, and logs it once.
func (k *keeper) told(what string, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err != nil && k.err == nil {
		k.log.Error(what, "error", err)
	}
	k.err = err
}

// failing tells what is wrong.
func (k *keeper) failing() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.err
}

// close keeps what is known.
func (k *keeper) close() error {
	k.cancel()
	k.all.Wait()
	return k.failing()
}
