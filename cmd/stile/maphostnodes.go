package main

import (
	"cmp"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stile-ipc/stile/hostmap"
	"github.com/stile-ipc/stile/hub"
	"github.com/stile-ipc/stile/routemap"
)

// A process reports when it began a little after the kernel has it begin; by how much, and by how much sooner, as clocks are read one after the other.
const (
	startsLater  = 5 * time.Second
	startsSooner = 100 * time.Millisecond
)

// servicesOf are the names by which processes of a host report, by PID. A process is one that reports if it has, in its own PID namespace, the number that is reported, runs that file and began
// then. Of several, as the first of each container is, they are in the order in which they began, if all report; else each report's is the nearest.
func servicesOf(h *hostmap.Host, reporting []hub.ProcessReport) map[int]string {
	type same struct {
		pid int64
		exe string
	}
	reports := map[same][]hub.ProcessReport{}
	for _, r := range reporting {
		if r.Boot != "" && r.Boot == h.Boot {
			reports[same{r.PID, r.Executable}] = append(reports[same{r.PID, r.Executable}], r)
		}
	}
	all := map[int]string{}
	for k, rs := range reports {
		var ps []hostmap.Process
		for _, p := range h.Processes {
			if int64(p.OwnPID) == k.pid && (p.Exe == "" || p.Exe == k.exe) {
				ps = append(ps, p)
			}
		}
		slices.SortFunc(rs, func(a, b hub.ProcessReport) int { return a.Start.Compare(b.Start) })
		slices.SortFunc(ps, func(a, b hostmap.Process) int { return a.Start.Compare(b.Start) })
		for p, r := range pairUp(ps, rs) {
			all[ps[p].PID] = rs[r].Service
		}
	}
	return all
}

// pairUp says which report is of which process, both in the order in which they began.
func pairUp(ps []hostmap.Process, rs []hub.ProcessReport) map[int]int {
	fits := func(p, r int) bool {
		later := rs[r].Start.Sub(ps[p].Start)
		return later >= -startsSooner && later <= startsLater
	}
	inOrder := map[int]int{}
	for i := range min(len(ps), len(rs)) {
		if fits(i, i) {
			inOrder[i] = i
		}
	}
	if len(ps) == len(rs) && len(inOrder) == len(ps) {
		return inOrder
	}
	type match struct {
		p, r int
		off  time.Duration
	}
	var matches []match
	for p := range ps {
		for r := range rs {
			if fits(p, r) {
				matches = append(matches, match{p, r, rs[r].Start.Sub(ps[p].Start).Abs()})
			}
		}
	}
	slices.SortStableFunc(matches, func(a, b match) int { return cmp.Compare(a.off, b.off) })
	nearest, taken := map[int]int{}, map[int]bool{}
	for _, m := range matches {
		if _, has := nearest[m.p]; !has && !taken[m.r] {
			nearest[m.p], taken[m.r] = m.r, true
		}
	}
	return nearest
}

// hubNodes is what a hub knows of nodes and of the routes between them, and where the host's processes go.
type hubNodes struct {
	routes  map[pair]map[string]hostEdge      // from one to another, by transport
	reports map[string]bool                   // services of which a process does, on any host
	listens map[string]string                 // the service at an address that means the same to all
	here    map[string]string                 // the service at an address, path or name of this host
	hosts   map[string]map[routemap.Node]bool // who is on another host, by each of its IP addresses where they listen
	named   map[routemap.Node][]string        // addresses with names that each node calls, as it spells them
	silent  func(program string) routemap.Node
	goals   map[toPort][]string // addresses to which processes have ways
}

// toPort is who has ways to a port, of this host's loopback or elsewhere.
type toPort struct {
	from     hostmap.End
	port     string
	loopback bool
}

