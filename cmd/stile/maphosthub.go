package main

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"github.com/stile-ipc/stile/hostmap"
	"github.com/stile-ipc/stile/hub"
	"github.com/stile-ipc/stile/routemap"
)

// hostView is a host as it is shown: with what a hub tells of it, if one was asked.
type hostView struct {
	*hostmap.Host
	Edges    []hostEdge       `json:"edges"`
	Services map[int]string   `json:"services,omitempty"` // by PID: as processes report
	Asked    bool             `json:"asked"`              // a hub was
	Window   *routemap.Window `json:"window,omitempty"`   // of the hub's routes; nil: it has none of the time that it was asked for
	Damaged  uint64           `json:"damaged,omitempty"`  // windows of the hub's that could not be read, and are left out
	Unplaced int              `json:"unplaced,omitempty"` // processes that report and do not say on which host: the hub is older than that

	programs map[int]string // by PID
}

// hostEdge is a way between processes, with the routes that a hub has between the nodes that these two are: of who asks on it, or of both where nothing tells who does.
type hostEdge struct {
	hostmap.Edge
	Routes  int              `json:"routes,omitempty"`  // by whichever transport; 0: the host alone tells of it
	Sources routemap.Sources `json:"sources,omitempty"` // how they are known
	// The rest is of those that may go this way: of its transport, through a broker, or by what nobody tells.
	Calls uint64 `json:"calls,omitempty"`
	Cost  int64  `json:"cost,omitempty"` // ns: see [routemap.Route.Cost]
}

// viewOf is a host of which it is known by which names processes report, by PID.
func viewOf(h *hostmap.Host, services map[int]string) *hostView {
	v := &hostView{Host: h, Edges: make([]hostEdge, 0, len(h.Edges)), Services: map[int]string{}, programs: map[int]string{}}
	for _, p := range h.Processes {
		v.programs[p.PID] = p.Name
		if service, reports := services[p.PID]; reports {
			v.Services[p.PID] = service
		}
	}
	for _, e := range h.Edges {
		v.Edges = append(v.Edges, hostEdge{Edge: e})
	}
	return v
}

// only leaves out what has no end in a process whose program, or service, has a name.
func (v *hostView) only(name string) {
	stays := map[int]bool{}
	v.Host.Only(func(p *hostmap.Process) bool {
		stays[p.PID] = p.Name == name || v.Services[p.PID] == name
		return stays[p.PID]
	})
	v.Edges = slices.DeleteFunc(v.Edges, func(e hostEdge) bool { return !stays[e.From.PID] && !stays[e.To.PID] })
	maps.DeleteFunc(v.Services, func(pid int, _ string) bool {
		return !slices.ContainsFunc(v.Processes, func(p hostmap.Process) bool { return p.PID == pid })
	})
}

// hubProcesses asks a hub who reports.
func hubProcesses(ctx context.Context, at string) (*hub.Processes, error) {
	all := new(hub.Processes)
	return all, askHub(ctx, at, "processes", all)
}

// tell puts beside the host's ways what a hub knows of them, and first those that cost most; those of which it knows nothing are last.
func (v *hostView) tell(report *routemap.Report, reporting *hub.Processes) {
	v.Asked = true
	if len(report.Routes) > 0 {
		v.Window = &report.Window
	}
	for _, r := range reporting.Processes {
		if r.Boot == "" {
			v.Unplaced++
		}
	}
	known := newHubNodes(v.Boot, report.Routes, reporting)
	for _, e := range v.Edges {
		known.goes(e.From, e.Via)
	}
	for i := range v.Edges {
		e := &v.Edges[i]
		for p := range v.pairsOf(known, e.Edge) {
			for transport, sum := range known.routes[p] {
				e.Routes, e.Sources = e.Routes+sum.Routes, e.Sources|sum.Sources
				if may(transport, e.Transport) {
					e.Calls, e.Cost = e.Calls+sum.Calls, e.Cost+sum.Cost
				}
			}
		}
	}
	slices.SortStableFunc(v.Edges, func(a, b hostEdge) int {
		return cmp.Or(cmp.Compare(b.Cost, a.Cost), cmp.Compare(b.Calls, a.Calls), cmp.Compare(min(b.Routes, 1), min(a.Routes, 1)))
	})
}

// may tells whether a route's transport is the way's: a socket to this host's own address is TCP to who dials it.
func may(route, way string) bool {
	switch route {
	case "", routemap.Broker, way:
		return true
	}
	return route == routemap.TCP && way == routemap.TCPLoopback || route == routemap.TCPLoopback && way == routemap.TCP
}

// pair is two nodes, of which the first calls the second.
type pair struct{ from, to routemap.Node }

// pairsOf are the nodes that a way's ends can be. Who is asked by a pipe answers by another one, which looks like it.
func (v *hostView) pairsOf(known *hubNodes, e hostmap.Edge) map[pair]bool {
	pairs := map[pair]bool{}
	forth := func(caller, called hostmap.End) {
		for _, from := range v.callers(known, caller) {
			for _, to := range v.called(known, called, caller, e.Via) {
				pairs[pair{from, to}] = true
			}
		}
	}
	forth(e.From, e.To)
	if !e.Directed || e.Transport == routemap.Pipe {
		forth(e.To, e.From)
	}
	return pairs
}

// knownBy is how the way is known: from the host, and from the hub's sources.
func (e *hostEdge) knownBy() []string { return append([]string{e.Known}, e.Sources.Names()...) }

// untold is how many ways are known from the host alone.
func (v *hostView) untold() (n int) {
	for _, e := range v.Edges {
		if e.Routes == 0 {
			n++
		}
	}
	return n
}
