package hub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stile-ipc/stile/hub/internal/store"
	"github.com/stile-ipc/stile/routemap"
)

// sweepEvery is how long a trace has to be quiet, at least, to be complete; at most twice as long.
const sweepEvery = 5 * time.Second

// keeper makes maps of the traces that are complete, a window after the other, and has them kept.
type keeper struct {
	in     *intake
	agents *agents
	totals *totals
	store  windowStore
	clock  func() time.Time
	log    *slog.Logger
	cancel context.CancelFunc
	all    sync.WaitGroup

	windows chan window               // that are over: one, of which draw alone puts
	writing atomic.Pointer[time.Time] // since when; nil: nothing is being written
	usage   atomic.Pointer[keptUsage] // of the store, after what was written last
	unkept  trouble
	stalled trouble // as the log was told
	untidy  trouble
}

// keptUsage is what the store has, if that could be read.
type keptUsage struct {
	store.Usage
	err error
}

// trouble is what is wrong now. It is safe for concurrent use.
type trouble struct {
	mu  sync.Mutex
	err error
}

// is says what is wrong, or that nothing is any more, and logs it once.
func (t *trouble) is(log *slog.Logger, what string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil && t.err == nil {
		log.Error(what, "error", err)
	}
	t.err = err
}

func (t *trouble) now() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

type window struct {
	windowTold
	start  time.Time
	m      *routemap.Map
	sample *sample
	queues []queueWindow
}

// queueWindow is what was said of queues in a window that began then.
type queueWindow struct {
	start  time.Time
	queues store.Queues
}

func (k *keeper) open() window {
	return window{start: k.clock().Truncate(store.Finest), m: routemap.New(), sample: newSample()}
}

// windowStore is what a keeper wants of a store.
type windowStore interface {
	PutQueues(ctx context.Context, start time.Time, q store.Queues) error
	PutEvents(ctx context.Context, all []store.Event) error
	PutLoads(ctx context.Context, all []store.Load) error
	PutRecords(ctx context.Context, all []store.Record) error
	PutPolicies(ctx context.Context, now time.Time, all []store.Policy) error
	Put(ctx context.Context, start time.Time, m *routemap.Map, t *store.Traces, reported store.Reported) error
	Tidy(ctx context.Context, now time.Time) (damaged int, err error)
	Usage(ctx context.Context) (store.Usage, error)
}

func newKeeper(in *intake, a *agents, all *totals, s windowStore, clock func() time.Time, log *slog.Logger) *keeper {
	ctx, cancel := context.WithCancel(context.Background())
	k := &keeper{in: in, agents: a, totals: all, store: s, clock: clock, log: log, cancel: cancel, windows: make(chan window, 1)}
	k.use()
	k.all.Go(func() { k.sweep(ctx) })
	k.all.Go(func() { a.watch(ctx) })
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
			k.stalled.is(k.log, "hub: the disk does not answer, and what is over is held in memory", k.stall())
		case <-ctx.Done():
			k.in.end()
			return
		}
	}
}

// draw puts traces on maps, a window after the other.
func (k *keeper) draw() {
	defer close(k.windows)
	for last := false; !last; {
		w := k.open()
		over := time.NewTimer(min(w.start.Add(store.Finest).Sub(k.clock()), store.Finest)) // the clock may go back
		var drawn bool
		drawn, last = k.fill(&w, over.C)
		over.Stop()
		k.over(w, drawn, last)
	}
}

// fill puts traces on the map of a window until it is over. It tells whether there were any, and whether there will be none any more.
func (k *keeper) fill(w *window, over <-chan time.Time) (drawn, last bool) {
	for {
		traces, more := k.in.complete()
		if !more {
			return drawn, true
		}
		for _, spans := range traces {
			if t := routemap.NewTrace(spans); t.Len() > 0 { // notes alone are none
				w.m.Add(t)
				w.sample.add(t)
				drawn = true
			}
		}
		if len(traces) > 0 {
			k.in.look() // there may be more
		}
		select {
		case <-over:
			return drawn, false
		case <-k.in.ready:
		}
	}
}

// over ends a window, perhaps the last one. Of one in which nothing came there is nothing to keep.
func (k *keeper) over(w window, drawn, last bool) {
	w.windowTold = k.agents.draw(w.m, w.start, last)
	if q := k.agents.queues.window(); len(q) > 0 {
		w.queues = []queueWindow{{w.start, q}}
	}
	if measured := k.agents.measured.draw(w.m, k.agents, last); !measured && !drawn && !w.any && len(w.queues) == 0 {
		return
	}
	k.totals.add(w.m, w.start)
	k.hand(w)
}

// hand has a window written. While the disk does not keep up, those that wait become one, so that nobody waits for it.
func (k *keeper) hand(w window) {
	select {
	case waits := <-k.windows:
		k.agents.unkept(waits.then(&w))
		w = waits
	default:
	}
	k.windows <- w // there is room
}

// keep writes windows, and keeps the folder tidy. While it cannot, what is over becomes one longer window in memory, which is tried again and again, and when the
// hub is closed.
func (k *keeper) keep() {
	var unkept *window
	tidied := time.Time{}
	again := time.NewTicker(store.Finest)
	defer again.Stop()
	for more := true; more; {
		select {
		case w, ok := <-k.windows:
			switch more = ok; {
			case ok && unkept == nil:
				unkept = &w
			case ok:
				k.agents.unkept(unkept.then(&w))
			}
		case <-again.C:
		}
		began := k.clock()
		k.writing.Store(&began)
		if unkept != nil && k.put(unkept) {
			unkept = nil
		}
		if now := k.clock(); unkept == nil && (tidied.IsZero() || now.Before(tidied) || now.Sub(tidied) >= tidyEvery) {
			tidied = now
			k.tidy(now)
		}
		k.writing.Store(nil)
	}
	if unkept != nil {
		k.log.Error("hub: what could not be kept is lost", "since", unkept.start, "error", k.unkept.now())
	}
}

