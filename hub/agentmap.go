package hub

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/stile-ipc/stile/hub/hubpb"
	"github.com/stile-ipc/stile/hub/internal/store"
	"github.com/stile-ipc/stile/routemap"
)

// windowTold is what processes have told in a window, beside its map.
type windowTold struct {
	reported upTo // windows of processes that are in it
	events   []store.Event
	loads    []store.Load
	policies []store.Policy
	records  []store.Record
	any      bool // there is something to keep
}

// draw puts what was reported on the map of a window that is over, which began at start, and what traces tell of the same routes with it. The last tells of all that there is, and
// others of what is complete.
func (a *agents) draw(m *routemap.Map, start time.Time, last bool) windowTold {
	moved := a.queues.moved()
	end := start // of hosts' windows of which all have told
	if last {
		end = start.Add(2 * store.Finest)
	}
	a.mu.Lock()
	reports, events, loads := a.reports, slices.Concat(a.noted, moved, a.events), a.loads
	a.reports, a.routes, a.bytes, a.events, a.noted, a.loads, a.loadNumbers = nil, 0, 0, nil, nil, nil, 0
	loads = append(loads, a.hosts.over(m, start, end)...)
	policies := a.versionsLocked()
	now := a.clock()
	who := names{byIdentity: make(map[identity]string, len(a.processes)), where: directory{}, programs: a.programsLocked(now), boot: a.hosts.boot, drawn: m}
	for id, p := range a.processes {
		if now.Sub(p.seen) > processGoneAfter {
			delete(a.processes, id)
			a.policyBytes -= p.policyBytes
			continue
		}
		p.placed, p.early = p.is, false
		who.byIdentity[id] = p.is.GetService()
		who.all = append(who.all, p.is)
	}
	a.mu.Unlock() // what follows may take a while
	for _, p := range who.all {
		who.where.add(p)
	}
	defer a.learn(&who)
	windows := upTo{}
	routes := map[routemap.Key]*routemap.Stats{}
	for _, w := range a.waiting.take(now) {
		who.add(routes, w.report, w.route, w.calls)
		windows[identity(w.report.GetProcess().GetIdentity())] = w.report.GetSequence()
	}
	behind := map[identity]bool{} // who has a report of which a part is not drawn
	for _, r := range reports {
		calls := callsOf(r.GetRoutes()...)
		id := identity(r.GetProcess().GetIdentity())
		for _, route := range r.GetRoutes() {
			if who.stranger(route) && !last && a.waiting.add(strangerRoute{r, route, calls}, now) {
				behind[id] = true
				continue
			}
			who.add(routes, r, route, calls)
		}
		if !behind[id] {
			windows[id] = r.GetSequence()
		}
	}
	a.counted.add(m, routes, now)
	rec := recorder{now: now}
	for _, r := range reports {
		rec.add(r, func(route *hubpb.Route) string {
			if who.stranger(route) { // who may have another name in the next window
				return ""
			}
			k, _ := who.key(r.GetProcess(), route)
			return m.Settled(k).ID()
		})
	}
	if rec.left > 0 {
		a.mu.Lock()
		a.unrecorded += rec.left
		a.mu.Unlock()
	}
	return windowTold{windows, events, loads, policies, rec.all, len(reports)+len(windows)+len(events)+len(loads) > 0}
}

// strangers are routes of servers whose client the hub does not know yet: both may have reported to another start of it, and the client come back a window later.
// They wait for it, for one window. They are the keeper's.
type strangers struct {
	routes []strangerRoute
	since  map[identity]time.Time // when each was a stranger first
}

type strangerRoute struct {
	report *hubpb.ReportRequest
	route  *hubpb.Route
	calls  uint64
}

// maxStrangers is how many are known as such; routes of others do not wait.
const maxStrangers = maxProcesses

// add has a route wait, unless its client was waited for before.
func (s *strangers) add(w strangerRoute, now time.Time) bool {
	id := identity(w.route.GetPeer())
	first, known := s.since[id]
	if !known && len(s.since) < maxStrangers {
		if s.since == nil {
			s.since = map[identity]time.Time{}
		}
		first, known = now, true
		s.since[id] = now
	}
	if !known || !first.Equal(now) {
		return false
	}
	s.routes = append(s.routes, w)
	return true
}

func (s *strangers) take(now time.Time) []strangerRoute {
	for id, first := range s.since {
		if now.Sub(first) > processGoneAfter {
			delete(s.since, id)
		}
	}
	all := s.routes
	s.routes = nil
	return all
}

// learn keeps what a window knew of who listens where, and adds who has come meanwhile.
func (a *agents) learn(n *names) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.where = n.where
	for id, p := range a.processes {
		if _, known := n.byIdentity[id]; !known {
			a.where.add(p.is)
			p.placed = p.is
		}
	}
}

