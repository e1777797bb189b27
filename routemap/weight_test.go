package routemap

import (
	"math"
	"testing"
)

// TestWeight: what a trace says of times counts as often as it was not chosen; calls are those that were seen.
func TestWeight(t *testing.T) {
	trace := func(m *Map, id string, weight uint32) {
		m.Add(NewTrace([]Span{
			{Trace: id, ID: 1, Kind: Client, Service: "a", Name: "M", Start: 0, End: 100, Weight: weight}, {Trace: id, ID: 2, Parent: 1, Kind: Server, Service: "b", Name: "M", Start: 10, End: 90},
			{Trace: id, ID: 3, Parent: 2, Kind: Client, Service: "b", Name: "N", Start: 20, End: 80}, {Trace: id, ID: 4, Parent: 3, Kind: Server, Service: "c", Name: "N", Start: 30, End: 70},
		}))
	}
	one, more := New(), New()
	for range 8 {
		trace(one, "00", 0)
	}
	trace(more, "00", 1)
	trace(more, "01", 7)
	for k, want := range one.routes {
		got := more.routes[k]
		if got.Through != want.Through || got.Critical != want.Critical || got.Alone != want.Alone || got.Callers != want.Callers || got.Through == 0 || k.Operation == "N" && got.Alone == 0 {
			t.Errorf("%s: %+v\nwant %+v", k, got, want)
		}
		if got.Calls != 2 || got.Traced != 2 || got.Roots != 2 {
			t.Errorf("%s: %d calls", k, got.Calls)
		}
	}
	for n, want := range one.nodes {
		if got := more.nodes[n]; got.Critical != want.Critical {
			t.Errorf("%s: %d ns, want %d", n, got.Critical, want.Critical)
		}
	}
	want := one.Report().Paths
	for i, got := range more.Report().Paths {
		if got.Share != want[i].Share || got.Each != want[i].Each || got.Traces != want[i].Traces {
			t.Errorf("%+v, want %+v", got, want[i])
		}
	}
	if often(math.MaxInt64/2, 3) != math.MaxInt64 || often(5, 3) != 15 {
		t.Error("times wrap")
	}
}

// TestBlockingRoots: callers that no trace has above a call wait for it as it is counted, whether or not calls themselves are traced.
func TestBlockingRoots(t *testing.T) {
	m := New()
	k := Key{From: Node{Service, "a"}, To: Node{Service, "b"}, Operation: "M", Mode: Sync}
	m.Add(NewTrace([]Span{{Trace: "00", ID: 1, Kind: Client, Service: "a", Name: "M", Start: 0, End: 1000}, {Trace: "00", ID: 2, Parent: 1, Kind: Server, Service: "b", Name: "M", Start: 10, End: 90}}))
	s := &Stats{Calls: 10}
	s.Client.RecordN(1000, 10)
	m.Counted(k, s)
	m.Fold(func(from, to Node, operation string) (Key, bool) { return k, from == k.From && to == k.To })
	if all := m.blocking(); len(all) != 1 || !all[0].Counted || all[0].Callers < 9.9 {
		t.Errorf("%+v", all)
	}
}
