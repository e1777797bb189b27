package routemap

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// sp is a span of a service with one clock, in milliseconds.
func sp(id, parent uint64, start, end int64) Span {
	return Span{Trace: "t", ID: id, Parent: parent, Service: "s", Name: fmt.Sprint("op ", id), Start: start * 1e6, End: end * 1e6, Request: -1, Response: -1}
}

func pathOf(t *Trace, root int) string {
	out := ""
	for _, s := range t.CriticalPath(root) {
		out += fmt.Sprintf("%d:%d-%d ", t.Span(s.Span).ID, s.Start/1e6, s.End/1e6)
	}
	return out
}

// TestCriticalPathCases: the answers of jaeger-ui's nine cases, and others.
func TestCriticalPathCases(t *testing.T) {
	follows := func(s Span) Span { s.Follows = true; return s }
	kind := func(s Span, k Kind, service string) Span { s.Kind, s.Service = k, service; return s }
	for name, c := range map[string]struct {
		spans []Span
		want  string
	}{
		"jaeger 1: one after the other":                  {[]Span{sp(1, 0, 1, 101), sp(2, 1, 20, 40), sp(3, 1, 50, 60)}, "1:1-20 2:20-40 1:40-50 3:50-60 1:60-101 "},
		"jaeger 2: the later of two":                     {[]Span{sp(1, 0, 1, 101), sp(2, 1, 10, 50), sp(3, 1, 20, 60)}, "1:1-20 3:20-60 1:60-101 "},
		"jaeger 3: begins after its parent":              {[]Span{sp(1, 0, 100, 140), sp(2, 1, 150, 250)}, "1:100-140 "},
		"jaeger 4: and has a child":                      {[]Span{sp(1, 0, 1, 31), sp(2, 1, 40, 80), sp(3, 2, 50, 60)}, "1:1-31 "},
		"jaeger 5: follows":                              {[]Span{sp(1, 0, 1, 31), follows(sp(2, 1, 10, 20))}, "1:1-31 "},
		"jaeger 6: grandchild begins too early":          {[]Span{sp(1, 0, 1, 30), sp(2, 1, 15, 35), sp(3, 2, 10, 25)}, "1:1-15 3:15-25 2:25-30 "},
		"jaeger 7: both end too late":                    {[]Span{sp(1, 0, 1, 30), sp(2, 1, 15, 35), sp(3, 2, 20, 40)}, "1:1-15 2:15-20 3:20-30 "},
		"jaeger 8: longer on both sides":                 {[]Span{sp(1, 0, 10, 30), sp(2, 1, 5, 35)}, "2:10-30 "},
		"jaeger 9: ends before its parent":               {[]Span{sp(1, 0, 10, 30), sp(2, 1, 1, 5)}, "1:10-30 "},
		"a consumer":                                     {[]Span{sp(1, 0, 0, 100), kind(sp(2, 1, 10, 90), Consumer, "s")}, "1:0-100 "},
		"siblings that overlap by less than 1 %":         {[]Span{sp(1, 0, 0, 1000), sp(2, 1, 100, 205), sp(3, 1, 200, 900)}, "1:0-100 2:100-200 3:200-900 1:900-1000 "},
		"or by more":                                     {[]Span{sp(1, 0, 0, 1000), sp(2, 1, 100, 215), sp(3, 1, 200, 900)}, "1:0-200 3:200-900 1:900-1000 "},
		"with a third one's end between, which is taken": {[]Span{sp(1, 0, 0, 1000), sp(2, 1, 100, 205), sp(3, 1, 200, 900), sp(4, 1, 150, 203)}, "1:0-150 4:150-200 3:200-900 1:900-1000 "},
		"equal ends: the one that began first":           {[]Span{sp(1, 0, 0, 100), sp(2, 1, 30, 80), sp(3, 1, 20, 80)}, "1:0-20 3:20-80 1:80-100 "},
		"another host's clock":                           {[]Span{kind(sp(1, 0, 100, 200), Client, "a"), kind(sp(2, 1, 500, 560), Server, "b"), kind(sp(3, 2, 510, 520), Internal, "b")}, "1:100-120 2:120-130 3:130-140 2:140-180 1:180-200 "},
		"no duration":                                    {[]Span{sp(1, 0, 5, 5), sp(2, 1, 5, 5)}, ""},
	} {
		tr := NewTrace(c.spans)
		if got := pathOf(tr, tr.Roots()[0]); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// partition fails the test if a critical path is not one: sections that do not overlap, each within its span, from the root's start to its end.
func partition(t testing.TB, tr *Trace, root int) {
	t.Helper()
	at, end := tr.nodes[root].start, tr.nodes[root].end
	for _, s := range tr.CriticalPath(root) {
		n := tr.nodes[s.Span]
		if s.Start != at || s.End <= s.Start || s.Start < n.start || s.End > n.end {
			t.Fatalf("trace %s: section %d to %d of span %x (%d to %d) follows %d", tr.ID, s.Start, s.End, n.ID, n.start, n.end, at)
		}
		at = s.End
	}
	if at != end {
		t.Fatalf("trace %s: the path of root %x ends at %d, not %d", tr.ID, tr.nodes[root].ID, at, end)
	}
}

// program makes the spans of a program of which it is known what its duration was spent with.
type program struct {
	r     *rand.Rand
	spans []Span
	last  uint64
}

// call makes a span that works and calls, one after the other or several together of which it waits for the longest. It returns when that ends, and what of
// its duration was spent where.
func (p *program) call(parent uint64, start int64, depth int) (end int64, spent map[uint64]int64) {
	p.last++
	id := p.last
	spent = map[uint64]int64{}
	at := start
	work := func() {
		d := 1 + p.r.Int64N(1_000_000)
		spent[id] += d
		at += d
	}
	work()
	for range p.r.IntN(4) {
		if depth == 0 {
			break
		}
		longest, of := int64(0), map[uint64]int64(nil)
		for range 1 + p.r.IntN(3)*p.r.IntN(2) {
			if e, s := p.call(id, at, depth-1); e > longest {
				longest, of = e, s
			}
		}
		at = longest
		for k, d := range of {
			spent[k] += d
		}
		work()
	}
	p.spans = append(p.spans, Span{Trace: "t", ID: id, Parent: parent, Service: "s", Name: "op", Start: start, End: at})
	return at, spent
}

// TestCriticalPathPrograms: of 10,000 programs the path is what they spent their time with, whatever the order of the spans, and nearly so if all times are
// somewhat wrong.
func TestCriticalPathPrograms(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	for range 10_000 {
		p := &program{r: r}
		_, want := p.call(0, 1e9, 4)
		r.Shuffle(len(p.spans), func(i, j int) { p.spans[i], p.spans[j] = p.spans[j], p.spans[i] })
		tr := NewTrace(slices.Clone(p.spans))
		if len(tr.Roots()) != 1 || len(tr.Faults()) != 0 {
			t.Fatal(tr.Roots(), tr.Faults())
		}
		partition(t, tr, tr.Roots()[0])
		got := map[uint64]int64{}
		for _, s := range tr.CriticalPath(tr.Roots()[0]) {
			got[tr.Span(s.Span).ID] += s.End - s.Start
		}
		for id := range p.last + 1 {
			if got[id] != want[id] {
				t.Fatalf("span %d: %d ns, want %d; spans %+v", id, got[id], want[id], p.spans)
			}
		}
	}
}

// TestSkewKeepsRanking: times that are wrong by up to 500 ns change no one's time on the path by more than a share that leaves the order of those that differ by
// a tenth of the root.
func TestSkewKeepsRanking(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 8))
	for range 2000 {
		p := &program{r: r}
		p.call(0, 1e9, 3)
		sums := func(spans []Span) (map[uint64]int64, int64) {
			tr := NewTrace(spans)
			out := map[uint64]int64{}
			for _, s := range tr.CriticalPath(tr.Roots()[0]) {
				out[tr.Span(s.Span).ID] += s.End - s.Start
			}
			partition(t, tr, tr.Roots()[0])
			return out, tr.nodes[tr.Roots()[0]].end - tr.nodes[tr.Roots()[0]].start
		}
		before, duration := sums(slices.Clone(p.spans))
		moved := slices.Clone(p.spans)
		for i := range moved {
			moved[i].Start += r.Int64N(1001) - 500
			moved[i].End += r.Int64N(1001) - 500
		}
		after, _ := sums(moved)
		for a := range p.last + 1 {
			for b := range p.last + 1 {
				if before[a] > before[b]+duration/10 && after[a] < after[b] {
					t.Fatalf("span %d had %d, %d had %d; now %d and %d of %d", a, before[a], b, before[b], after[a], after[b], duration)
				}
			}
		}
	}
}

