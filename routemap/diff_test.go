package routemap

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stile-ipc/stile/telemetry"
)

// lognormal are durations around a median.
func lognormal(r *rand.Rand, n int, median, spread float64) []int64 {
	out := make([]int64, n)
	for i := range out {
		out[i] = int64(median * math.Exp(spread*r.NormFloat64()))
	}
	return out
}

// TestIntervals: of 95 % intervals 95 % have the truth in them, or nearly so, and a difference that is there is seen.
func TestIntervals(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	const rounds = 400
	in, seen, sharesIn, sharesSeen := 0, 0, 0, 0
	countedIn, countedSeen, countedSame := 0, 0, 0
	histogram := func(n int, median float64) *telemetry.Histogram {
		h := &telemetry.Histogram{}
		for _, ns := range lognormal(r, n, median, 0.5) {
			h.Record(ns)
		}
		return h
	}
	failures := func(n uint64, p float64) (k uint64) {
		for range n {
			if r.Float64() < p {
				k++
			}
		}
		return k
	}
	for range rounds {
		a := lognormal(r, 200, 1e6, 0.5)
		if i := medians(a, lognormal(r, 200, 1.1e6, 0.5)); i.Low <= 1.1 && 1.1 <= i.High {
			in++
		}
		if medians(a, lognormal(r, 200, 1.5e6, 0.5)).Differs {
			seen++
		}
		b := histogram(200, 1e6)
		if i := countedMedians(b, histogram(200, 1.1e6)); i.Low <= 1.1 && 1.1 <= i.High {
			countedIn++
		}
		if countedMedians(b, histogram(200, 1.5e6)).Differs {
			countedSeen++
		}
		if countedMedians(histogram(2000, 1e6), histogram(2000, 1e6)).Differs {
			countedSame++
		}
		if i := shares(failures(300, 0.02), 300, failures(300, 0.05), 300); i.Low <= 0.03 && 0.03 <= i.High {
			sharesIn++
		}
		if shares(failures(300, 0.02), 300, failures(300, 0.15), 300).Differs {
			sharesSeen++
		}
	}
	for name, c := range map[string]struct {
		n, least, most int
	}{"medians": {in, rounds * 91 / 100, rounds * 99 / 100}, "other medians": {seen, rounds * 99 / 100, rounds}, "shares": {sharesIn, rounds * 91 / 100, rounds}, "other shares": {sharesSeen, rounds * 97 / 100, rounds},
		"counted medians": {countedIn, rounds * 91 / 100, rounds}, "other counted medians": {countedSeen, rounds * 98 / 100, rounds}, "the same counted": {countedSame, 0, rounds / 20}} {
		if c.n < c.least || c.n > c.most {
			t.Errorf("%s: %d of %d, want %d to %d", name, c.n, rounds, c.least, c.most)
		}
	}
}

// TestDiffCounted: a route of which only counts are known, as of one that no trace has, differs when its median does, with the confidence that they give.
func TestDiffCounted(t *testing.T) {
	report := func(median float64, n int) *Report {
		r := rand.New(rand.NewPCG(uint64(n), 7))
		k := Key{From: Node{Kind: Service, Name: "a"}, To: Node{Kind: Service, Name: "b"}, Operation: "M", Transport: "shm"}
		s := &Stats{Calls: uint64(n)}
		for _, ns := range lognormal(r, n, median, 0.3) {
			s.Client.Record(ns)
		}
		m := New()
		m.Counted(k, s)
		return m.Report()
	}
	for _, c := range []struct {
		median float64
		n      int
		differ bool
	}{{3e6, 1000, true}, {1e6, 5000, false}, {3e6, 5, false}} {
		all := Diff(report(1e6, 1000), report(c.median, c.n))
		if len(all) != 1 || all[0].Differs() != c.differ || all[0].Median.Known != (c.n >= diffLeast) {
			t.Errorf("%+v: %+v", c, all)
		}
	}
}

// TestDiff: routes that came, went, or became slower are first; a report is the same after it was written and read.
func TestDiff(t *testing.T) {
	report := func(seed uint64, slow int64, to ...string) *Report {
		r := rand.New(rand.NewPCG(seed, 1))
		m := New()
		for i := range 50 {
			spans := []Span{sp(1, 0, 0, 1000)}
			for j, name := range to {
				start := int64(100 * j)
				took := 20 + r.Int64N(5)
				if name == "slow" {
					took *= slow
				}
				c := sp(uint64(2+j), 1, start, start+took)
				c.Kind, c.Peer = Client, name
				spans = append(spans, c)
			}
			spans[0].Trace = string(rune('a' + i))
			m.Add(NewTrace(spans))
		}
		text, err := json.Marshal(m.Report())
		if err != nil {
			t.Fatal(err)
		}
		var back Report
		if err := json.Unmarshal(text, &back); err != nil {
			t.Fatal(err)
		}
		return &back
	}
	all := Diff(report(1, 1, "same", "slow", "gone"), report(2, 3, "same", "slow", "new"))
	if len(all) != 4 {
		t.Fatalf("%+v", all)
	}
	byName := map[string]Change{}
	for i, c := range all {
		byName[c.To.Name] = c
		if c.Differs() != (c.To.Name != "same") || c.To.Name == "same" && i != 3 {
			t.Errorf("place %d: %+v", i, c)
		}
	}
	if c := byName["slow"]; math.Abs(c.Median.Value-3) > 0.5 || c.Median.Low < 2.5 || c.Before.PerTrace != 1 {
		t.Errorf("%+v", c)
	}
	if c := byName["gone"]; c.After.Calls != 0 || c.Before.Calls != 50 {
		t.Errorf("%+v", c)
	}
}
