package routemap

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestFold: a route that processes count is there once, with their numbers and what only traces know; one that they do not count is left as it is.
func TestFold(t *testing.T) {
	a, b := Node{Service, "a"}, Node{Service, "b"}
	k := Key{From: a, To: b, Transport: SHM, Operation: "s.S/M", Mode: Sync}
	for name, traced := range map[string]Key{
		"no way known": {From: a, To: b, Operation: "s.S/M", Mode: Sync}, "only callers tell": {From: a, To: Node{External, "b"}, Operation: "s.S/M", Mode: Sync}, "the same way": k,
	} {
		t.Run(name, func(t *testing.T) {
			m := New()
			other := Key{From: b, To: a, Operation: "s.S/M", Mode: Sync}
			for _, key := range []Key{traced, other} {
				s := m.route(key)
				s.Calls, s.Traced, s.Roots, s.Through, s.Sources = 3, 3, 2, 700, FromTraces
				s.Client.RecordN(100, 3)
				s.sample(m.rand, 100)
			}
			counted := &Stats{Calls: 9, Waits: Waits{Calls: 9, Handler: 900}}
			counted.Client.RecordN(110, 9)
			m.Counted(k, counted)
			m.Fold(func(from, to Node, operation string) (Key, bool) { return k, from == a && to == b })
			if got := m.Settled(traced); got != k {
				t.Errorf("its traces are found at %+v", got)
			}
			r := m.Report()
			if len(r.Routes) != 2 {
				t.Fatalf("%d routes: %v", len(r.Routes), r.Routes)
			}
			for _, got := range r.Routes {
				want := Stats{Calls: 9, Traced: 3, Roots: 2, Through: 700, Sources: FromStile | FromTraces}
				if got.Key == other {
					want.Calls, want.Sources = 3, FromTraces
				} else if got.Key != k {
					t.Errorf("%+v", got.Key)
				}
				if got.Calls != want.Calls || got.Traced != 3 || got.Roots != 2 || got.Through != 700 || got.Sources != want.Sources || got.Client.Count() != want.Calls || len(got.Samples) != 1 {
					t.Errorf("%s: %+v", got.Key, got.Stats)
				}
			}
			if _, err := json.Marshal(r); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestCountedAlone: without any trace a map says what routes cost, where callers wait as far as that can be known, and can be written.
func TestCountedAlone(t *testing.T) {
	m := New()
	for name, ns := range map[string]int64{"cheap": 10, "dear": 1_000_000} {
		s := &Stats{Calls: 1000}
		s.Client.RecordN(ns, 1000)
		m.Counted(Key{From: Node{Service, "a"}, To: Node{Service, "b"}, Operation: name, Mode: Sync}, s)
	}
	m.fixed, m.first, m.last = true, 1, 500_000_001
	r := m.Report()
	if len(r.Routes) != 2 || r.Routes[0].Operation != "dear" || r.Routes[0].Cost() != 1e9 || len(r.Findings) != 0 {
		t.Errorf("%+v", r)
	}
	if p := r.Blocking[0]; !p.Counted || !p.Flagged || p.Callers != 2 {
		t.Errorf("%+v", p)
	}
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal(text, &back); err != nil || back.Routes[0].Sources != FromStile {
		t.Errorf("%v, %+v", err, back.Routes)
	}
}

// TestDuplicated: a route whose calls ask and answer the same again is found, if that is much.
func TestDuplicated(t *testing.T) {
	for name, c := range map[string]struct {
		carried Carried
		found   bool
	}{
		"all the same": {Carried{Calls: 10, Same: 9, Request: 100, Response: 50_000}, true}, "half": {Carried{Calls: 20, Same: 10, Response: 20 << 10}, true},
		"few": {Carried{Calls: 9, Same: 9, Response: 50_000}, false}, "small": {Carried{Calls: 1000, Same: 999, Response: 100_000}, false}, "different": {Carried{Calls: 1000, Same: 400, Response: 10 << 20}, false},
	} {
		m := New()
		m.Counted(Key{From: Node{Service, "a"}, To: Node{Service, "b"}, Operation: "o", Mode: Sync}, &Stats{Calls: 1, Carried: c.carried})
		if got := m.Report().Findings; (len(got) == 1 && got[0].Kind == Duplicated) != c.found || len(got) > 1 {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// TestDecisionsAlone: a route of which there are decisions and no call is on the map, is merged and stored with them, and counts no call.
func TestDecisionsAlone(t *testing.T) {
	m, other, back := New(), New(), New()
	k := Key{From: Node{Service, "a"}, To: Node{Service, "b"}, Operation: "s.S/M", Mode: Sync}
	one := Decisions{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}
	m.Counted(k, &Stats{Decisions: one})
	other.Counted(k, &Stats{Decisions: one})
	m.Merge(other)
	rest, err := m.Store(back.LoadRoute)
	if err != nil {
		t.Fatal(err)
	}
	if err := back.Load(rest); err != nil {
		t.Fatal(err)
	}
	for _, of := range []*Map{m, back} {
		r := of.Report()
		if want := (Decisions{2, 4, 6, 8, 10, 12, 14, 16, 18, 20}); len(r.Routes) != 1 || r.Routes[0].Decisions != want || r.Routes[0].Calls != 0 {
			t.Errorf("%+v", r.Routes)
		}
		if text, err := json.Marshal(r); err != nil || !strings.Contains(string(text), `"cacheHits":14`) {
			t.Errorf("%s, %v", text, err)
		}
	}
	if counts, names := one.Counts(), DecisionNames(); len(counts) != len(names) || counts[6] != 7 || names[6].Key != "cache_hits" || one.Most() != 10 {
		t.Errorf("%v, %v", counts, names)
	}
}