func newHubNodes(boot string, routes []routemap.Route, reporting *hub.Processes) *hubNodes {
	n := &hubNodes{
		routes: map[pair]map[string]hostEdge{}, reports: map[string]bool{}, listens: map[string]string{}, here: map[string]string{}, hosts: map[string]map[routemap.Node]bool{},
		named: map[routemap.Node][]string{}, silent: programNode, goals: map[toPort][]string{},
	}
	n.add(routes)
	addresses := map[string]map[string]bool{} // IP addresses where they listen on a host, by its boot ID
	for _, r := range reporting.Processes {
		n.reports[r.Service] = true
		if r.Boot == "" {
			continue
		}
		if r.Boot == boot && reporting.Boot != boot { // what is silent on a host that the hub is not on is one node
			n.silent = func(string) routemap.Node {
				return routemap.Node{Kind: routemap.Process, Name: "unknown on " + cmp.Or(r.Host, "another host")}
			}
		}
		for _, l := range r.Listens {
			if r.Boot == boot {
				place(n.here, l, r.Service)
			}
			if at, err := netip.ParseAddrPort(l); err == nil && !at.Addr().IsLoopback() && !at.Addr().IsUnspecified() {
				place(n.listens, l, r.Service)
				if addresses[r.Boot] == nil {
					addresses[r.Boot] = map[string]bool{}
				}
				addresses[r.Boot][at.Addr().String()] = true
			}
		}
	}
	for _, r := range reporting.Processes {
		for ip := range addresses[r.Boot] {
			if n.hosts[ip] == nil {
				n.hosts[ip] = map[routemap.Node]bool{}
			}
			n.hosts[ip][serviceNode(r.Service)] = true
		}
	}
	return n
}

// place says who listens at an address; nobody, if several do, as in network namespaces of their own.
func place(at map[string]string, address, service string) {
	if other, taken := at[address]; taken && other != service {
		service = ""
	}
	at[address] = service
}

func serviceNode(name string) routemap.Node { return routemap.Node{Kind: routemap.Service, Name: name} }
func programNode(name string) routemap.Node { return routemap.Node{Kind: routemap.Process, Name: name} }
func externalNode(name string) routemap.Node {
	return routemap.Node{Kind: routemap.External, Name: name}
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

// portOf is the port to which a process has a way.
func portOf(from hostmap.End, via string) (toPort, bool) {
	at, err := netip.ParseAddrPort(via)
	return toPort{from, strconv.Itoa(int(at.Port())), at.Addr().IsLoopback()}, err == nil
}

// goes notes that a process has a way to an address.
func (n *hubNodes) goes(from hostmap.End, via string) {
	if to, is := portOf(from, via); is && !slices.Contains(n.goals[to], via) {
		n.goals[to] = append(n.goals[to], via)
	}
}

// spelled is the address with a name by which a node calls what its process has a way to: if it calls one alone on that port, and goes to one alone there.
func (n *hubNodes) spelled(node routemap.Node, caller hostmap.End, via string) (address string, known bool) {
	to, is := portOf(caller, via)
	if !is || len(n.goals[to]) != 1 {
		return "", false
	}
	for _, name := range n.named[node] {
		host, port, _ := net.SplitHostPort(name)
		if port != to.port || (host == "localhost") != to.loopback {
			continue
		}
		if known {
			return "", false
		}
		address, known = name, true
	}
	return address, known
}

// callers are the nodes that who asks can be on a hub's map: its service; of who does not report, the program, or all such on a host where the hub is not, and the service that is called like the
// program, if that only sends traces or metrics; of another host, who reports and listens there.
func (v *hostView) callers(known *hubNodes, e hostmap.End) []routemap.Node {
	if service, reports := v.Services[e.PID]; reports {
		return []routemap.Node{serviceNode(service)}
	}
	if program, here := v.programs[e.PID]; here {
		all := []routemap.Node{known.silent(program)}
		if !known.reports[program] {
			all = append(all, serviceNode(program))
		}
		return all
	}
	return slices.Collect(maps.Keys(known.hosts[e.Address]))
}

// called are the nodes that who is asked can be: besides, by the address by which others, and who calls it here, call it, and by where who reports listens.
func (v *hostView) called(known *hubNodes, e, caller hostmap.End, via string) []routemap.Node {
	if service, reports := v.Services[e.PID]; reports {
		return []routemap.Node{serviceNode(service)}
	}
	all := v.callers(known, e)
	if via == "" {
		return all
	}
	for _, listens := range []map[string]string{known.listens, known.here} {
		if service := listens[via]; service != "" && e.PID == 0 {
			return append(all, serviceNode(service), externalNode(via))
		}
	}
	if name, abstract := strings.CutPrefix(via, "@"); abstract {
		return append(all, externalNode("unix-abstract:"+name))
	}
	if strings.HasPrefix(via, "/") {
		return append(all, externalNode("unix:"+via), externalNode("unix://"+via), externalNode(via))
	}
	all = append(all, externalNode(via))
	for _, from := range v.callers(known, caller) {
		if known.routes[pair{from, externalNode(via)}] != nil {
			continue // it is known by its address
		}
		if name, is := known.spelled(from, caller, via); is {
			all = append(all, externalNode(name))
		}
	}
	return all
}
