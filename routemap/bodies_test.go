package routemap

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// asked is a call that the handler of an order makes, in ms after its begin.
type asked struct {
	op       string
	from, to int64
	class    string
	b        *Bodies
	a        *Asked
	part     bool // of the handler's work, that has a span of its own
	alone    bool // only the caller tells of it
}

// orderTrace is a page that has an order placed, by a handler that takes 100 ms.
func orderTrace(n int, class string, calls ...asked) *Trace {
	const ms = 1_000_000
	begin := int64(1e18) + int64(n)*1000*ms
	span := func(id, parent uint64, kind Kind, service, name string, from, to int64) Span {
		return Span{Trace: fmt.Sprint("order-", n), ID: id, Parent: parent, Kind: kind, Service: service, Name: name, Start: begin + from*ms, End: begin + to*ms, Request: -1, Response: -1}
	}
	spans := []Span{
		span(1, 0, Server, "gateway", "POST /orders", 0, 102), span(2, 1, Client, "gateway", "PlaceOrder", 0, 101),
		span(3, 2, Server, "orders", "PlaceOrder", 0, 100),
	}
	handler := &Bodies{}
	spans[2].Class, spans[2].Bodies = class, handler
	for i, c := range calls {
		parent, at := uint64(3), uint64(10+2*i)
		if c.part {
			parent = 100 + at
			spans = append(spans, span(parent, 3, Internal, "orders", "part", c.from, c.to))
		}
		client := span(at, parent, Client, "orders", c.op, c.from, c.to)
		client.Class, client.Bodies, client.Peer = c.class, c.b, "s-"+c.op
		if c.a != nil {
			told := *c.a
			told.Span = at
			handler.Asked = append(handler.Asked, told)
		}
		spans = append(spans, client)
		if !c.alone {
			spans = append(spans, span(at+1, at, Server, "s-"+c.op, c.op, c.from, c.to))
		}
	}
	return NewTrace(spans)
}

func seen(used bool, uses ...uint64) *Asked { return &Asked{Looked: true, Used: used, Uses: uses} }

// kinds are the findings of a map, as text.
func kinds(m *Map) (all []string) {
	for _, f := range m.Report().Findings {
		all = append(all, strings.TrimSpace(f.Kind+" "+f.Operation+" "+strings.Join(f.Steps, "+")))
	}
	slices.Sort(all)
	return all
}

