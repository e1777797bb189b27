package routemap

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// someTraces are traces of services that call each other, with errors, messages, and calls one after the other.
func someTraces(seed uint64, n int) (all []*Trace) {
	r := rand.New(rand.NewPCG(seed, seed))
	looks := rand.New(rand.NewPCG(seed, 1))
	for i := range n {
		var spans []Span
		var grow func(parent uint64, service string, from, to int64, depth int)
		grow = func(parent uint64, service string, from, to int64, depth int) {
			calls := r.IntN(4)
			if r.IntN(8) == 0 {
				calls = 6 // of one operation, perhaps
			}
			for c := range calls {
				if depth > 3 {
					return
				}
				begin := from + (to-from)*int64(c)/int64(calls)
				end := begin + (to-from)/int64(calls)
				target := fmt.Sprint("s", r.IntN(5))
				client := Span{
					Trace: fmt.Sprint(seed, "-", i), ID: uint64(len(spans) + 1), Parent: parent, Kind: Client, Service: service, Name: "Get", Peer: target, PeerKind: External,
					Start: begin, End: end, Request: int64(r.IntN(1000)), Response: -1, Print: uint64(r.IntN(3)),
				}
				if r.IntN(10) == 0 {
					client.Class = ClassError
				}
				if looks.IntN(4) > 0 {
					client.Bodies = someBodies(looks, client.ID)
				}
				spans = append(spans, client)
				if r.IntN(5) == 0 {
					continue // which only its caller tells of
				}
				server := client
				server.ID, server.Parent, server.Kind, server.Service, server.Name = client.ID+1, client.ID, Server, target, fmt.Sprint("Get", r.IntN(2))
				server.Start, server.End = begin+(end-begin)/10, end-(end-begin)/10
				if r.IntN(10) == 0 {
					server.Kind = Consumer
				}
				spans = append(spans, server)
				grow(server.ID, target, server.Start, server.End, depth+1)
			}
		}
		begin := int64(1e18) + r.Int64N(1e9)
		root := Span{Trace: fmt.Sprint(seed, "-", i), ID: 1, Kind: Server, Service: "front", Name: fmt.Sprint("Page", r.IntN(2)), Start: begin, End: begin + 1e6 + r.Int64N(1e6), Request: -1, Response: -1}
		spans = append(spans, root)
		grow(1, "front", root.Start, root.End, 0)
		all = append(all, NewTrace(spans))
	}
	return all
}

// someBodies carry one of a few blobs; the call may use the answer of an earlier one.
func someBodies(r *rand.Rand, id uint64) *Bodies {
	a := Asked{Span: id, Looked: r.IntN(8) > 0, Used: r.IntN(40) == 0}
	if r.IntN(40) == 0 {
		a.Uses = []uint64{id - 2}
	}
	return &Bodies{Request: []Blob{{[16]byte{byte(r.IntN(20))}, 1500}}, Asked: []Asked{a}}
}

