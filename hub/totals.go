package hub

import (
	"sync"

	"github.com/stile-ipc/stile/routemap"
)

// totals is what was on the maps of all windows since the hub was opened. Its methods are safe for concurrent use.
type totals struct {
	mu        sync.Mutex
	routes    map[routemap.Key]*routemap.Stats
	exemplars map[exemplarOf]exemplar
}

// maxTotals is how many routes are told apart; others are one.
const maxTotals = 20_000

var otherRoutes = routemap.Key{From: routemap.Node{Kind: routemap.Service, Name: "other"}, To: routemap.Node{Kind: routemap.Service, Name: "other"}, Operation: "other", Mode: routemap.Sync}

// add takes in the map of a window that is over.
func (t *totals) add(m *routemap.Map) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.routes == nil {
		t.routes = map[routemap.Key]*routemap.Stats{}
	}
	m.Each(func(k routemap.Key, s *routemap.Stats) {
		of := t.routes[k]
		if of == nil {
			if len(t.routes) >= maxTotals {
				k = otherRoutes
				of = t.routes[k]
			}
			if of == nil {
				of = &routemap.Stats{}
				t.routes[k] = of
			}
		}
		// What is sampled, or evidence, is of no use in a sum.
		of.Merge(&routemap.Stats{
			Calls: s.Calls, Errors: s.Errors, Retries: s.Retries, Client: s.Client, Server: s.Server, Waits: s.Waits, Switches: s.Switches, Wakes: s.Wakes, Spin: s.Spin, RunQueue: s.RunQueue,
			Request: s.Request, Response: s.Response, Decisions: s.Decisions, Sources: s.Sources,
		})
	})
}

// each calls f with each route. What it is given must not be kept.
func (t *totals) each(f func(routemap.Key, *routemap.Stats)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for k, s := range t.routes {
		f(k, s)
	}
}
