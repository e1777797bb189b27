package routemap

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// Report is a map as it is shown, and written as JSON.
type Report struct {
	Version  int               `json:"version"`
	Window   Window            `json:"window"`
	Traces   uint64            `json:"traces"`
	Whole    uint64            `json:"whole"` // traces with one root
	Spans    uint64            `json:"spans"`
	Nameless uint64            `json:"nameless"` // clients' spans that do not say who is called
	Faults   map[string]uint64 `json:"faults"`
	Folded   map[string]uint64 `json:"folded,omitempty"` // what was beyond what a map tells apart, by what it was: each time, how many were counted together as other, or left out
	Hosts    []Others          `json:"hosts,omitempty"`  // of which it is known what others used; the most contaminated first
	Nodes    []NodeReport      `json:"nodes"`
	Routes   []Route           `json:"routes"`   // the costliest first
	Paths    []HotPath         `json:"paths"`    // by root
	Blocking []BlockingPoint   `json:"blocking"` // where most wait first
	Chains   []Chain           `json:"chains"`   // the deepest first
	Findings []Finding         `json:"findings"` // the costliest first
}

// ReportVersion changes with the meaning of a field.
const ReportVersion = 1

// Window is the time that a map is of.
type Window struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
}

// NodeReport is a node and what is known of it.
type NodeReport struct {
	Node
	NodeStats
}

// settle takes those for services that are known to be some, although only their callers told of them at first.
func (m *Map) settle() {
	for _, k := range inOrder(m.routes) {
		if settled := m.Settled(k); settled != k {
			s := m.routes[k]
			delete(m.routes, k)
			m.route(settled).merge(m.rand, s)
		}
	}
	for k, p := range m.plusOnes {
		if to, is := m.service(k.to); is {
			delete(m.plusOnes, k)
			k.to = to
			m.plusOne(k).merge(p)
		}
	}
	m.settleCarried()
	m.settleFollows()
}

// Settled is a route's key, of a service where only its callers told of it at first, and as it is counted, if it is.
func (m *Map) Settled(k Key) Key {
	if to, is := m.service(k.To); is {
		k.To = to
	}
	if counted, is := m.folded[k]; is {
		return counted
	}
	return k
}

// Stats is what is known of a route; nil: nothing. It is the map's.
func (m *Map) Stats(k Key) *Stats { return m.routes[k] }

// service is a node that only callers told of, as the service that it is, if it is one.
func (m *Map) service(n Node) (Node, bool) {
	s := Node{Service, n.Name}
	return s, n.Kind == External && m.nodes[s] != nil
}

// Report returns what the map knows now. Its stats are the map's, until the next Add.
func (m *Map) Report() *Report {
	m.settle()
	m.fit(true)
	r := &Report{
		Version: ReportVersion, Traces: m.traces, Whole: m.whole, Spans: m.spans, Nameless: m.nameless, Faults: maps.Clone(m.faults),
		Nodes: []NodeReport{}, Routes: []Route{}, Chains: []Chain{}, Paths: m.paths.hot(), Blocking: m.blocking(), Folded: m.Folded(), Hosts: m.others(),
	}
	var left int
	if r.Findings, left = m.findings(); left > 0 {
		r.Folded[FoldedCarried] += uint64(left)
	}
	if m.spans > 0 || m.fixed {
		r.Window = Window{time.Unix(0, m.first).UTC(), time.Unix(0, m.last).UTC()}
	}
	nodes := maps.Clone(m.nodes)
	for k, s := range m.routes {
		s.Calls = max(s.Calls, s.Paired) // a client that has ended may not have told of its last calls, of which the server did
		r.Routes = append(r.Routes, Route{k, s})
		for _, n := range []Node{k.From, k.To} {
			if nodes[n] == nil {
				nodes[n] = &NodeStats{}
			}
		}
	}
	slices.SortFunc(r.Routes, func(a, b Route) int {
		return cmp.Or(cmp.Compare(b.Cost(), a.Cost()), cmp.Compare(b.Calls, a.Calls), cmp.Compare(a.Key.String(), b.Key.String()), cmp.Compare(a.Transport, b.Transport), cmp.Compare(a.Mode, b.Mode))
	})
	for n, s := range nodes {
		one := NodeReport{n, *s}
		one.Processes = s.seen.count()
		r.Nodes = append(r.Nodes, one)
	}
	slices.SortFunc(r.Nodes, func(a, b NodeReport) int {
		return cmp.Or(cmp.Compare(b.Critical, a.Critical), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Kind, b.Kind))
	})
	for _, c := range m.chains {
		one := *c
		one.Mean = float64(c.sum) / float64(c.Traces)
		r.Chains = append(r.Chains, one)
	}
	slices.SortFunc(r.Chains, func(a, b Chain) int { return cmp.Or(cmp.Compare(b.Depth, a.Depth), cmp.Compare(a.Root, b.Root)) })
	return r
}
