package routemap

import (
	"fmt"
	"slices"
	"testing"
)

// TestTimeline: a trace has its spans on one clock, parents first, critical paths that make the roots' durations, and the calls that the map counts.
func TestTimeline(t *testing.T) {
	traces := someTraces(5, 200)
	m := New()
	for _, one := range traces {
		m.Add(one)
	}
	calls := map[string]uint64{}
	for _, one := range traces {
		out := m.Timeline(one)
		if out.ID != one.ID || len(out.Spans) != one.Len() || out.Failed != one.Failed() {
			t.Fatalf("%s: %d spans", out.ID, len(out.Spans))
		}
		var roots, critical, last int64
		for i, s := range out.Spans {
			if s.Parent >= i || s.Start < 0 || s.Start+s.Duration > out.Duration {
				t.Fatalf("%s: %+v at %d of %d ns", out.ID, s, i, out.Duration)
			}
			if s.Parent < 0 {
				roots += s.Duration
			}
			last = max(last, s.Start+s.Duration)
			for _, c := range s.Critical {
				if critical += c[1] - c[0]; c[0] < s.Start || c[1] > s.Start+s.Duration || c[0] >= c[1] {
					t.Fatalf("%s: %+v", out.ID, s)
				}
			}
		}
		if critical != roots || last != out.Duration {
			t.Errorf("%s: critical for %d of %d ns", out.ID, critical, roots)
		}
		out.Calls(func(route string, _ int64) { calls[route]++ })
	}
	report := m.Report()
	for _, r := range report.Routes {
		if calls[r.ID()] != r.Calls {
			t.Errorf("%s: %d calls, on the map %d", r.Key, calls[r.ID()], r.Calls)
		}
	}
	if len(calls) != len(report.Routes) {
		t.Errorf("%d routes, on the map %d", len(calls), len(report.Routes))
	}
	if none := m.Timeline(NewTrace(nil)); len(none.Spans) != 0 || none.Duration != 0 {
		t.Errorf("of no spans: %+v", none)
	}
}

// TestPrefer: what the map shows things by are the traces that are preferred, where they have them; nothing else changes.
func TestPrefer(t *testing.T) {
	traces := someTraces(6, 300)
	m, same := New(), New()
	for _, one := range traces {
		m.Add(one)
		same.Add(one)
	}
	preferred := traces[200:230]
	var ids []string
	has := map[string]bool{}
	for _, one := range preferred {
		ids = append(ids, one.ID)
		same.Timeline(one).Calls(func(route string, _ int64) { has[route] = true })
	}
	m.Prefer(preferred)
	for range 2 {
		r := m.Report()
		for _, route := range r.Routes {
			kept := slices.ContainsFunc(route.Evidence, func(e Evidence) bool { return slices.Contains(ids, e.Trace) })
			if kept != has[route.ID()] || len(route.Evidence) == 0 || len(route.Evidence) > maxEvidence {
				t.Errorf("%s is shown by %v", route.Key, route.Evidence)
			}
		}
		for _, f := range r.Findings {
			if len(f.Evidence) == 0 {
				t.Errorf("%+v", f)
			}
		}
		if got, want := asText(t, m, true), asText(t, same, true); got != want {
			t.Errorf("the map has changed:\n%s\n%s", got, want)
		}
		m.Prefer(preferred)
	}
	one := New()
	for i := range 20 {
		one.Add(NewTrace([]Span{{Trace: fmt.Sprint(i), ID: 1, Kind: Client, Service: "a", Name: "Get", Peer: "b", Start: 1, End: 2, Request: -1, Response: -1}}))
	}
	one.Prefer([]*Trace{NewTrace([]Span{{Trace: "19", ID: 1, Kind: Client, Service: "a", Name: "Get", Peer: "b", Start: 1, End: 2, Request: -1, Response: -1}})})
	if e := one.Report().Routes[0].Evidence; len(e) != 1 || e[0].Trace != "19" {
		t.Errorf("it is shown by %v", e)
	}
}
