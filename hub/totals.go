package hub

import (
	"maps"
	"sync"
	"time"

	"github.com/stile-ipc/stile/routemap"
)

// totals is what was on the maps of all windows since the hub was opened, of routes that were called of late. Its methods are safe for concurrent use.
type totals struct {
	mu        sync.Mutex
	routes    map[routemap.Key]*total
	exemplars map[exemplarOf]exemplar
	gone      uint64            // routes that were let go
	together  uint64            // calls of those for which there was no room
	folded    map[string]uint64 // by maps of windows, see [routemap.Report]
}

// total is a route's. It counts from 0 again if the route was let go meanwhile.
type total struct {
	routemap.Stats
	since time.Time // when the window began in which it was counted first
	seen  time.Time // and last
}

// Bounds of totals.
const (
	maxTotals   = 20_000           // routes that are told apart; others are one
	totalsFor   = 24 * time.Hour   // without a call a route is kept: what is called each day has no end
	totalsLeast = 10 * time.Minute // and where there is no room: longer than those who scrape wait
)

var otherRoutes = routemap.Key{From: routemap.Node{Kind: routemap.Service, Name: "other"}, To: routemap.Node{Kind: routemap.Service, Name: "other"}, Operation: "other", Mode: routemap.Sync}

// add takes in the map of a window that is over, which began at start.
func (t *totals) add(m *routemap.Map, start time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.routes == nil {
		t.routes, t.folded = map[routemap.Key]*total{}, map[string]uint64{}
	}
	for what, n := range m.Folded() {
		t.folded[what] += n
	}
	t.letGoLocked(start.Add(-totalsFor))
	made := false // room
	m.Each(func(k routemap.Key, s *routemap.Stats) {
		if t.routes[k] == nil && len(t.routes) >= maxTotals {
			if !made {
				t.letGoLocked(start.Add(-totalsLeast))
				made = true
			}
			if len(t.routes) >= maxTotals {
				k = otherRoutes
				t.together += s.Calls
			}
		}
		of := t.routes[k]
		if of == nil {
			of = &total{since: start}
			t.routes[k] = of
		}
		of.seen = start
		// What is sampled, or evidence, is of no use in a sum.
		of.Merge(&routemap.Stats{
			Calls: s.Calls, Errors: s.Errors, Retries: s.Retries, Client: s.Client, Server: s.Server, Waits: s.Waits, Switches: s.Switches, Wakes: s.Wakes, Spin: s.Spin, RunQueue: s.RunQueue,
			Request: s.Request, Response: s.Response, Decisions: s.Decisions, Sources: s.Sources,
		})
	})
}

// letGoLocked forgets routes that were not counted since a moment, and their exemplars.
func (t *totals) letGoLocked(since time.Time) {
	ids := map[string]bool{}
	for k, of := range t.routes {
		if of.seen.Before(since) {
			delete(t.routes, k)
			ids[k.ID()] = true
		}
	}
	t.gone += uint64(len(ids))
	if len(ids) > 0 {
		maps.DeleteFunc(t.exemplars, func(of exemplarOf, _ exemplar) bool { return ids[of.route] })
	}
}

// each calls f with each route. What it is given must not be kept.
func (t *totals) each(f func(routemap.Key, *total)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for k, of := range t.routes {
		f(k, of)
	}
}

// Totals tells of the routes that /metrics has.
type Totals struct {
	Routes   int    `json:"routes"`
	Most     int    `json:"most"`     // that are told apart
	Gone     uint64 `json:"gone"`     // that were let go since the hub was opened, as nobody called them for a day, or for 10 minutes where there was no room
	Together uint64 `json:"together"` // calls since then of routes for which there was no room: they are those of one, other
}

// status tells, besides, what maps of windows had no room for since the hub was opened.
func (t *totals) status() (_ Totals, folded map[string]uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return Totals{len(t.routes), maxTotals, t.gone, t.together}, maps.Clone(t.folded)
}

// keys are those of routes of which processes count the calls.
func (t *totals) keys() (all []routemap.Key) {
	t.each(func(k routemap.Key, s *total) {
		if s.Sources&routemap.FromStile != 0 && k.Mode != routemap.Async {
			all = append(all, k)
		}
	})
	return all
}

// of calls f with routes until it returns false, and returns those that are left. What f is given must not be kept.
func (t *totals) of(keys []routemap.Key, f func(routemap.Key, *total) bool) []routemap.Key {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, k := range keys {
		if of := t.routes[k]; of != nil && !f(k, of) { // it may have been let go
			return keys[i+1:]
		}
	}
	return nil
}
