package routemap

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"
)

// inARow is a trace whose root calls another service five times, one call after the other, each of which takes so long; each call makes another one if it is deep.
func inARow(name string, took int64, deep bool) *Trace {
	spans := []Span{{Trace: name, ID: 1, Kind: Server, Service: "front", Name: name, Start: 1, End: 1 + 5*took, Request: -1, Response: -1}}
	next := uint64(2)
	call := func(parent uint64, from, to string, begin, end int64) uint64 {
		client := Span{Trace: name, ID: next, Parent: parent, Kind: Client, Service: from, Name: "Get", Start: begin, End: end, Request: -1, Response: -1}
		server := client
		server.ID, server.Parent, server.Kind, server.Service = next+1, next, Server, to
		spans = append(spans, client, server)
		next += 2
		return server.ID
	}
	for i := range int64(5) {
		at := call(1, "front", "back", 1+i*took, 1+(i+1)*took)
		if deep {
			call(at, "back", "store", 1+i*took, 1+(i+1)*took)
		}
	}
	return NewTrace(spans)
}

// TestCostliestStay: of more root operations and calls in a row than a map tells apart, those that cost most are there, whether they came first or last, and those that cost least are
// together under one name; how many these are is told. Nothing is missing, whatever is merged and stored meanwhile.
func TestCostliestStay(t *testing.T) {
	const junk = maxNotable + maxNotable/5 // more than are held
	const cost = 10_000                    // ns, of a cheap call
	m, parts := New(), []*Map{New(), New()}
	add := func(part int, tr *Trace) {
		m.Add(tr)
		parts[part].Add(tr)
	}
	add(0, inARow("first", 100*cost, true))
	for i := range junk {
		add(2*i/junk, inARow(fmt.Sprint("cheap", i), cost, false))
	}
	add(1, inARow("last", 100*cost, true))
	merged, loaded := New(), New()
	for _, p := range parts {
		rest, err := p.Store(loaded.LoadRoute)
		if err == nil {
			err = loaded.Load(rest)
		}
		if err != nil {
			t.Fatal(err)
		}
		merged.Merge(p)
	}
	const others = junk + 2 - maxNotable
	for _, m := range []*Map{m, merged, loaded} {
		r := m.Report()
		if len(r.Chains) != maxNotable+1 || r.Chains[0].Root != "front first" || r.Chains[1].Root != "front last" || r.Chains[1].Depth != 2 {
			t.Fatalf("%d chains, %+v", len(r.Chains), r.Chains[:2])
		}
		at := slices.IndexFunc(r.Chains, func(c Chain) bool { return c.Root == other })
		if at < 0 || r.Chains[at].Traces != others || r.Chains[at].Mean != 1 {
			t.Errorf("the other chains are %d of %d", at, len(r.Chains))
		}
		of, groups := map[string]Finding{}, 0.0
		for _, f := range r.Findings {
			of[f.Within] = f
			groups += f.Values["groups"]
		}
		if len(of) != maxNotable+1 || groups != junk+2 || of["first"].Cost != 5*100*cost || of["last"].Cost != 5*100*cost || of[other].Values["groups"] != others || of[other].Operation != other {
			t.Errorf("%d findings of %g groups: %+v, %+v, %+v", len(of), groups, of["first"], of["last"], of[other])
		}
		if r.Folded[FoldedChains] != others || r.Folded[FoldedPlusOnes] != others || len(r.Folded) != 2 {
			t.Errorf("folded %v", r.Folded)
		}
	}
	if before, again := m.Folded(), m.Report().Folded; !maps.Equal(before, again) {
		t.Errorf("folded %v, and then %v", before, again)
	}
}

// TestCostliestRoutes is TestCostliestStay for routes and nodes.
func TestCostliestRoutes(t *testing.T) {
	m := New()
	count := func(to string, ns int64) {
		s := &Stats{Calls: 1}
		s.Client.Record(ns)
		m.Counted(Key{From: Node{Service, "front"}, To: Node{Service, to}, Operation: "x", Mode: Sync}, s)
		m.node(Node{Service, to}).merge(&NodeStats{Spans: 1, Critical: ns})
	}
	const junk = maxRoutes + maxRoutes/5
	count("first", 2e9)
	for i := range junk {
		count(fmt.Sprint("cheap", i), 1000)
	}
	count("last", 1e9)
	r := m.Report()
	calls, spans, critical := uint64(0), uint64(0), int64(0)
	for _, route := range r.Routes {
		calls += route.Calls
	}
	for _, n := range r.Nodes {
		spans, critical = spans+n.Spans, critical+n.Critical
	}
	if len(r.Routes) != maxRoutes+1 || r.Routes[0].To.Name != "first" || r.Routes[1].To.Name != "last" || calls != junk+2 || r.Folded[FoldedRoutes] != junk+2-maxRoutes {
		t.Errorf("%d routes of %d calls, the costliest %v and %v; folded %v", len(r.Routes), calls, r.Routes[0].Key, r.Routes[1].Key, r.Folded)
	}
	if r.Nodes[0].Name != "first" || r.Nodes[1].Name != "last" || r.Nodes[2].Name != other || spans != junk+2 || critical != 1000*junk+3e9 || len(m.nodes) != maxNodes+1 || r.Folded[FoldedNodes] < junk+2-maxNodes {
		t.Errorf("%d nodes of %d spans, the costliest %v; folded %v", len(m.nodes), spans, r.Nodes[:3], r.Folded)
	}
}

