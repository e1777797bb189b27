package store

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"reflect"
	"testing"
	"time"

	"github.com/stile-ipc/stile/routemap"
)

var update = flag.Bool("update", false, "write files of testdata anew")

// keptTraces are n traces in which front calls to, each a millisecond later and longer than the one before; the last has failed.
func keptTraces(n int, to string, at time.Time) (*routemap.Map, *Traces) {
	m, out := routemap.New(), &Traces{Seen: uint64(2 * n)}
	for i := range n {
		begin, took := at.UnixNano()+int64(i)*1e6, int64(i+1)*1e6
		class := ""
		if i == n-1 {
			class = routemap.ClassTimeout
		}
		var waits *routemap.SpanWaits
		if i%3 > 0 {
			waits = &routemap.SpanWaits{ClientQueue: 1, Far: i%3 == 2, Transport: 0, ServerQueue: 1 << 40, Handler: 300}
		}
		var call *routemap.SpanCall
		switch i % 4 {
		case 1:
			call = &routemap.SpanCall{}
		case 2:
			call = &routemap.SpanCall{Sent: 1, Handling: 2, Handled: 3, Over: 1 << 40, Limit: 4, Slot: 5, Window: 6, Admission: 7, Try: 1<<32 - 1, End: routemap.Lost, Cause: "a sibling has failed"}
		case 3:
			call = &routemap.SpanCall{Over: 9, End: routemap.Cancelled}
		}
		t := routemap.NewTrace([]routemap.Span{
			{Trace: fmt.Sprintf("%032x", i), ID: 1, Kind: routemap.Server, Service: "front", Name: "Page", Start: begin - 500, End: begin + took + 500, Weight: uint32(i % 5 / 3 * 64)},
			{Trace: "", ID: 2, Parent: 1, Kind: routemap.Client, Service: "front", Name: "Get", Start: begin, End: begin + took, Class: class, Waits: waits, Call: call},
			{Trace: "", ID: 3, Parent: 2, Kind: routemap.Server, Service: to, Name: "Get", Start: begin + 100, End: begin + took - 100},
		})
		m.Add(t)
		out.Kept = append(out.Kept, Kept{m.Timeline(t), Sampled})
	}
	return m, out
}

func putTracesAt(t *testing.T, s *Store, at time.Duration, n int, to string) (*routemap.Map, *Traces) {
	t.Helper()
	m, kept := keptTraces(n, to, begin.Add(at))
	if err := s.Put(t.Context(), begin.Add(at), m, kept, nil); err != nil {
		t.Fatal(err)
	}
	return m, kept
}

func list(t *testing.T, s *Store, from, to time.Duration, f Filter) *List {
	t.Helper()
	l, err := s.List(t.Context(), begin.Add(from), begin.Add(to), f)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestTraces: traces come back as they were put, listed by when they were, by their routes and how long those took.
func TestTraces(t *testing.T) {
	s := open(t, t.TempDir(), 1<<30)
	_, catalog := putTracesAt(t, s, 0, 150, "catalog")
	m, _ := putTracesAt(t, s, Finest, 100, "orders")
	for _, k := range catalog.Kept[100:] { // the first hundred IDs are there twice
		got, w, err := s.Trace(t.Context(), k.ID)
		if err != nil || !reflect.DeepEqual(got, k.Timeline) || !w.Start.Equal(begin) || w.Long != Finest {
			t.Fatalf("%+v of %s, %v; want %+v", got, w, err, k.Timeline)
		}
	}
	if _, _, err := s.Trace(t.Context(), "ffff"); !errors.Is(err, ErrNoTrace) {
		t.Errorf("of none: %v", err)
	}
	route := ""
	for _, r := range m.Report().Routes {
		route = r.ID()
	}
	for name, c := range map[string]struct {
		from, to time.Duration
		f        Filter
		n        int
		newest   time.Duration
	}{
		"all":              {0, time.Minute, Filter{Limit: 500}, 250, Finest + 99*time.Millisecond},
		"some":             {0, time.Minute, Filter{Limit: 120}, 120, Finest + 99*time.Millisecond},
		"few":              {0, time.Minute, Filter{Limit: 3}, 3, Finest + 99*time.Millisecond},
		"of the first":     {0, Finest, Filter{Limit: 500}, 150, 149 * time.Millisecond},
		"of a route":       {0, time.Minute, Filter{Route: route, Limit: 500}, 100, Finest + 99*time.Millisecond},
		"of its durations": {0, time.Minute, Filter{Route: route, Min: 10 * time.Millisecond, Max: 20 * time.Millisecond, Limit: 500}, 11, Finest + 19*time.Millisecond},
		"by duration":      {0, Finest, Filter{Min: 150 * time.Millisecond, Limit: 500}, 1, 149 * time.Millisecond},
		"of another route": {0, time.Minute, Filter{Route: "0123456789abcdef", Limit: 500}, 0, 0},
		"of another time":  {time.Minute, time.Hour, Filter{Limit: 500}, 0, 0},
	} {
		l := list(t, s, c.from, c.to, c.f)
		if len(l.Traces) != c.n || l.Damaged != 0 {
			t.Errorf("%s: %d traces, want %d", name, len(l.Traces), c.n)
			continue
		}
		if c.n > 0 && l.Traces[0].Start != begin.Add(c.newest).UnixNano()-500 {
			t.Errorf("%s: the newest began at %s", name, time.Unix(0, l.Traces[0].Start))
		}
		for i, one := range l.Traces {
			if i > 0 && one.Start > l.Traces[i-1].Start || one.Service != "front" || one.Name != "Page" || one.Spans != 3 {
				t.Fatalf("%s: %+v", name, one)
			}
		}
	}
	if l := list(t, s, 0, time.Minute, Filter{Limit: 1}); l.Kept != 250 || l.Seen != 500 {
		t.Errorf("%d kept of %d", l.Kept, l.Seen)
	}
	if u, err := s.Usage(t.Context()); err != nil || u.Traces != 250 || u.Seen != 500 {
		t.Errorf("%+v, %v", u, err)
	}
}

// TestTracesLate: a trace that is complete later is listed where it ended, and where it was complete.
func TestTracesLate(t *testing.T) {
	const after = 4 * Finest
	s := open(t, t.TempDir(), 1<<30)
	m, kept := keptTraces(10, "catalog", begin)
	if err := s.Put(t.Context(), begin.Add(after), m, kept, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), begin.Add(late+Finest), m, kept, nil); err != nil { // too late
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		from, to time.Duration
		n        int
	}{
		"before it ended":       {-Finest, 0, 0},
		"where it ended":        {0, Finest, 10},
		"of those, the first 5": {0, 9*time.Millisecond + 501, 5},
		"since then":            {Finest, after, 0},
		"where it was complete": {after, after + Finest, 10},
		"all of it":             {0, after + Finest, 10},
		"long after":            {late + Finest, late + 2*Finest, 10},
	} {
		if l := list(t, s, c.from, c.to, Filter{Limit: 100}); len(l.Traces) != c.n {
			t.Errorf("%s: %d traces, want %d", name, len(l.Traces), c.n)
		}
	}
}