// asText is a report without what depends on the order of traces.
func asText(t *testing.T, m *Map, samples bool) string {
	t.Helper()
	r := m.Report()
	for i := range r.Routes {
		s := *r.Routes[i].Stats
		s.Evidence, s.Samples = nil, slices.Sorted(slices.Values(s.Samples))
		if !samples {
			s.Samples = nil
		}
		r.Routes[i].Stats = &s
	}
	for i := range r.Paths {
		r.Paths[i].Tail = math.Round(r.Paths[i].Tail*1e9) / 1e9
		if !samples {
			r.Paths[i].Tail = 0
		}
	}
	for i := range r.Chains {
		r.Chains[i].Evidence, r.Chains[i].Steps = Evidence{}, nil // of several as deep
	}
	for i := range r.Findings {
		r.Findings[i].Evidence = nil
	}
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestMerge: maps of parts of traces, merged, or stored and loaded, say what the map of all says.
func TestMerge(t *testing.T) {
	for seed := range uint64(6) {
		traces := someTraces(seed+1, 60)
		all, merged, loaded := New(), New(), New()
		parts := []*Map{New(), New(), New(), New()} // the last one is empty
		r := rand.New(rand.NewPCG(seed, 7))
		for _, tr := range traces {
			all.Add(tr)
			parts[r.IntN(3)].Add(tr)
		}
		for _, p := range parts {
			if seed%2 == 0 {
				p.Report() // which takes some for services
			}
			rest, err := p.Store(loaded.LoadRoute)
			if err != nil {
				t.Fatal(err)
			}
			if err := loaded.Load(rest); err != nil {
				t.Fatal(err)
			}
			merged.Merge(p)
		}
		for _, m := range []*Map{all, loaded} {
			m.Between(time.Unix(1e9, 0), time.Unix(1e9+10, 0))
		}
		if got, want := asText(t, loaded, false), asText(t, all, false); got != want {
			t.Fatalf("seed %d: stored and loaded, %s\nof all: %s", seed, got, want)
		}
		all.fixed = false
		all.first, all.last = merged.first, merged.last
		if got, want := asText(t, merged, true), asText(t, all, true); got != want {
			t.Fatalf("seed %d: merged, %s\nof all: %s", seed, got, want)
		}
	}
}

// TestMixed: of two samples that stand for different numbers of things each thing is as likely as any other.
func TestMixed(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, c := range []struct {
		a, b   int // how many are sampled
		na, nb uint64
	}{{64, 64, 1000, 10_000}, {64, 10, 1000, 10}, {512, 512, 512, 512}, {3, 1, 3, 1}, {512, 1, 1_000_000, 1}, {0, 5, 0, 100}, {64, 64, 64, 640}} {
		a, b := make([]int, c.a), slices.Repeat([]int{1}, c.b)
		ones, all := 0, 0
		for range 4000 {
			got := mixed(r, slices.Clone(a), c.na, b, c.nb, maxSamples)
			if len(got) > maxSamples || len(got) > c.a+c.b {
				t.Fatalf("%+v: %d samples", c, len(got))
			}
			for _, v := range got {
				ones += v
			}
			all += len(got)
		}
		want := float64(c.nb) / float64(c.na+c.nb)
		if got := float64(ones) / float64(all); math.Abs(got-want) > 0.01*math.Sqrt(want)+1e-4 {
			t.Errorf("%+v: a share of %.4f is the second one's, want %.4f", c, got, want)
		}
	}
}

// TestExtremes: neither do sums of long durations become negative, nor do deep traces make long chains.
func TestExtremes(t *testing.T) {
	const day = int64(24 * time.Hour)
	m := New()
	one := NewTrace([]Span{
		{Trace: "t", ID: 1, Kind: Client, Service: "a", Name: "x", Start: 1, End: 1 + day, Request: -1, Response: -1},
		{Trace: "t", ID: 2, Parent: 1, Kind: Server, Service: "b", Name: "x", Start: 1000, End: day - 1000, Request: -1, Response: -1},
	})
	for range 70_000 {
		m.Add(one)
	}
	both := New()
	both.Merge(m)
	both.Merge(m)
	for _, m := range []*Map{m, both} {
		r := m.Report()
		for _, route := range r.Routes {
			if route.Through <= 0 || route.Critical < 0 || route.Alone < 0 || route.Callers < 0 {
				t.Errorf("%+v", route.Stats)
			}
		}
		for _, p := range r.Paths {
			if p.Each < 0 || p.Share < 0 {
				t.Errorf("%+v", p)
			}
		}
	}
	var deep []Span
	for i := range uint64(10_000) {
		deep = append(deep, Span{Trace: "t", ID: i + 1, Parent: i, Kind: []Kind{Client, Server}[i%2], Service: fmt.Sprint("s", (i+1)/2), Name: "x", Start: int64(1 + i), End: int64(100_000 - i), Request: -1, Response: -1})
	}
	m = New()
	m.Add(NewTrace(deep))
	if c := m.Report().Chains; len(c) != 1 || c[0].Depth != 5000 || len(c[0].Steps) != maxSteps || c[0].Steps[0] != "s1 x" {
		t.Errorf("%d steps of %d", len(c[0].Steps), c[0].Depth)
	}
}

// TestSweep: a trace is complete when it had no span between two sweeps, and is taken then, unless another one comes first; any can be, the oldest first.
func TestSweep(t *testing.T) {
	a := NewAssembler(0, nil)
	add := func(trace string, id uint64) { a.Add(Span{Trace: trace, ID: id, Start: 1, End: 2}) }
	taken := func(anyone bool) (got []string) {
		for spans := a.Take(anyone); spans != nil; spans = a.Take(anyone) {
			got = append(got, fmt.Sprint(spans[0].Trace, len(spans)))
		}
		return got
	}
	add("a", 1)
	add("b", 1)
	a.Sweep()
	add("a", 2)
	add("c", 1)
	if got := taken(false); len(got) != 0 {
		t.Errorf("%v after one sweep", got)
	}
	a.Sweep()
	if got := taken(false); !slices.Equal(got, []string{"b1"}) || a.Holds() != 3 || a.Room() != 3 {
		t.Errorf("%v, %d held, %d taken", got, a.Holds(), a.Room())
	}
	a.Sweep()
	add("a", 3) // late, but it has not been taken
	if got := taken(false); !slices.Equal(got, []string{"c1"}) {
		t.Errorf("%v", got)
	}
	if got := taken(true); !slices.Equal(got, []string{"a3"}) || a.Holds() != 0 || a.Room() != 0 {
		t.Errorf("%v, %d held, %d taken", got, a.Holds(), a.Room())
	}
}