// use looks at what the store has.
func (k *keeper) use() {
	u, err := k.store.Usage(context.Background())
	k.usage.Store(&keptUsage{u, err})
}

// stalledAfter is how long the disk may take for what is over.
const stalledAfter = 3 * store.Finest

// errStalled: nothing was written for long, and the disk has not said that it cannot.
var errStalled = errors.New("the disk does not answer")

// stall tells if the disk does not answer, and since when.
func (k *keeper) stall() error {
	if began := k.writing.Load(); began != nil {
		if took := k.clock().Sub(*began); took > stalledAfter {
			return fmt.Errorf("%w: nothing was written for %s", errStalled, took.Round(time.Second))
		}
	}
	return nil
}

// noRoom is how much of a window there was no room for.
type noRoom struct{ events, samples, policies, records, queues uint64 }

// then goes on with a later window, as far as there is room for what it brings, and tells what is left out.
func (w *window) then(o *window) (left noRoom) {
	w.m.Merge(o.m)
	maps.Copy(w.reported, o.reported)
	w.sample.merge(o.sample)
	w.events = held(w.events, o.events, maxUnkeptEvents, func(e store.Event) int {
		return heldLeast + len(e.Service) + len(e.Host) + len(e.Kind) + len(e.Subject) + len(e.Detail) + len(e.Trace)
	}, func(store.Event) { left.events++ })
	w.loads = held(w.loads, o.loads, maxUnkeptLoads, func(l store.Load) int {
		n := heldLeast + len(l.Service) + len(l.Name) + 8*len(l.Took)
		for _, column := range l.Columns {
			n += 8 * len(column)
		}
		return n
	}, func(l store.Load) { left.samples += uint64(len(l.Took)) })
	w.policies = held(w.policies, o.policies, maxWindowPolicies, func(p store.Policy) int {
		return heldLeast + len(p.Source.Name) + len(p.Source.Service) + len(p.Version) + len(p.Text)
	}, func(store.Policy) { left.policies++ })
	w.records = held(w.records, o.records, maxUnkeptRecords, func(r store.Record) int {
		return heldLeast + len(r.Service) + len(r.Host) + len(r.Data)
	}, func(store.Record) { left.records++ })
	w.queues = held(w.queues, o.queues, maxUnkeptQueues, func(q queueWindow) int {
		n := heldLeast
		for k, s := range q.queues {
			n += heldLeast + len(k.Topic) + len(k.Group) + len(s.Where) + len(s.Host)
		}
		return n
	}, func(q queueWindow) { left.queues += uint64(len(q.queues)) })
	return left
}

// held appends as many of more as there is room for, in number and bytes, and calls left with each of the rest.
func held[T any](all, more []T, most int, size func(T) int, left func(T)) []T {
	bytes := 0
	for _, one := range all {
		bytes += size(one)
	}
	for i, one := range more {
		if bytes += size(one); len(all) >= most || bytes > maxUnkeptBytes {
			for _, one := range more[i:] {
				left(one)
			}
			break
		}
		all = append(all, one)
	}
	return all
}

// put keeps a window, and tells processes of it that they need not hold it any more.
func (k *keeper) put(w *window) bool {
	err := k.write(w)
	k.unkept.is(k.log, "hub: what is over cannot be kept now, and is held in memory", err)
	if err != nil {
		return false
	}
	k.agents.onDisk(w.reported)
	k.use()
	return true
}

// write writes a window. What is written does not come twice when the rest is tried again.
func (k *keeper) write(w *window) error {
	ctx := context.Background()
	if err := k.store.PutEvents(ctx, w.events); err != nil {
		return err
	}
	w.events = nil
	if err := k.store.PutLoads(ctx, w.loads); err != nil {
		return err
	}
	w.loads = nil
	if err := k.store.PutRecords(ctx, w.records); err != nil {
		return err
	}
	w.records = nil
	if err := k.store.PutPolicies(ctx, k.clock(), w.policies); err != nil {
		return err
	}
	w.policies = nil
	for len(w.queues) > 0 {
		if err := k.store.PutQueues(ctx, w.queues[0].start, w.queues[0].queues); err != nil {
			return err
		}
		w.queues = w.queues[1:]
	}
	shown := w.sample.traces(w.m)
	if err := k.store.Put(ctx, w.start, w.m, shown, w.reported); err != nil {
		return err
	}
	k.totals.show(shown, k.clock())
	return nil
}

// How many are held while the disk is full.
const (
	maxUnkeptEvents  = 10 * maxWindowEvents
	maxUnkeptLoads   = 2 * maxProcesses
	maxUnkeptRecords = 2 * maxProcesses
	maxUnkeptQueues  = 360      // windows
	maxUnkeptBytes   = 64 << 20 // of events, and as many of loads, records, policies and queues
	heldLeast        = 512      // bytes that one of these takes beside its texts and numbers
)

const tidyEvery = time.Minute

func (k *keeper) tidy(now time.Time) {
	damaged, err := k.store.Tidy(context.Background(), now)
	if damaged > 0 {
		k.log.Error("hub: windows are damaged, and left out of longer ones", "windows", damaged)
	}
	k.untidy.is(k.log, "hub: windows could not be made longer, or taken away", err)
	k.use()
}

// failing tells why what is over is not kept.
func (k *keeper) failing() error {
	if err := k.unkept.now(); err != nil {
		return err
	}
	return k.stall()
}

// close keeps what is known.
func (k *keeper) close() error {
	k.cancel()
	k.all.Wait()
	return k.failing()
}