// counted is which routes processes count, and the way that most of their calls go. It is the keeper's.
type counted map[edge]countedRoute

func (c counted) add(m *routemap.Map, routes map[routemap.Key]*routemap.Stats, now time.Time) {
	for k, s := range routes {
		m.Counted(k, s)
		e := edge{k.From, k.To, k.Operation}
		if known := c[e]; !known.at.Equal(now) || s.Calls > known.calls {
			c[e] = countedRoute{k, s.Calls, now}
		}
	}
	for e, known := range c {
		if now.Sub(known.at) > countedFor {
			delete(c, e)
		}
	}
	m.Fold(func(from, to routemap.Node, operation string) (routemap.Key, bool) {
		known, is := c[edge{from, to, operation}]
		return known.key, is
	})
}

// names is who has reported, as far as a window wants to know.
type names struct {
	byIdentity map[identity]string
	all        []*hubpb.Process
	where      directory

	programs map[identity]string // of clients that do not report
	boot     string              // of the hub's host
	drawn    *routemap.Map
}

// add adds what one end has counted of a route. Where the client reports, too, its word counts, and of the server's what it alone knows: the two may
// come in different windows.
func (n *names) add(routes map[routemap.Key]*routemap.Stats, r *hubpb.ReportRequest, route *hubpb.Route, calls uint64) {
	k, reports := n.key(r.GetProcess(), route)
	s := statsOf(route)
	share(s, calls, r.GetLoad())
	if s.Open.Looks > 0 {
		s.Open.Time = r.GetToUnixNano() - r.GetFromUnixNano()
	}
	if k.From.Kind == routemap.Process {
		n.note(k.From, route.GetPeer())
	}
	if route.GetSide() == hubpb.Side_SIDE_SERVER {
		if reports {
			s = &routemap.Stats{Paired: s.Calls, Server: s.Server, Switches: s.Switches, Wakes: s.Wakes, Spin: s.Spin, RunQueue: s.RunQueue, Decisions: s.Decisions, Left: s.Left}
		}
	}
	if routes[k] == nil {
		routes[k] = &routemap.Stats{}
	}
	routes[k].Merge(s)
}

// key is a route's on the map, and whether its other end reports, too.
func (n *names) key(process *hubpb.Process, route *hubpb.Route) (k routemap.Key, reports bool) {
	self := routemap.Node{Kind: routemap.Service, Name: process.GetService()}
	peer, reports := n.peer(process, route)
	k = routemap.Key{From: self, To: peer, Transport: route.GetTransport(), Operation: strings.TrimPrefix(route.GetMethod(), "/"), Mode: routemap.Sync}
	switch {
	case route.GetTopic() != "":
		k.Mode = routemap.Async
	case route.GetStream():
		k.Mode = routemap.Stream
	}
	if route.GetSide() == hubpb.Side_SIDE_SERVER {
		k.From, k.To = peer, self
	}
	return k, reports
}

// share gives a route its part of what its process used.
func share(s *routemap.Stats, of uint64, load *hubpb.Load) {
	if of == 0 {
		return
	}
	part := float64(s.Calls) / float64(of)
	s.Switches = uint64(part * float64(load.GetVoluntarySwitches()+load.GetInvoluntarySwitches()))
	s.RunQueue = int64(part * float64(load.GetRunQueueNs()))
}

// stranger tells whether a server's client has an identity, and has not said who it is.
func (n *names) stranger(route *hubpb.Route) bool {
	if route.GetSide() != hubpb.Side_SIDE_SERVER || len(route.GetPeer()) != len(identity{}) {
		return false
	}
	_, known := n.byIdentity[identity(route.GetPeer())]
	return !known
}

// peer is who is at the other end of a route, and whether that reports, too.
func (n *names) peer(self *hubpb.Process, route *hubpb.Route) (routemap.Node, bool) {
	if route.GetTopic() != "" {
		return routemap.Node{Kind: routemap.Queue, Name: route.GetTopic()}, false
	}
	if len(route.GetPeer()) == len(identity{}) {
		if service, known := n.byIdentity[identity(route.GetPeer())]; known {
			return routemap.Node{Kind: routemap.Service, Name: service}, true
		}
	}
	if route.GetSide() == hubpb.Side_SIDE_SERVER {
		return n.silent(self, route.GetPeer()), false
	}
	to := n.where.called(self, route.GetAddress())
	return to, to.Kind == routemap.Service
}