// TestTracesGo: traces go when they are too old, and the oldest when they are too much; nothing of them is left then.
func TestTracesGo(t *testing.T) {
	const most = 400_000
	s := open(t, t.TempDir(), most)
	rows := func(table string) (n int64) {
		t.Helper()
		if err := s.db.QueryRow("SELECT count(*) FROM " + table).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for i := range 20 {
		putTracesAt(t, s, time.Duration(i)*Finest, 100, "catalog")
		if _, err := s.Tidy(t.Context(), begin.Add(time.Duration(i+1)*Finest)); err != nil {
			t.Fatal(err)
		}
	}
	var size int64
	if err := s.db.QueryRow("SELECT sum(length(data)) FROM blocks").Scan(&size); err != nil {
		t.Fatal(err)
	}
	if size > most/traceShare || size < most/traceShare/3 {
		t.Errorf("%d bytes of traces", size)
	}
	l := list(t, s, 0, time.Hour, Filter{Limit: 1})
	if n := rows("traces"); n != l.Kept || n >= 2000 || n < 100 || l.Traces[0].Start < begin.Add(19*Finest).UnixNano() {
		t.Errorf("%d of %d kept, the newest is %+v", n, l.Kept, l.Traces)
	}
	if _, err := s.Tidy(t.Context(), begin.Add(25*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if n := rows("traces") + rows("blocks") + rows("samples"); n != 0 {
		t.Errorf("a day later %d rows are left", n)
	}
}

// TestTracesDamaged: a block that cannot be read is left out and told.
func TestTracesDamaged(t *testing.T) {
	s := open(t, t.TempDir(), 1<<30)
	_, kept := putTracesAt(t, s, 0, 100, "catalog")
	if _, err := s.db.Exec("UPDATE blocks SET data = substr(data, 1, 1000) WHERE block = 0"); err != nil {
		t.Fatal(err)
	}
	if l := list(t, s, 0, time.Minute, Filter{Limit: 500}); l.Damaged != 1 || len(l.Traces) != 100-blockTraces {
		t.Errorf("%d traces, %d damaged", len(l.Traces), l.Damaged)
	}
	if _, _, err := s.Trace(t.Context(), kept.Kept[0].ID); !errors.Is(err, errDamaged) {
		t.Errorf("of the damaged: %v", err)
	}
	if _, _, err := s.Trace(t.Context(), kept.Kept[99].ID); err != nil {
		t.Errorf("of the other: %v", err)
	}
}

// FuzzBlock: whatever is in a block, it is read within what it has, and what can be read can be written.
func FuzzBlock(f *testing.F) {
	_, kept := keptTraces(3, "catalog", begin)
	f.Add(encodeBlock(kept.Kept))
	f.Add(encodeBlock(nil))
	f.Add(encodeBlock([]Kept{{&routemap.Timeline{ID: "not hex"}, Slow | Failed}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) >= 4 {
			data = reseal(data)
		}
		var all []Kept
		r, err := openBlock(data)
		for err == nil {
			var k *Kept
			if k, err = r.next(); k == nil {
				break
			}
			if err == nil {
				all = append(all, *k)
			}
		}
		if err != nil {
			return
		}
		again, err := openBlock(encodeBlock(all))
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range all {
			back, err := again.next()
			if err != nil || !reflect.DeepEqual(*back, k) {
				t.Fatalf("%+v came back as %+v, %v", k, back, err)
			}
		}
	})
}

// TestBlockStays: blocks that earlier programs have written are read; the first ones knew nothing of calls but where they waited.
func TestBlockStays(t *testing.T) {
	_, first := keptTraces(3, "catalog", begin)
	for _, k := range first.Kept {
		for i := range k.Spans {
			k.Spans[i].Call, k.Spans[i].Weight = nil, 0
		}
	}
	_, calls := keptTraces(5, "catalog", begin)
	for path, kept := range map[string]*Traces{"testdata/block.bin": first, "testdata/block-calls.bin": calls} {
		if *update {
			if err := os.WriteFile(path, encodeBlock(kept.Kept), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		r, err := openBlock(data)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range kept.Kept {
			got, err := r.next()
			if err != nil || !reflect.DeepEqual(*got, want) {
				t.Errorf("%s: %+v, %v; want %+v", path, got, err, want)
			}
		}
	}
}