// TestCostliestPaths is TestCostliestStay for paths: what was spent on those that are not told apart was spent above them, and what of a path is too deep is counted, too.
func TestCostliestPaths(t *testing.T) {
	const parts = 100
	page := func(name string, took int64) *Trace {
		spans := []Span{{Trace: name, ID: 1, Kind: Server, Service: "front", Name: name, Start: 1, End: 1 + parts*took, Request: -1, Response: -1}}
		for i := range int64(parts) {
			spans = append(spans, Span{Trace: name, ID: uint64(2 + i), Parent: 1, Service: "front", Name: fmt.Sprint("part", i), Start: 1 + i*took, End: 1 + (i+1)*took, Request: -1, Response: -1})
		}
		return NewTrace(spans)
	}
	const junk = (maxPaths + maxPaths/5) / (parts + 1)
	m := New()
	m.Add(page("first", 1e6))
	for i := range junk {
		m.Add(page(fmt.Sprint("cheap", i), 1000))
	}
	m.Add(page("last", 1e6))
	r := m.Report()
	steps, spent, traces := map[string]int{}, int64(0), map[string]uint64{}
	for _, p := range r.Paths {
		steps[p.Root] += len(p.Steps)
		spent += p.Each * int64(p.Traces)
		traces[p.Root] = p.Traces
	}
	all := uint64(0)
	for _, n := range traces {
		all += n
	}
	if steps["front first"] != parts || steps["front last"] != parts || spent != 2*parts*1e6+junk*parts*1000 || all != junk+2 || len(m.paths.all) > maxPaths || r.Folded[FoldedPaths] != uint64((junk+2)*(parts+1)-len(m.paths.all)) {
		t.Errorf("%d and %d parts of the dear pages, %d ns, %d traces, %d paths; folded %v", steps["front first"], steps["front last"], spent, all, len(m.paths.all), r.Folded)
	}
	var deep []Span
	for i := range uint64(maxSteps + 6) {
		deep = append(deep, Span{Trace: "t", ID: i + 1, Parent: i, Service: "s", Name: fmt.Sprint(i), Start: int64(1 + i), End: int64(1000 - i), Request: -1, Response: -1})
	}
	m = New()
	m.Add(NewTrace(deep))
	if n := m.Report().Folded[FoldedSteps]; n != 5 {
		t.Errorf("%d steps are too deep, not 5", n)
	}
}

// TestManyRoots: of more roots than there are paths those on which the least was spent are one.
func TestManyRoots(t *testing.T) {
	m := New()
	for i := range 5 * maxPaths / 4 {
		took := int64(1000)
		if i%2 == 0 && i >= maxPaths {
			took = 2000
		}
		m.Add(NewTrace([]Span{{Trace: fmt.Sprint(i), ID: 1, Kind: Server, Service: "front", Name: fmt.Sprint("page", i), Start: 1, End: 1 + took, Request: -1, Response: -1}}))
	}
	dear, all := 0, uint64(0)
	for _, p := range m.Report().Paths {
		all += p.Traces
		if p.Root != other && p.Each == 2000 {
			dear++
		}
	}
	if dear != maxPaths/8 || all != 5*maxPaths/4 {
		t.Errorf("%d of those that are dear are told apart, of %d traces in all", dear, all)
	}
}

// TestSurestFollows: what shows something is not lost among what does not, nor is it found because counter-examples are.
func TestSurestFollows(t *testing.T) {
	m := New()
	key := func(within string) followKey {
		return followKey{from: Node{Service, "s"}, within: within, last: step{Node{Service, "t"}, "x"}}
	}
	for i := range 3 * maxNotable {
		m.follow(key(fmt.Sprint("uses", i))).merge(&follow{seen: 1, used: 1})
		m.follow(key(fmt.Sprint("once", i))).merge(&follow{seen: 1, groups: 1, last: 10, saved: 10, handlers: 10})
		m.fit(false)
	}
	m.follow(key("unused")).merge(&follow{seen: 5, groups: 5, last: 50, saved: 50, handlers: 50})
	r := m.Report()
	if len(r.Findings) != 1 || r.Findings[0].Within != "unused" || len(m.follows) != 2*maxNotable || r.Folded[FoldedFollows] != 4*maxNotable+1 {
		t.Errorf("%+v; folded %v, %d are left", r.Findings, r.Folded, len(m.follows))
	}
}

// TestHostsFolded: of many hosts those that are the worst are told apart.
func TestHostsFolded(t *testing.T) {
	m := New()
	for i := range 2 * maxHosts {
		m.AddOthers(fmt.Sprint("quiet", i), time.Second, 0)
	}
	m.AddOthers("busy", time.Second, time.Second)
	r := m.Report()
	windows := uint64(0)
	for _, o := range r.Hosts {
		windows += o.Windows
	}
	if r.Hosts[0].Host != "busy" || windows != 2*maxHosts+1 || r.Folded[FoldedHosts] != maxHosts+1 {
		t.Errorf("%v is the worst of %d windows; folded %v", r.Hosts[0], windows, r.Folded)
	}
}

// TestBlobsCounted: pieces of bodies that a trace has no room for are counted.
func TestBlobsCounted(t *testing.T) {
	s := Span{Trace: "t", ID: 1, Kind: Client, Service: "a", Peer: "b", Name: "x", Start: 1, End: 2, Bodies: &Bodies{}}
	for i := range maxBlobs + 3 {
		s.Bodies.Request = append(s.Bodies.Request, Blob{[16]byte{byte(i), byte(i >> 8)}, 1024})
	}
	m := New()
	m.Add(NewTrace([]Span{s}))
	if n := m.Folded()[FoldedBlobs]; n != 3 {
		t.Errorf("%d pieces had no room, not 3", n)
	}
}