// statsOf is what one end has counted, as a map has it. The report was checked.
func statsOf(r *hubpb.Route) *routemap.Stats {
	s := &routemap.Stats{Calls: callsOf(r), Wakes: r.GetWakes(), Spin: r.GetSpinNs()}
	for code, n := range r.GetCodes() {
		if code != 0 {
			if s.Errors == nil {
				s.Errors = map[string]uint64{}
			}
			s.Errors[errorClass(code)] += n
		}
	}
	to := &s.Client
	if r.GetSide() == hubpb.Side_SIDE_SERVER {
		to = &s.Server
	}
	*to, _ = histogram(r.GetDuration())
	s.Failures, _ = histogram(r.GetFailures())
	s.Gap, _ = histogram(r.GetGap())
	s.Queue, _ = histogram(r.GetQueue())
	s.Request, _ = histogram(r.GetRequest())
	s.Response, _ = histogram(r.GetResponse())
	s.Left, _ = histogram(r.GetDeadlineLeft())
	s.Decisions = decisionsOf(r.GetDecisions())
	s.Open = routemap.Open{Looks: r.GetOpenLooks(), Seen: r.GetOpenSeen(), Most: r.GetOpenMost()}
	p := r.GetRepeats()
	s.Carried = routemap.Carried{Calls: p.GetCalls(), Same: p.GetSame(), Request: p.GetRequest(), RequestRepeated: p.GetRequestRepeated(), Response: p.GetResponse(), ResponseRepeated: p.GetResponseRepeated()}
	w := r.GetWaits()
	s.Waits = routemap.Waits{Calls: w.GetCalls(), ClientQueue: w.GetClientQueue(), Transport: w.GetTransport(), ServerQueue: w.GetServerQueue(), Handler: w.GetHandler()}
	return s
}

func decisionsOf(d *hubpb.Decisions) routemap.Decisions {
	return routemap.Decisions{
		Retries: d.GetRetries(), Hedges: d.GetHedges(), Breaker: d.GetBreaker(), Limit: d.GetLimit(), Budget: d.GetBudget(),
		Admission: d.GetAdmission(), CacheHits: d.GetCacheHits(), Coalesced: d.GetCoalesced(), Fallbacks: d.GetFallbacks(), Late: d.GetLate(),
	}
}

// Processes is what GET /api/v1/processes answers: those that report.
type Processes struct {
	Boot      string          `json:"boot"` // of the hub's host: see [ProcessReport.Boot]
	Processes []ProcessReport `json:"processes"`
}

// ProcessReport is a process, and what it used in its last window.
type ProcessReport struct {
	ID          string        `json:"id"`
	Service     string        `json:"service"`
	PID         int64         `json:"pid"`
	UID         int64         `json:"uid"`
	Host        string        `json:"host"`
	Boot        string        `json:"boot"` // of its host: which host it is, since that was started
	Executable  string        `json:"executable"`
	Start       time.Time     `json:"start"`
	Seen        time.Time     `json:"seen"`
	Listens     []string      `json:"listens"`
	Version     string        `json:"version"` // of Stile
	Go          string        `json:"go"`
	Window      time.Duration `json:"window"` // ns
	Calls       uint64        `json:"calls"`  // made and served
	CPU         int64         `json:"cpu"`    // ns
	GC          int64         `json:"gc"`     // ns of it, by the collector
	Voluntary   uint64        `json:"voluntarySwitches"`
	Involuntary uint64        `json:"involuntarySwitches"`
	RunQueue    int64         `json:"runQueue"` // ns that its threads were ready to run and did not
	Doorbells   uint64        `json:"doorbells"`
	Parks       uint64        `json:"parks"`
	Spin        int64         `json:"spin"`    // ns
	Threads     uint32        `json:"threads"` // GOMAXPROCS
	Dropped     uint64        `json:"dropped"` // windows that it had no room for while the hub was away
}

func (a *agents) list() []ProcessReport {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := []ProcessReport{}
	for id, p := range a.processes {
		is, l := p.is, p.load
		all = append(all, ProcessReport{
			ID: shortID(string(id[:])), Service: is.GetService(), PID: is.GetPid(), UID: is.GetUid(), Host: is.GetHost(), Boot: is.GetBoot(), Executable: is.GetExecutable(), Start: time.Unix(0, is.GetStartUnixNano()).UTC(), Seen: p.seen.UTC(),
			Listens: append([]string{}, is.GetListens()...), Version: is.GetStileVersion(), Go: is.GetGoVersion(), Window: p.window, Calls: p.calls,
			CPU: l.GetUserNs() + l.GetSystemNs(), GC: l.GetGcNs(), Voluntary: l.GetVoluntarySwitches(), Involuntary: l.GetInvoluntarySwitches(), RunQueue: l.GetRunQueueNs(),
			Doorbells: l.GetDoorbells(), Parks: l.GetParks(), Spin: l.GetSpinNs(), Threads: l.GetGomaxprocs(), Dropped: p.dropped,
		})
	}
	slices.SortFunc(all, func(a, b ProcessReport) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), a.Start.Compare(b.Start), cmp.Compare(a.ID, b.ID))
	})
	return all
}