// TestOverrunKeepsRanking: children that run up to a millisecond longer than their parent, as clocks and flushes have it, keep their time on the path, and with it their rank: they are clipped, not left out.
func TestOverrunKeepsRanking(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 9))
	on := func(spans []Span) map[uint64]int64 {
		tr := NewTrace(spans)
		out := map[uint64]int64{}
		for _, s := range tr.CriticalPath(tr.Roots()[0]) {
			out[tr.Span(s.Span).ID] += s.End - s.Start
		}
		partition(t, tr, tr.Roots()[0])
		return out
	}
	for range 500 {
		// A root of 100 ms that waits for one child after the other; the last runs to its end.
		spans := []Span{sp(1, 0, 0, 100e6)}
		cuts := []int64{0, 10e6 + r.Int64N(20e6), 40e6 + r.Int64N(20e6), 100e6}
		for i := range 3 {
			spans = append(spans, sp(uint64(i+2), 1, cuts[i], cuts[i+1]))
		}
		before := on(slices.Clone(spans))
		last := &spans[3]
		last.End += 1 + r.Int64N(1e6)
		after := on(slices.Clone(spans))
		for id, ns := range before {
			if after[id] != ns {
				t.Fatalf("span %d has %d on the path, had %d", id, after[id], ns)
			}
		}
	}
}

// FuzzCriticalPath: whatever the spans are, the path is a partition.
func FuzzCriticalPath(f *testing.F) {
	f.Add([]byte{1, 0, 0, 200, 2, 1, 10, 60, 3, 1, 50, 70, 4, 9, 5, 3})
	f.Add([]byte{1, 2, 0, 9, 2, 1, 0, 9, 2, 2, 2, 2})
	f.Fuzz(func(t *testing.T, data []byte) {
		var spans []Span
		for i := 0; i+4 <= len(data) && len(spans) < 200; i += 4 {
			d := data[i : i+4]
			s := sp(uint64(d[0]%32), uint64(d[1]%32), int64(d[2]), int64(d[3]))
			s.Kind, s.Follows, s.Service = Kind(d[0]>>5)%6, d[1]>>7 == 1, string('a'+rune(d[1]>>5&3))
			spans = append(spans, s)
		}
		if len(spans) == 0 {
			return
		}
		tr := NewTrace(spans)
		for _, r := range tr.Roots() {
			partition(t, tr, r)
		}
		m := New()
		m.Add(tr)
		m.Report()
	})
}
