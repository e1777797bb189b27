package telemetry

import (
	"fmt"
	"testing"
)

// TestRepeats: what was asked and answered before counts as repeated, by bytes and calls; that is remembered across takes.
func TestRepeats(t *testing.T) {
	r := enabled()
	route := r.Link(Client, "shm", Peer{}).Route(RouteName{Method: "/m"})
	look := func(request, response string) {
		route.Record(0, &Call{})
		route.Look(PrintOf([]byte(request)), PrintOf([]byte(response)), len(request), len(response))
	}
	look("a", "one")
	look("a", "one")
	look("a", "two!")
	look("bb", "one")
	look("one", "a")
	want := Repeats{Calls: 5, Same: 1, Request: 8, RequestRepeated: 2, Response: 14, ResponseRepeated: 6}
	if got := r.Take()[0].Repeats; got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	look("a", "one")
	if got := r.Take()[0].Repeats; got.Same != 1 {
		t.Errorf("%+v", got)
	}
}

// TestPrints: bodies that differ anywhere but in the middle of very long ones have different prints.
func TestPrints(t *testing.T) {
	long := make([]byte, wholePrints+10)
	seen := map[Print]string{}
	for name, body := range map[string][]byte{
		"nothing": nil, "zero": {0}, "two": {0, 0}, "long": long, "longer": append(append([]byte{}, long...), 0), "first": append([]byte{1}, long[1:]...), "last": append(append([]byte{}, long[1:]...), 1),
	} {
		p := PrintOf(body)
		if other, twice := seen[p]; twice || p == 0 {
			t.Errorf("%s is like %s", name, other)
		}
		seen[p] = name
	}
}

// TestSparse: of a busy route few calls are looked at, and its memory is bounded; what is found is about right.
func TestSparse(t *testing.T) {
	r := enabled()
	route := r.Link(Client, "shm", Peer{}).Route(RouteName{Method: "/m"})
	const calls = 100_000
	for n := range uint32(calls) {
		route.Record(0, &Call{})
		if route.Looks(n) {
			body := PrintOf(fmt.Append(nil, n/sparse%200)) // 200 bodies again and again
			route.Look(body, body, 10, 10)
		}
	}
	got := r.Take()[0].Repeats
	if got.Calls < calls/sparse || got.Calls > calls/sparse+sparseAfter || got.Same < got.Calls*9/10 || len(route.prints.seen) > maxPrints+3 {
		t.Errorf("%+v, %d remembered", got, len(route.prints.seen))
	}
	if !route.Looks(1) {
		t.Error("after it was taken it does not look at all again")
	}
}
