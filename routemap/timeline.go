package routemap

// Timeline is a trace as it is shown: its spans on one clock, parents before children.
type Timeline struct {
	ID       string
	Start    int64 // ns since 1970, of the span that began first
	Duration int64 // ns, until the last one ended
	Failed   bool  // any span has an error
	Spans    []TimelineSpan
}

// TimelineSpan is a span of a timeline.
type TimelineSpan struct {
	ID       uint64
	Parent   int // in Spans; -1: none that the trace has
	Service  string
	Name     string
	Kind     Kind
	Start    int64 // ns after the trace's
	Duration int64
	Error    string // its class; empty: there is none
	Route    string // ID of the route of which it is a call, on either side; empty: none
	Half     bool   // its call is told by its parent, too, which counts
	Critical [][2]int64
	Waits    *SpanWaits // nil: they are not said
	Call     *SpanCall  // nil: it is not said
	Weight   uint32     // of a root: how many calls it stands for; 0: one
}

// Calls calls yield for each call of a route, with how long it took.
func (t *Timeline) Calls(yield func(route string, took int64)) {
	for i := range t.Spans {
		if s := &t.Spans[i]; s.Route != "" && !s.Half {
			yield(s.Route, s.Duration)
		}
	}
}

// Timeline makes that of a trace. Its routes have the names that they have on the map.
func (m *Map) Timeline(t *Trace) *Timeline {
	out := &Timeline{ID: t.ID, Spans: make([]TimelineSpan, 0, t.Len())}
	if t.Len() == 0 {
		return out
	}
	at := make([]int, t.Len()) // by the trace's number
	out.Start = t.nodes[t.roots[0]].start
	for i := range t.nodes {
		out.Start = min(out.Start, t.nodes[i].start)
	}
	var steps []int
	for i := len(t.roots) - 1; i >= 0; i-- {
		steps = append(steps, t.roots[i])
	}
	for len(steps) > 0 {
		i := steps[len(steps)-1]
		steps = steps[:len(steps)-1]
		n := &t.nodes[i]
		at[i] = len(out.Spans)
		s := TimelineSpan{ID: n.ID, Parent: -1, Service: n.Service, Name: n.Name, Kind: n.Kind, Start: n.start - out.Start, Duration: n.end - n.start, Error: n.Class, Waits: n.Waits, Call: n.Call, Weight: n.Weight}
		if n.parent >= 0 {
			s.Parent = at[n.parent]
		}
		out.Spans = append(out.Spans, s)
		out.Duration = max(out.Duration, s.Start+s.Duration)
		out.Failed = out.Failed || n.Class != ""
		for j := len(n.children) - 1; j >= 0; j-- {
			steps = append(steps, n.children[j])
		}
	}
	m.nameCalls(out, t, at)
	for _, r := range t.roots {
		for _, s := range t.CriticalPath(r) {
			of := &out.Spans[at[s.Span]]
			of.Critical = append(of.Critical, [2]int64{s.Start - out.Start, s.End - out.Start})
		}
	}
	return out
}

// nameCalls says of which routes a timeline's spans are calls.
func (m *Map) nameCalls(out *Timeline, t *Trace, at []int) {
	calls, _ := t.calls()
	ids := map[Key]string{}
	for i := range calls {
		c := &calls[i]
		id, known := ids[c.key]
		if !known {
			id = m.Settled(c.key).ID()
			ids[c.key] = id
		}
		if c.server >= 0 {
			s := &out.Spans[at[c.server]]
			s.Route, s.Half = id, c.client >= 0
		}
		if c.client >= 0 {
			out.Spans[at[c.client]].Route = id
		}
	}
}

// Root is the service and the operation of the first span without a parent, and how long it took.
func (t *Trace) Root() (n Node, op string, took int64) {
	if len(t.roots) == 0 {
		return Node{}, "", 0
	}
	r := &t.nodes[t.roots[0]]
	return t.self(t.roots[0]), operation(r.Span), r.end - r.start
}

// Failed tells whether any span has an error.
func (t *Trace) Failed() bool {
	for i := range t.nodes {
		if t.nodes[i].Class != "" {
			return true
		}
	}
	return false
}

// Prefer has what stands out, and routes, shown by traces that were added, as far as these have it, and not by others.
func (m *Map) Prefer(traces []*Trace) {
	routes, rows := map[*Stats][]Evidence{}, map[*[]Evidence][]Evidence{}
	show := func(of *[]Evidence, by []Evidence) { rows[of] = evidence(rows[of], by) }
	for _, t := range traces {
		v := viewOf(t)
		shown := map[*Stats]bool{} // by this trace
		for i := range v.calls {
			c := &v.calls[i]
			if s := m.routes[m.Settled(c.key)]; s != nil && !shown[s] && len(routes[s]) < maxEvidence {
				shown[s] = true
				routes[s] = append(routes[s], Evidence{t.ID, SpanHex(v.nodes[c.waits()].ID)})
			}
		}
		v.plusOnes(func(k plusOneKey, p *plusOne) {
			if of := m.plusOnes[k]; of != nil {
				show(&of.evidence, p.evidence)
			}
		})
		v.carried(func(c *carried) {
			if of := m.carried[chainKey(c.chain)]; of != nil {
				show(&of.evidence, c.evidence)
			}
		})
		v.follows(func(k followKey, f *follow) {
			if of := m.follows[k]; of != nil && len(f.evidence) > 0 {
				show(&of.evidence, f.evidence)
			}
		})
		for _, r := range v.roots {
			m.preferChain(v, r)
		}
	}
	for s, e := range routes {
		s.Evidence = e
	}
	for of, e := range rows {
		*of = e
	}
}
