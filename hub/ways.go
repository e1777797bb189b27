package hub

import (
	"net"
	"slices"
	"strings"
	"time"

	"github.com/stile-ipc/stile/routemap"
)

// waitToKnow is how long what metrics tell waits until it is known who is at the other end: its metrics may come later.
const waitToKnow = 90 * time.Second

// maxWays is how many routes are remembered, to know what metrics tell of that is known better.
const maxWays = 50_000

// unknownCallers are those of a service of which nothing else tells.
var unknownCallers = routemap.Node{Kind: routemap.External, Name: "?"}

// end is one end of calls, and what is called.
type end struct {
	node      routemap.Node
	operation string
}

// way is a route that was on a map.
type way struct {
	key      routemap.Key
	measured bool // and nothing else tells of it
	seen     time.Time
}

// better is how many routes something else than metrics tells of.
type better struct{ all, external int }

// ways are the routes that were on maps of late.
type ways struct {
	byCaller map[end]better
	byCalled map[end][]*way
	all      map[edge]*way
	services map[string]time.Time
	serves   map[string]map[string]time.Time // services that told of calls that they serve, by operation
	ranks    map[rankOf]ranked
}

// rankOf is of what several metrics of a process may tell.
type rankOf struct {
	who       [2]uint64
	client    bool
	operation string
}

type ranked struct {
	rank int
	seen time.Time
}

func newWays() *ways {
	return &ways{
		byCaller: map[end]better{}, byCalled: map[end][]*way{}, all: map[edge]*way{}, services: map[string]time.Time{}, serves: map[string]map[string]time.Time{},
		ranks: map[rankOf]ranked{},
	}
}

// note remembers a route. What is known better than by metrics stays so.
func (w *ways) note(k routemap.Key, measured bool, now time.Time) {
	e := edge{k.From, k.To, k.Operation}
	known := w.all[e]
	if known == nil {
		if len(w.all) >= maxWays {
			return
		}
		known = &way{k, true, now}
		w.all[e] = known
		to := end{k.To, k.Operation}
		w.byCalled[to] = append(w.byCalled[to], known)
	}
	if known.measured && !measured {
		known.measured = false
		w.better(known, 1)
	}
	known.seen = now
	for _, n := range []routemap.Node{k.From, k.To} {
		if n.Kind == routemap.Service {
			w.service(n.Name, now)
		}
	}
}

// better adds to how many routes of a caller are known better.
func (w *ways) better(of *way, n int) {
	from := end{of.key.From, of.key.Operation}
	b := w.byCaller[from]
	b.all += n
	if of.key.To.Kind == routemap.External {
		b.external += n
	}
	if w.byCaller[from] = b; b.all == 0 {
		delete(w.byCaller, from)
	}
}

func (w *ways) service(name string, now time.Time) {
	if _, known := w.services[name]; known || len(w.services) < maxWays {
		w.services[name] = now
	}
}

// served remembers that a service serves an operation.
func (w *ways) served(service, operation string, now time.Time) {
	by := w.serves[operation]
	if by == nil {
		if len(w.serves) >= maxWays {
			return
		}
		by = map[string]time.Time{}
		w.serves[operation] = by
	}
	if _, known := by[service]; known || len(by) < 2 { // two are as good as many
		by[service] = now
	}
}

// best tells whether no better metric of the process tells of the same calls, nor a hub to which it reports.
func (w *ways) best(k *measure, now time.Time) bool {
	byHub := rankOf{client: k.client, operation: k.service + "\x00" + k.operation}
	if _, told := w.ranks[byHub]; k.rank < 0 && (told || len(w.ranks) < maxMetricSeries) {
		w.ranks[byHub] = ranked{k.rank, now}
	} else if told {
		return false
	}
	of := rankOf{[2]uint64{k.resource.Hi, k.resource.Lo}, k.client, k.operation}
	known, is := w.ranks[of]
	switch {
	case !is && len(w.ranks) >= maxMetricSeries:
		return true
	case !is || k.rank <= known.rank:
		w.ranks[of] = ranked{k.rank, now}
		return true
	}
	return false
}

// forget drops what was not seen for long.
func (w *ways) forget(now time.Time) {
	gone := func(seen time.Time) bool { return now.Sub(seen) > forgetAfter }
	called := map[end]bool{}
	for e, one := range w.all {
		if !gone(one.seen) {
			continue
		}
		delete(w.all, e)
		called[end{e.to, e.operation}] = true
		if !one.measured {
			w.better(one, -1)
		}
	}
	for to := range called {
		left := slices.DeleteFunc(w.byCalled[to], func(one *way) bool { return gone(one.seen) })
		if w.byCalled[to] = left; len(left) == 0 {
			delete(w.byCalled, to)
		}
	}
	for name, seen := range w.services {
		if gone(seen) {
			delete(w.services, name)
		}
	}
	for operation, by := range w.serves {
		for name, seen := range by {
			if gone(seen) {
				delete(by, name)
			}
		}
		if len(by) == 0 {
			delete(w.serves, operation)
		}
	}
	for of, r := range w.ranks {
		if gone(r.seen) {
			delete(w.ranks, of)
		}
	}
}

