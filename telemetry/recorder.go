package telemetry

import (
	"context"
	"sync"
	"sync/atomic"
)

// Recorder counts the calls of a process, by link and method, once it is enabled. Its methods are safe for concurrent use.
type Recorder struct {
	enabled atomic.Bool  // somebody takes, or sums up
	takes   atomic.Bool  // somebody takes
	closed  atomic.Int64 // links that are, since routes were emptied

	taking  sync.Mutex // held by what empties routes, Counted and Look; it guards what follows, and routes' open
	taken   [2]uint64  // calls that were, by side
	looks   uint64     // since Take
	totals  map[*Totals]struct{}
	untaken map[linkRoute]*Stats // for who takes: what totals have emptied routes of

	mu     sync.Mutex
	links  map[*Link]struct{}
	events events
	queues map[*func(context.Context) []Queue]struct{} // that tell of queues
}

// NewRecorder returns one that has counted nothing.
func NewRecorder() *Recorder { return &Recorder{links: map[*Link]struct{}{}} }

// Enable begins to count, what links that are made from now on carry: somebody is going to take it. Before it, nothing is counted, and nothing is held.
func (r *Recorder) Enable() {
	if r == nil {
		return
	}
	counting.Store(true)
	r.taking.Lock()
	defer r.taking.Unlock()
	if !r.takes.Load() {
		r.drain(false) // for totals alone
	}
	r.takes.Store(true)
	r.enabled.Store(true)
}

// Enabled reports whether it counts.
func (r *Recorder) Enabled() bool { return r != nil && r.enabled.Load() }

// Taken reports whether somebody is going to take what is counted, and not [Totals] alone.
func (r *Recorder) Taken() bool { return r != nil && r.takes.Load() }

// Disable ends that: nobody takes any more. Unless there are [Totals], it forgets all links.
func (r *Recorder) Disable() {
	r.taking.Lock()
	defer r.taking.Unlock()
	r.takes.Store(false)
	r.untaken = nil
	r.TakeEvents()
	r.rest()
}

// rest forgets all links, for ever, if nobody wants to know of them. The caller holds taking.
func (r *Recorder) rest() {
	if r.takes.Load() || len(r.totals) > 0 {
		return
	}
	r.enabled.Store(false)
	r.mu.Lock()
	defer r.mu.Unlock()
	for l := range r.links {
		l.closed.Store(true)
		l.over = true
	}
	r.links = map[*Link]struct{}{}
}

// Taken is what was counted on a route of a link since it was taken last.
type Taken struct {
	*Link
	RouteName
	*Stats
}

// linkRoute is a route of a link.
type linkRoute struct {
	*Link
	RouteName
}

// Take returns what was counted on each route that had calls, open ones, or decisions, since it was called last, and forgets links that are closed. One that takes is all there may be; [Totals] may be beside it, of
// which a route can be there twice.
func (r *Recorder) Take() []Taken {
	r.taking.Lock()
	defer r.taking.Unlock()
	all := r.drain(true)
	for of, s := range r.untaken {
		all = append(all, Taken{of.Link, of.RouteName, s})
	}
	r.untaken = nil
	return all
}

// drain empties all routes, of which it tells totals; of how many calls were open only for who takes. Links that are closed are forgotten once there was nothing, or if nobody takes, until something is counted on them. The caller holds taking.
func (r *Recorder) drain(take bool) []Taken {
	r.closed.Store(0)
	looks := r.looks
	if take {
		r.looks = 0
	}
	var all []Taken
	for _, l := range r.snapshot() {
		closed, first := l.closed.Load(), len(all)
		for name, route := range *l.routes.Load() {
			s := route.take()
			if take {
				s.Open = route.takeOpen(looks)
			}
			if s.Calls() > 0 || s.Decisions.Any() || s.Open.Sum > 0 {
				all = append(all, Taken{l, name, s})
				r.taken[l.Side] += s.Calls()
			}
		}
		l.share(all[first:])
		if alone := !r.takes.Load(); closed && (alone || take && len(all) == first) {
			r.forget(l)
		}
	}
	for t := range r.totals {
		t.add(all)
	}
	return all
}

// snapshot is the links that there are.
func (r *Recorder) snapshot() []*Link {
	r.mu.Lock()
	defer r.mu.Unlock()
	links := make([]*Link, 0, len(r.links))
	for l := range r.links {
		links = append(links, l)
	}
	return links
}

// Counted is how many calls were counted at clients and at servers since the recorder was made, and on how many routes it had to look for that. It takes nothing.
func (r *Recorder) Counted() (made, served uint64, routes int) {
	r.taking.Lock()
	defer r.taking.Unlock()
	sums := r.taken
	for _, l := range r.snapshot() {
		for _, route := range *l.routes.Load() {
			sums[l.Side] += route.counted()
			routes++
		}
	}
	return sums[Client], sums[Server], routes
}
