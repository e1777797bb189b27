package main

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/stile-ipc/stile/hostmap"
	"github.com/stile-ipc/stile/hub"
	"github.com/stile-ipc/stile/routemap"
)

// hostView is a host as it is shown: with what a hub tells of it, if one was asked.
type hostView struct {
	*hostmap.Host
	Edges    []hostEdge     `json:"edges"`
	Services map[int]string `json:"services,omitempty"` // by PID: as processes report
	Asked    bool           `json:"asked"`              // a hub was

	programs map[int]string  // by PID
	reports  map[string]bool // services of which a process does, here or elsewhere
}

// hostEdge is a way between processes, with the routes that a hub has between the nodes that these two are, in whichever direction.
type hostEdge struct {
	hostmap.Edge
	Routes int `json:"routes,omitempty"` // 0: the host alone tells of it
	// The rest is of these routes together, in the time that the hub was asked for.
	Calls   uint64           `json:"calls,omitempty"`
	Cost    int64            `json:"cost,omitempty"`    // ns: see [routemap.Route.Cost]
	Sources routemap.Sources `json:"sources,omitempty"` // how the routes are known
}

// viewOf is a host without a hub.
func viewOf(h *hostmap.Host) *hostView {
	v := &hostView{Host: h, Edges: make([]hostEdge, 0, len(h.Edges)), programs: map[int]string{}}
	for _, p := range h.Processes {
		v.programs[p.PID] = p.Name
	}
	for _, e := range h.Edges {
		v.Edges = append(v.Edges, hostEdge{Edge: e})
	}
	return v
}

// askFor asks the hub at a URL what it knows of the host's ways, and puts first those that cost most; those of which it knows nothing are last.
func (v *hostView) askFor(ctx context.Context, at string) error {
	report, _, err := hubMap(ctx, at)
	if err != nil {
		return err
	}
	var all hub.Processes
	if err := askHub(ctx, at, "processes", &all); err != nil {
		return err
	}
	v.tell(report, all.Processes)
	return nil
}

func (v *hostView) tell(report *routemap.Report, reporting []hub.ProcessReport) {
	v.Asked, v.Services, v.reports = true, servicesOf(v.Host, reporting), map[string]bool{}
	for _, p := range reporting {
		v.reports[p.Service] = true
	}
	sums := routesBetween(report.Routes)
	for i := range v.Edges {
		e := &v.Edges[i]
		ends := map[pair]bool{}
		for _, from := range v.nodesOf(e.From, "") {
			for _, to := range v.nodesOf(e.To, e.Via) {
				ends[pairOf(from, to)] = true
			}
		}
		for p := range ends {
			e.add(sums[p])
		}
	}
	slices.SortStableFunc(v.Edges, func(a, b hostEdge) int {
		return cmp.Or(cmp.Compare(b.Cost, a.Cost), cmp.Compare(b.Calls, a.Calls), cmp.Compare(min(b.Routes, 1), min(a.Routes, 1)))
	})
}

// pair is two nodes, in whichever direction.
type pair [2]routemap.Node

func pairOf(a, b routemap.Node) pair {
	if b.String() < a.String() {
		a, b = b, a
	}
	return pair{a, b}
}

// routesBetween are the routes of each two nodes together. Those of a queue are between who sends and who receives, too: one of them may have it.
func routesBetween(routes []routemap.Route) map[pair]hostEdge {
	sums := map[pair]hostEdge{}
	add := func(from, to routemap.Node, r *routemap.Route) {
		sum := sums[pairOf(from, to)]
		sum.add(hostEdge{Routes: 1, Calls: r.Calls, Cost: r.Cost(), Sources: r.Sources})
		sums[pairOf(from, to)] = sum
	}
	senders := map[routemap.Node][]routemap.Node{}
	for i := range routes {
		r := &routes[i]
		add(r.From, r.To, r)
		if r.To.Kind == routemap.Queue && !slices.Contains(senders[r.To], r.From) {
			senders[r.To] = append(senders[r.To], r.From)
		}
	}
	for i := range routes {
		r := &routes[i]
		for _, from := range senders[r.From] {
			add(from, r.To, r)
		}
	}
	return sums
}

func (e *hostEdge) add(o hostEdge) {
	e.Routes, e.Calls, e.Cost, e.Sources = e.Routes+o.Routes, e.Calls+o.Calls, e.Cost+o.Cost, e.Sources|o.Sources
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

// startsWithin is how far apart a process's start may be, as the kernel has it, from what the process says itself.
const startsWithin = 5 * time.Second

// servicesOf are the names by which processes of a host report, by PID: of those that began at the same time and have the same number, and then, of reports that are left, as of other PID
// namespaces, of those that run the same file and began closest to it.
func servicesOf(h *hostmap.Host, reporting []hub.ProcessReport) map[int]string {
	all, left := map[int]string{}, slices.Clone(reporting)
	left = slices.DeleteFunc(left, func(r hub.ProcessReport) bool { return r.Boot != h.Boot })
	take := func(fits func(p *hostmap.Process, r *hub.ProcessReport) bool) {
		left = slices.DeleteFunc(left, func(r hub.ProcessReport) bool {
			best, least := 0, startsWithin
			for i := range h.Processes {
				p := &h.Processes[i]
				if off := r.Start.Sub(p.Start).Abs(); all[p.PID] == "" && off <= least && fits(p, &r) {
					best, least = p.PID, off
				}
			}
			if best != 0 {
				all[best] = r.Service
			}
			return best != 0
		})
	}
	sameFile := func(p *hostmap.Process, r *hub.ProcessReport) bool { return p.Exe != "" && p.Exe == r.Executable }
	take(func(p *hostmap.Process, r *hub.ProcessReport) bool {
		return r.PID == int64(p.PID) && (p.Exe == "" || sameFile(p, r))
	})
	take(sameFile)
	return all
}

// nodesOf are the nodes that an end can be on a hub's map: its service; of who does not report, the program, the service that is called like it, if that only sends traces or
// metrics, or the address by which others call it.
func (v *hostView) nodesOf(e hostmap.End, via string) []routemap.Node {
	if service, reports := v.Services[e.PID]; reports {
		return []routemap.Node{{Kind: routemap.Service, Name: service}}
	}
	var all []routemap.Node
	if via != "" {
		all = append(all, routemap.Node{Kind: routemap.External, Name: via})
	}
	if program, here := v.programs[e.PID]; here {
		if all = append(all, routemap.Node{Kind: routemap.Process, Name: program}); !v.reports[program] {
			all = append(all, routemap.Node{Kind: routemap.Service, Name: program})
		}
		return all
	}
	if e.Address != via && e.Address != hostmap.Unseen {
		all = append(all, routemap.Node{Kind: routemap.External, Name: e.Address})
	}
	return all
}
