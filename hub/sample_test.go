package hub

import (
	"fmt"
	"math"
	"testing"

	"github.com/stile-ipc/stile/routemap"
)

// sampleOf is a trace of a root that takes so long, and of so many spans.
func sampleOf(id string, took int64, spans int, class string) *routemap.Trace {
	var all []routemap.Span
	for i := range spans {
		all = append(all, routemap.Span{Trace: id, ID: uint64(i + 1), Parent: min(uint64(i), 1), Service: "s", Name: "op", Start: 1, End: 1 + took, Class: class, Request: -1, Response: -1})
	}
	return routemap.NewTrace(all)
}

// TestSampleUniform: each trace is as likely to be kept as any other, whenever it comes, however long it takes, and also when windows are put together.
func TestSampleUniform(t *testing.T) {
	const n, rounds, parts = 10 * sampleTraces, 200, 10
	var traces [n]*routemap.Trace
	number := map[*routemap.Trace]int{}
	for i := range traces {
		traces[i] = sampleOf(fmt.Sprint(i), int64(1+i%parts*1e6), 1, "")
		number[traces[i]] = i
	}
	var byTime, byTook [parts]float64
	for range rounds {
		s, later := newSample(), newSample()
		for i, one := range traces {
			if i < n/3 {
				s.add(one)
			} else {
				later.add(one)
			}
		}
		s.merge(later)
		if len(s.kept) != sampleTraces || s.seen != n || s.spans != sampleTraces {
			t.Fatalf("%d of %d, %d spans", len(s.kept), s.seen, s.spans)
		}
		for _, c := range s.kept {
			byTime[number[c.t]*parts/n]++
			byTook[number[c.t]%parts]++
		}
	}
	want := float64(rounds * sampleTraces / parts)
	for i := range parts {
		for what, got := range map[string]float64{"came": byTime[i], "took": byTook[i]} {
			if math.Abs(got-want) > 6*math.Sqrt(want) {
				t.Errorf("by what each %s, part %d: %g kept, want about %g", what, i, got, want)
			}
		}
	}
}

// TestSampleBounds: spans are bounded, large traces have their share all the same, and ones that are too large are not kept.
func TestSampleBounds(t *testing.T) {
	var large, all float64
	small, big, huge := sampleOf("small", 1, 1, ""), sampleOf("big", 1, 500, ""), sampleOf("huge", 1, sampleTrace+1, "")
	for range 200 {
		s := newSample()
		for i := range 1000 {
			s.add([]*routemap.Trace{small, big}[i%2])
		}
		s.add(huge)
		if s.spans > sampleSpans || s.extra > extremeSpans || s.seen != 1001 {
			t.Fatalf("%d spans, and %d of extremes", s.spans, s.extra)
		}
		for _, c := range s.kept {
			all++
			if c.t == big {
				large++
			}
			if c.t == huge {
				t.Fatal("the huge one is kept")
			}
		}
	}
	if share := large / all; share < 0.45 || share > 0.55 {
		t.Errorf("%.3f of those kept are large, of those seen a half", share)
	}
	s := newSample()
	for i := range 2 * extremeRoots {
		s.add(routemap.NewTrace([]routemap.Span{{Trace: "t", ID: 1, Service: fmt.Sprint("s", i), Name: "op", Start: 1, End: 2}}))
	}
	if len(s.byRoot) != extremeRoots {
		t.Errorf("%d root operations", len(s.byRoot))
	}
}

// TestSampleExtremes: the slowest and some that failed are kept, marked as that, and no trace twice.
func TestSampleExtremes(t *testing.T) {
	m, s, later := routemap.New(), newSample(), newSample()
	for i := range 5000 {
		class := ""
		if i == 77 || i == 4990 {
			class = routemap.ClassError
		}
		one := sampleOf(fmt.Sprint(i), int64(1000+i), 2, class)
		m.Add(one)
		if i < 4000 {
			s.add(one)
		} else {
			later.add(one)
		}
	}
	s.merge(later)
	why := map[string]string{}
	kept := s.traces(m)
	sampled := 0
	for _, k := range kept.Kept {
		if why[k.ID] != "" {
			t.Errorf("%s is kept twice", k.ID)
		}
		why[k.ID] = fmt.Sprint(reasons(k.Why)[len(reasons(k.Why))-1])
		if k.Why&1 == 1 {
			sampled++
		}
		if len(k.Spans) != 2 || k.Failed != (k.ID == "77" || k.ID == "4990") {
			t.Errorf("%+v", k.Timeline)
		}
	}
	if kept.Seen != 5000 || sampled != sampleTraces || why["4999"] != "slow" || why["4998"] != "slow" || why["77"] != "failed" || why["4990"] != "failed" {
		t.Errorf("%d of %d sampled, %v", sampled, kept.Seen, why)
	}
}