// TestFollows: what a handler need not have waited for is found, and nothing that it had to, or may have had to.
func TestFollows(t *testing.T) {
	reserve, quote, mail := asked{op: "Reserve", from: 1, to: 20, a: seen(false)}, asked{op: "Quote", from: 21, to: 40, a: seen(true)}, asked{op: "Send", from: 41, to: 90, a: seen(false, 12)}
	with := func(c asked, change func(*asked)) asked { change(&c); return c }
	order := []asked{reserve, quote, mail}
	serial, unused := "serial Quote Reserve+Quote", "unused Send"
	for name, c := range map[string]struct {
		often  []asked // twenty times
		class  string
		once   []asked // besides
		onceAs string  // the handler's error then
		want   []string
	}{
		"as planted":                    {often: order, want: []string{serial, unused}},
		"in parts that the user traces": {often: []asked{reserve, with(quote, func(c *asked) { c.part = true }), with(mail, func(c *asked) { c.part = true })}, want: []string{serial, unused}},
		"four of them, and others that were not looked at": {often: []asked{with(reserve, func(c *asked) { c.a = nil }), with(quote, func(c *asked) { c.a = nil }), with(mail, func(c *asked) { c.a = nil })}, once: order, want: nil},
		"the second uses the answer":                       {often: []asked{reserve, with(quote, func(c *asked) { c.a = seen(true, 10) }), mail}, want: []string{unused}},
		"it did once":                                      {often: order, once: []asked{reserve, with(quote, func(c *asked) { c.a = seen(true, 10) }), mail}, want: []string{unused}},
		"it uses another one's":                            {often: []asked{{op: "First", from: 0, to: 1, a: seen(true)}, with(reserve, func(c *asked) {}), with(quote, func(c *asked) { c.a = seen(true, 10) }), mail}, want: []string{serial, unused}},
		"both at once, one time":                           {often: order, once: []asked{reserve, with(quote, func(c *asked) { c.from = 19 }), mail}, want: []string{unused}},
		"the other way round, at once":                     {often: order, once: []asked{with(quote, func(c *asked) { c.from = 1; c.to = 30 }), with(reserve, func(c *asked) { c.from = 2 }), mail}, want: []string{unused}},
		"something between":                                {often: []asked{reserve, {op: "Between", from: 20, to: 21, a: seen(true)}, quote, mail}, want: []string{unused}},
		"the first is short":                               {often: []asked{with(reserve, func(c *asked) { c.to = 5 }), quote, mail}, want: []string{unused}},
		"the second is short":                              {often: []asked{reserve, with(quote, func(c *asked) { c.to = 25 }), mail}, want: []string{unused}},
		"the first was not looked at":                      {often: []asked{with(reserve, func(c *asked) { c.a = &Asked{} }), quote, mail}, want: []string{unused}},
		"the answer is used":                               {often: []asked{reserve, quote, with(mail, func(c *asked) { c.a = seen(true, 12) })}, want: []string{serial}},
		"the answer was used once":                         {often: order, once: []asked{reserve, quote, with(mail, func(c *asked) { c.a = seen(true, 12) })}, want: []string{serial}},
		"the handler failed with it":                       {often: order, once: []asked{reserve, quote, with(mail, func(c *asked) { c.class = ClassError; c.a = nil })}, onceAs: ClassError, want: []string{serial}},
		"the handler did not fail with it":                 {often: order, once: []asked{reserve, quote, with(mail, func(c *asked) { c.class = ClassError; c.a = nil })}, want: []string{serial, unused}},
		"another call after it":                            {often: append(slices.Clone(order), asked{op: "Log", from: 91, to: 92, a: seen(true)}), want: []string{serial, "serial Send Quote+Send"}[:1]},
		"another one still runs":                           {often: []asked{reserve, quote, {op: "Log", from: 30, to: 95, a: seen(true)}, mail}, want: []string{serial}},
		"the last is short":                                {often: []asked{reserve, quote, with(mail, func(c *asked) { c.to = 44 })}, want: []string{serial}},
		"all that the handler asks":                        {often: []asked{mail}, want: nil},
		"the last is used, not the second":                 {often: []asked{reserve, with(mail, func(c *asked) { c.a = seen(true) })}, want: []string{"serial Send Reserve+Send"}},
		"unused, and not told of as second":                {often: []asked{reserve, with(mail, func(c *asked) { c.a = seen(false) })}, want: []string{unused}},
		"the same again and again":                         {often: []asked{reserve, with(reserve, func(c *asked) { c.from, c.to = 20, 40 }), with(reserve, func(c *asked) { c.from, c.to = 40, 60; c.a = seen(true) })}, want: nil},
		"tried again":                                      {often: []asked{with(quote, func(c *asked) { c.class = ClassError; c.a = nil }), with(quote, func(c *asked) { c.from, c.to = 41, 60 })}, want: nil},
	} {
		m := New()
		for n := range 20 {
			calls := c.often
			if strings.HasPrefix(name, "four") && n < 4 {
				calls = order
			}
			m.Add(orderTrace(n, c.class, calls...))
		}
		if c.once != nil && !strings.HasPrefix(name, "four") {
			m.Add(orderTrace(100, c.onceAs, c.once...))
		}
		if got := kinds(m); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// TestFollowsText: what is found says who waits for what, how much, and what is not known.
func TestFollowsText(t *testing.T) {
	m := New()
	for n := range 10 {
		m.Add(orderTrace(n, "", asked{op: "Reserve", from: 1, to: 21, a: seen(false)}, asked{op: "Quote", from: 21, to: 31, a: seen(true)}, asked{op: "Send", from: 41, to: 90, a: seen(false)}))
	}
	all := m.Report().Findings
	if len(all) != 2 || all[0].Kind != Unused || all[1].Kind != Serial {
		t.Fatalf("%+v", all)
	}
	if f := all[0]; f.From.Name != "orders" || f.To.Name != "s-Send" || f.Within != "PlaceOrder" || f.Cost != 490e6 || f.Values["share"] != 0.49 || f.Values["groups"] != 10 || len(f.Evidence) != maxEvidence || f.Evidence[0].Span != 14 || !strings.Contains(f.Text, "Suspected") {
		t.Errorf("%+v", f)
	}
	if f := all[1]; f.To.Name != "s-Quote" || f.Cost != 100e6 || f.Values["ms"] != 10 || f.Evidence[0].Span != 3 || !strings.Contains(f.Text, "PlaceOrder waits for Reserve before it calls Quote") || !strings.Contains(f.Text, "10ms") {
		t.Errorf("%+v", f)
	}
}

// blobs are pieces of 2,500 bytes.
func blobs(names ...byte) (all []Blob) {
	for _, n := range names {
		all = append(all, Blob{[16]byte{n}, 2500})
	}
	return all
}

// TestCarried: what goes over more than one route of a trace is found, with its way; what is only on one is not, nor what seldom goes on.
func TestCarried(t *testing.T) {
	call := func(op string, from, to int64, request, response []Blob) asked {
		return asked{op: op, from: from, to: to, b: &Bodies{Request: request, Response: response}}
	}
	get, place, send := "orders → s-Get Get (answer)", "orders → s-Place Place", "orders → s-Send Send"
	for name, c := range map[string]struct {
		often, else10 []asked
		steps         []string
		bytes, share  float64
	}{
		"on three routes":       {often: []asked{call("Get", 1, 9, nil, blobs(1, 2)), call("Place", 10, 50, blobs(1, 2), nil), call("Send", 20, 30, blobs(2, 1), nil)}, steps: []string{get, place, send}, bytes: 15000, share: 1},
		"in half of the traces": {often: []asked{call("Get", 1, 9, nil, blobs(1)), call("Send", 20, 30, blobs(1), nil)}, else10: []asked{call("Get", 1, 9, nil, blobs(1)), call("Send", 20, 30, blobs(2), nil)}, steps: []string{get, send}, bytes: 5000, share: 0.5},
		"some go further":       {often: []asked{call("Get", 1, 9, nil, blobs(1, 2)), call("Place", 10, 50, blobs(1, 2), nil), call("Send", 20, 30, blobs(2), nil)}, steps: []string{get, place, send}, bytes: 7500, share: 1},
		"more than once":        {often: []asked{call("Get", 1, 9, nil, blobs(1)), call("Send", 10, 20, blobs(1), nil), call("Send", 20, 30, blobs(1), nil)}, steps: []string{get, send}, bytes: 7500, share: 1},
		"on one route":          {often: []asked{call("Send", 1, 9, blobs(1), blobs(1)), call("Send", 10, 50, blobs(1), nil)}},
		"different ones":        {often: []asked{call("Get", 1, 9, nil, blobs(1)), call("Send", 10, 50, blobs(2), nil)}},
		"not looked at":         {often: []asked{{op: "Get", from: 1, to: 9}, call("Send", 10, 50, blobs(2), nil)}},
	} {
		m := New()
		for n := range 10 {
			m.Add(orderTrace(n, "", c.often...))
			if c.else10 != nil {
				m.Add(orderTrace(100+n, "", c.else10...))
			}
		}
		all := m.Report().Findings
		if c.steps == nil {
			if len(all) > 0 {
				t.Errorf("%s: %+v", name, all)
			}
			continue
		}
		if len(all) != 1 || all[0].Kind != CarriedOn || !slices.Equal(all[0].Steps, c.steps) || all[0].Values["bytes"] != c.bytes || all[0].Values["share"] != c.share || all[0].Operation != "Send" {
			t.Errorf("%s: %+v", name, all)
		}
	}
	few, seldom := New(), New()
	both := []asked{call("Get", 1, 9, nil, blobs(1)), call("Send", 10, 50, blobs(1), nil)}
	for n := range 4 {
		few.Add(orderTrace(n, "", both...))
	}
	for n := range 200 {
		if seldom.Add(orderTrace(n, "", call("Send", 10, 50, blobs(1), nil))); n < 6 {
			seldom.Add(orderTrace(1000+n, "", both...))
		}
	}
	if a, b := kinds(few), kinds(seldom); len(a)+len(b) > 0 {
		t.Errorf("in four traces: %q; in 6 of 206: %q", a, b)
	}
}

// TestNotes: what others tell of a span is put with it, and is no span; if the span is not there it is nothing.
func TestNotes(t *testing.T) {
	spans := []Span{
		{Trace: "t", ID: 1, Kind: Client, Service: "a", Peer: "b", Name: "x", Start: 5, End: 9}, {Trace: "t", ID: 2, Parent: 1, Kind: Server, Service: "b", Name: "x", Start: 6, End: 9},
		{Trace: "t", ID: 3, Parent: 2, Kind: Client, Service: "b", Peer: "c", Name: "y", Start: 7, End: 8},
	}
	ofClient := Span{Trace: "t", ID: 1, Note: true, Bodies: &Bodies{Request: blobs(1)}}
	ofHandler := Span{Trace: "t", ID: 1, Note: true, Bodies: &Bodies{Asked: []Asked{{Span: 3, Looked: true}, {Span: 77}}}}
	stray := Span{Trace: "t", ID: 99, Note: true, Bodies: &Bodies{Request: blobs(1)}}
	for _, notes := range [][]Span{{ofClient, ofHandler, stray}, {stray, ofHandler, ofHandler, ofClient, {Trace: "t", ID: 1, Note: true}}} {
		tr := NewTrace(append(slices.Clone(spans), notes...))
		if tr.Len() != 3 || tr.Span(0).Bodies != ofClient.Bodies || !tr.nodes[2].looked() || len(tr.Faults()) > 0 {
			t.Errorf("%d spans, %+v, %+v, %v", tr.Len(), tr.Span(0).Bodies, tr.nodes[2].asked, tr.Faults())
		}
	}
	m := New()
	tr := NewTrace([]Span{stray})
	if m.Add(tr); tr.Len() != 0 || m.Report().Traces != 0 {
		t.Error("a note alone is a trace")
	}
}

// TestFollowsMerged: maps of parts of what was planted, merged, or stored and loaded, find it as one map of all does; also where only callers tell of a service at first.
func TestFollowsMerged(t *testing.T) {
	all, merged, loaded := New(), New(), New()
	var parts []*Map
	for n := range 21 {
		if n%7 == 0 {
			parts = append(parts, New())
		}
		calls := []asked{
			{op: "Reserve", from: 1, to: 20, a: seen(false), b: &Bodies{Request: blobs(1)}}, {op: "Quote", from: 21, to: 40, a: seen(true), alone: n%2 == 0},
			{op: "Send", from: 41, to: 90, a: seen(false), b: &Bodies{Request: blobs(1)}, alone: n%2 == 1},
		}
		for _, m := range []*Map{all, parts[len(parts)-1]} {
			m.Add(orderTrace(n, "", calls...))
		}
	}
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
	want := []string{"carried Send orders → s-Reserve Reserve+orders → s-Send Send", "serial Quote Reserve+Quote", "unused Send"}
	for name, m := range map[string]*Map{"all": all, "merged": merged, "loaded": loaded} {
		if got := kinds(m); !slices.Equal(got, want) {
			t.Errorf("%s: %q", name, got)
		}
		for _, f := range m.Report().Findings {
			if n := f.Values["groups"] + f.Values["traces"]; n != 21 {
				t.Errorf("%s: %s by %v of 21", name, f.Kind, n)
			}
		}
	}
}

// TestPreferBodies: what is found is shown by traces that are kept.
func TestPreferBodies(t *testing.T) {
	m := New()
	var last *Trace
	for n := range 20 {
		last = orderTrace(n, "", asked{op: "Reserve", from: 1, to: 20, a: seen(false), b: &Bodies{Request: blobs(1)}}, asked{op: "Quote", from: 21, to: 40, a: seen(true)}, asked{op: "Send", from: 41, to: 90, a: seen(false), b: &Bodies{Request: blobs(1)}})
		m.Add(last)
	}
	m.Prefer([]*Trace{last})
	found := m.Report().Findings
	for _, f := range found {
		if len(f.Evidence) != 1 || f.Evidence[0].Trace != "order-19" {
			t.Errorf("%s: %+v", f.Kind, f.Evidence)
		}
	}
	if len(found) != 3 {
		t.Errorf("%d are found", len(found))
	}
}

// TestSightings: blobs are put in order of time, then of spans, without names; of one span the request comes before the answer.
func TestSightings(t *testing.T) {
	var all []sighting
	for i := range 1000 {
		all = append(all, sighting{hop{operation: "op", answer: i%2 == 1}, int64(i / 2 * 7919 % 10), i / 2})
	}
	compared := slices.Clone(all)
	if n := testing.AllocsPerRun(1, func() {
		for i := range all {
			if o := all[(i+2)%len(all)]; o.compare(all[i]) == 0 {
				t.Errorf("%+v and %+v are the same", o, all[i])
			}
		}
	}); n != 0 {
		t.Errorf("comparing allocates %.0f times", n)
	}
	slices.SortFunc(compared, sighting.compare)
	for i, s := range compared[1:] {
		was := compared[i]
		if s.at < was.at || s.at == was.at && (s.span < was.span || s.span == was.span && was.answer) {
			t.Errorf("%+v before %+v", was, s)
		}
	}
}

// TestCarriedMany: of very many chains those with the most bytes are found, and of what share of the traces they are.
func TestCarriedMany(t *testing.T) {
	m := New()
	node := func(s string) Node { return Node{Service, s} }
	for i := range maxNodes - 1 {
		op := fmt.Sprint("op", i)
		m.route(Key{From: node("s"), To: node("t"), Operation: op, Mode: Async}).Looked = 100
		m.route(Key{From: node("s"), To: node("t"), Operation: op, Mode: Sync}).Looked = 200
		chain := []hop{{from: node("s"), to: node("t"), operation: "first"}, {from: node("s"), to: node("t"), operation: op, answer: true}}
		m.carriedBy(chain).merge(&carried{chain: chain, traces: 50, bytes: uint64(i)})
	}
	all, left := m.foundCarried()
	if len(all) != maxCarriedFound || len(all)+left != maxNodes-1 || m.Report().Folded[FoldedCarried] != uint64(left) {
		t.Fatalf("%d are found, and %d are not looked at; %v", len(all), left, m.Report().Folded)
	}
	for _, f := range all {
		if f.Values["share"] != 0.25 || f.Values["bytes"] < float64(maxNodes-1-maxCarriedFound)/50 {
			t.Errorf("%+v", f.Values)
		}
	}
}