// whom is who is called, as its caller's metrics name it, and whether that is known.
func (w *ways) whom(k *measure, where directory, boot string) (routemap.Node, bool) {
	at := k.peer
	if strings.HasPrefix(at, "/") {
		at = "unix:" + at
	}
	if service := where.find(boot, at); service != "" {
		return routemap.Node{Kind: routemap.Service, Name: service}, true
	}
	host := at
	if h, _, err := net.SplitHostPort(at); err == nil {
		host = h
	}
	for _, name := range []string{k.peer, host} {
		if _, known := w.services[name]; known {
			return routemap.Node{Kind: routemap.Service, Name: name}, true
		}
	}
	if by := w.serves[k.operation]; len(by) == 1 && ownMethod(k.operation) {
		for name := range by {
			return routemap.Node{Kind: routemap.Service, Name: name}, true
		}
	}
	if at == "" {
		at = "?"
	}
	kind := k.peerKind
	if kind == "" {
		kind = routemap.External
	}
	return routemap.Node{Kind: kind, Name: at}, false
}

// ownMethod tells whether a method's name is one that no other service has: it is of a package, and not of gRPC's own.
func ownMethod(operation string) bool {
	service, _, is := strings.Cut(operation, "/")
	return is && strings.Contains(service, ".") && !strings.HasPrefix(service, "grpc.")
}

// draw puts what metrics have told on the map of a window that is over, as far as nothing else tells of it. What comes from an unknown end waits a while, if the window
// is not the last.
func (m *measured) draw(to *routemap.Map, a *agents, last bool) bool {
	now := m.clock()
	pending := m.swap(now)
	w := m.ways
	to.Each(func(k routemap.Key, s *routemap.Stats) { w.note(k, s.Sources&^routemap.FromMetrics == 0, now) })
	w.forget(now)
	if len(pending) == 0 {
		return false
	}
	where, boots := a.places()
	for k := range pending {
		w.service(k.service, now)
		if !k.client {
			w.served(k.service, k.operation, now)
		}
		w.best(&k, now)
	}
	waiting := map[measure]*measurement{}
	drawn := false
	for _, client := range []bool{true, false} { // servers' are put where clients' are
		for k, one := range pending {
			if k.client != client || !w.best(&k, now) {
				continue
			}
			key, sure, better := w.route(&k, where, boots)
			switch {
			case better:
			case !sure && !last && now.Sub(one.since) < waitToKnow:
				waiting[k] = one
			default:
				to.Measured(key, one.stats(&k, key))
				w.note(key, true, now)
				drawn = true
			}
		}
	}
	m.putBack(waiting)
	return drawn
}

// route is the route of what a metric tells of, whether both ends are known, and whether something else tells of it better.
func (w *ways) route(k *measure, where directory, boots map[string]string) (key routemap.Key, sure, better bool) {
	self := routemap.Node{Kind: routemap.Service, Name: k.service}
	key = routemap.Key{From: unknownCallers, To: self, Operation: k.operation, Transport: k.transport, Mode: routemap.Sync}
	if k.client {
		peer, known := w.whom(k, where, boots[k.host])
		key.From, key.To = self, peer
		others := w.byCaller[end{self, k.operation}]
		same := w.all[edge{self, peer, k.operation}]
		if others.external > 0 || !known && others.all > 0 || same != nil && !same.measured {
			return key, true, true
		}
		return key, known, false
	}
	callers := 0
	for _, other := range w.byCalled[end{self, k.operation}] {
		if other.key.From != unknownCallers {
			callers++
			key = other.key
		}
		if !other.measured || callers > 1 { // of several callers nothing tells which part is whose
			return key, true, true
		}
	}
	return key, callers > 0, false
}

// stats is what a measurement says of a route. Of calls of which the client tells, too, the server's is one side.
func (o *measurement) stats(k *measure, key routemap.Key) *routemap.Stats {
	s := &routemap.Stats{Calls: o.calls, Errors: o.errors, Failures: o.failures}
	switch {
	case k.client:
		s.Client = o.took
	case key.From == unknownCallers:
		s.Server = o.took
	default:
		s = &routemap.Stats{Paired: o.calls, Server: o.took}
	}
	return s
}

// putBack has what waits to be known come again.
func (m *measured) putBack(waiting map[measure]*measurement) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for k, one := range waiting {
		if since := m.pending[k]; since != nil {
			m.wide -= since.wide()
			since.merge(one)
			one = since
		} else {
			m.pending[k] = one
		}
		m.wide += one.wide()
	}
}

// places is which services that report listen where, and of which start of a host its names are; of a host that is not named, that of all.
func (a *agents) places() (directory, map[string]string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	where, boots := directory{}, map[string]string{}
	for _, p := range a.processes {
		where.add(p.is)
		for _, host := range []string{p.is.GetHost(), ""} {
			if boot, known := boots[host]; known && boot != p.is.GetBoot() {
				boots[host] = ""
			} else if !known {
				boots[host] = p.is.GetBoot()
			}
		}
	}
	return where, boots
}
