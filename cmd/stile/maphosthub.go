package main

import (
	"cmp"
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

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
	Unplaced int              `json:"unplaced,omitempty"` // processes that report and do not say on which host: the hub is older than that

	programs map[int]string // by PID
}

// hostEdge is a way between processes, with the routes that a hub has between the nodes that these two are: of who asks on it, or of both where nothing tells who does.
type hostEdge struct {
	hostmap.Edge
	Routes  int              `json:"routes,omitempty"`  // by whichever transport; 0: the host alone tells of it
	Sources routemap.Sources `json:"sources,omitempty"` // how they are known
	// The rest is of those that go this way: of its transport, or of one by which there is no way between the two.
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

// hubProcesses asks a hub who reports.
func hubProcesses(ctx context.Context, at string) ([]hub.ProcessReport, error) {
	var all hub.Processes
	err := askHub(ctx, at, "processes", &all)
	return all.Processes, err
}

// tell puts beside the host's ways what a hub knows of them, and first those that cost most; those of which it knows nothing are last.
func (v *hostView) tell(report *routemap.Report, reporting []hub.ProcessReport) {
	v.Asked = true
	if len(report.Routes) > 0 {
		v.Window = &report.Window
	}
	for _, r := range reporting {
		if r.Boot == "" {
			v.Unplaced++
		}
	}
	known, ways := newHubNodes(report.Routes, reporting), map[[2]hostmap.End][]string{}
	for _, e := range v.Edges {
		ways[endsOf(e.Edge)] = append(ways[endsOf(e.Edge)], e.Transport)
	}
	for i := range v.Edges {
		e := &v.Edges[i]
		pairs := map[pair]bool{}
		for _, from := range v.nodesOf(known, e.From, hostmap.End{}, "") {
			for _, to := range v.nodesOf(known, e.To, e.From, e.Via) {
				pairs[pair{from, to}] = true
				if !e.Directed || e.Transport == routemap.Pipe { // who is asked answers by another pipe, which looks like this one
					pairs[pair{to, from}] = true
				}
			}
		}
		for p := range pairs {
			for transport, sum := range known.routes[p] {
				e.Routes, e.Sources = e.Routes+sum.Routes, e.Sources|sum.Sources
				if transport == e.Transport || !slices.Contains(ways[endsOf(e.Edge)], transport) {
					e.Calls, e.Cost = e.Calls+sum.Calls, e.Cost+sum.Cost
				}
			}
		}
	}
	slices.SortStableFunc(v.Edges, func(a, b hostEdge) int {
		return cmp.Or(cmp.Compare(b.Cost, a.Cost), cmp.Compare(b.Calls, a.Calls), cmp.Compare(min(b.Routes, 1), min(a.Routes, 1)))
	})
}

// endsOf are those of a way, in whichever direction.
func endsOf(e hostmap.Edge) [2]hostmap.End {
	if cmp.Or(cmp.Compare(e.To.PID, e.From.PID), cmp.Compare(e.To.Address, e.From.Address)) < 0 {
		e.From, e.To = e.To, e.From
	}
	return [2]hostmap.End{e.From, e.To}
}

// pair is two nodes, of which the first calls the second.
type pair struct{ from, to routemap.Node }

// hubNodes is what a hub knows of nodes and of the routes between them.
type hubNodes struct {
	routes  map[pair]map[string]hostEdge // from one to another, by transport
	reports map[string]bool              // services of which a process does, on any host
	listens map[string][]routemap.Node   // who does at an address
	hosts   map[string][]routemap.Node   // who is on a host, by each of its IP addresses where they listen
	named   map[routemap.Node][]string   // addresses with names that each node calls, as it spells them
}

func newHubNodes(routes []routemap.Route, reporting []hub.ProcessReport) *hubNodes {
	all := &hubNodes{
		routes: map[pair]map[string]hostEdge{}, reports: map[string]bool{}, listens: map[string][]routemap.Node{}, hosts: map[string][]routemap.Node{}, named: map[routemap.Node][]string{},
	}
	all.add(routes)
	silent := map[string][]routemap.Node{} // who does not report, of a host that the hub is not on, by its name
	for i := range routes {
		if from := routes[i].From; from.Kind == routemap.Process {
			if _, host, has := strings.Cut(from.Name, " on "); has {
				silent[host] = append(silent[host], from)
			}
		}
	}
	addresses := map[string][]string{} // where they listen on a host, by its boot ID
	for _, r := range reporting {
		all.reports[r.Service] = true
		for _, l := range r.Listens {
			if at, err := netip.ParseAddrPort(l); err == nil && !at.Addr().IsLoopback() && !at.Addr().IsUnspecified() {
				all.listens[l] = append(all.listens[l], routemap.Node{Kind: routemap.Service, Name: r.Service})
				addresses[r.Boot] = append(addresses[r.Boot], at.Addr().String())
			}
		}
	}
	for _, r := range reporting {
		for _, ip := range addresses[r.Boot] {
			all.hosts[ip] = append(append(all.hosts[ip], routemap.Node{Kind: routemap.Service, Name: r.Service}), silent[r.Host]...)
		}
	}
	return all
}

// add adds routes. Those of a queue are between who sends and who receives, too, in whichever direction: one of them may have it.
func (n *hubNodes) add(routes []routemap.Route) {
	add := func(from, to routemap.Node, r *routemap.Route) {
		sums := n.routes[pair{from, to}]
		if sums == nil {
			sums = map[string]hostEdge{}
			n.routes[pair{from, to}] = sums
		}
		sum := sums[r.Transport]
		sum.Routes, sum.Calls, sum.Cost, sum.Sources = sum.Routes+1, sum.Calls+r.Calls, sum.Cost+r.Cost(), sum.Sources|r.Sources
		sums[r.Transport] = sum
	}
	senders := map[routemap.Node][]routemap.Node{}
	for i := range routes {
		r := &routes[i]
		add(r.From, r.To, r)
		if r.To.Kind == routemap.Queue && !slices.Contains(senders[r.To], r.From) {
			senders[r.To] = append(senders[r.To], r.From)
		}
		if host, _, err := net.SplitHostPort(r.To.Name); err == nil && r.To.Kind == routemap.External && !slices.Contains(n.named[r.From], r.To.Name) {
			if _, err := netip.ParseAddr(host); err != nil {
				n.named[r.From] = append(n.named[r.From], r.To.Name)
			}
		}
	}
	for i := range routes {
		r := &routes[i]
		for _, from := range senders[r.From] {
			add(from, r.To, r)
			if from != r.To {
				add(r.To, from, r)
			}
		}
	}
}

// spelled is the address with a name that a node calls on a port, if there is one alone.
func (n *hubNodes) spelled(caller routemap.Node, port string) (address string, one bool) {
	for _, name := range n.named[caller] {
		if _, of, _ := net.SplitHostPort(name); of != port {
			continue
		}
		if one {
			return "", false
		}
		address, one = name, true
	}
	return address, one
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

// servicesOf are the names by which processes of a host report, by PID. A process is one that reports if it has, in its own PID namespace, the number that is reported, runs that file and began
// at that time; of several it is the nearest: the kernel's numbers are one for all only outside of containers.
func servicesOf(h *hostmap.Host, reporting []hub.ProcessReport) map[int]string {
	type match struct {
		process *hostmap.Process
		report  *hub.ProcessReport
		off     time.Duration
	}
	var matches []match
	own := map[int64][]*hostmap.Process{}
	for i := range h.Processes {
		p := &h.Processes[i]
		own[int64(p.OwnPID)] = append(own[int64(p.OwnPID)], p)
	}
	for i := range reporting {
		r := &reporting[i]
		for _, p := range own[r.PID] {
			if off := r.Start.Sub(p.Start).Abs(); r.Boot == h.Boot && off <= startsWithin && (p.Exe == "" || p.Exe == r.Executable) {
				matches = append(matches, match{p, r, off})
			}
		}
	}
	slices.SortStableFunc(matches, func(a, b match) int { return cmp.Compare(a.off, b.off) })
	all, taken := map[int]string{}, map[*hub.ProcessReport]bool{}
	for _, m := range matches {
		if _, has := all[m.process.PID]; !has && !taken[m.report] {
			all[m.process.PID], taken[m.report] = m.report.Service, true
		}
	}
	return all
}

// nodesOf are the nodes that an end can be on a hub's map: its service; of who does not report, the program, the service that is called like it, if that only sends traces or
// metrics, or the address by which others, and who calls it here, call it; of another host, who reports and listens there.
func (v *hostView) nodesOf(known *hubNodes, e, caller hostmap.End, via string) []routemap.Node {
	if service, reports := v.Services[e.PID]; reports {
		return []routemap.Node{{Kind: routemap.Service, Name: service}}
	}
	var all []routemap.Node
	if via != "" {
		all = append(all, routemap.Node{Kind: routemap.External, Name: via})
		if _, port, err := net.SplitHostPort(via); err == nil {
			for _, from := range v.nodesOf(known, caller, hostmap.End{}, "") {
				if name, one := known.spelled(from, port); one {
					all = append(all, routemap.Node{Kind: routemap.External, Name: name})
				}
			}
		}
	}
	if program, here := v.programs[e.PID]; here {
		if all = append(all, routemap.Node{Kind: routemap.Process, Name: program}); !known.reports[program] {
			all = append(all, routemap.Node{Kind: routemap.Service, Name: program})
		}
		return all
	}
	if e.Address == hostmap.Unseen {
		return all
	}
	if e.Address != via {
		all = append(all, routemap.Node{Kind: routemap.External, Name: e.Address})
	}
	return slices.Concat(all, known.listens[e.Address], known.hosts[e.Address])
}
