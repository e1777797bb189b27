package telemetry

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
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
	if got.Calls < calls/sparse || got.Calls > calls/sparse+sparseAfter || got.Same < got.Calls*9/10 || len(route.prints.seen) > maxLines {
		t.Errorf("%+v, %d lines remembered", got, len(route.prints.seen))
	}
	if !route.Looks(1) {
		t.Error("after it was taken it does not look at all again")
	}
}

// TestPrintsBounded: of more bodies than are remembered the latest are; what came long ago is forgotten, and takes no more memory.
func TestPrintsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r Route
		look := func(n int) bool {
			body := PrintOf(fmt.Append(nil, n))
			r.Look(body, body, 1, 1)
			return r.prints.take().Same == 1
		}
		for n := range 100_000 {
			if look(n) {
				t.Fatalf("the body %d comes for the first time", n)
			}
		}
		const late = maxLines * ofLine / 3 / 4 // of each call are three prints
		found := 0
		for n := 100_000 - late; n < 100_000; n++ {
			if look(n) {
				found++
			}
		}
		if found < late*9/10 || len(r.prints.seen) != maxLines {
			t.Errorf("%d of the last %d are remembered, in %d lines", found, late, len(r.prints.seen))
		}
		time.Sleep(memoryOf + 1)
		if look(99_999) || !look(99_999) || r.prints.held != 3 {
			t.Errorf("%d are remembered after long", r.prints.held)
		}
	})
}

// TestPrintsOften: a body that comes again and again is not forgotten for many that come once, and growing forgets none.
func TestPrintsOften(t *testing.T) {
	var p prints
	print := func(n uint64) Print { return Print(n*0x9e3779b97f4a7c15 | 1) }
	for n := range uint64(200) {
		p.room()
		p.again(print(n))
	}
	for n := range uint64(200) {
		if !p.again(print(n)) {
			t.Errorf("the print %d is forgotten among 200, in %d lines", n, len(p.seen))
		}
	}
	often := print(1 << 40)
	p.again(often)
	for n := range uint64(100_000) {
		p.room()
		p.again(print(n))
		if n%100 == 0 && !p.again(often) {
			t.Fatalf("what comes often is forgotten after %d others", n)
		}
	}
}

// TestLooksMixed: of one who makes calls of routes by turns about one in 16 is looked at of each.
func TestLooksMixed(t *testing.T) {
	var r Route
	r.prints.sparse.Store(true)
	for _, turns := range []uint32{2, 4, 8, 16, 48} {
		for of := range turns {
			looked := 0
			for n := of; n < turns*10_000; n += turns {
				if r.Looks(n) {
					looked++
				}
			}
			if looked < 500 || looked > 750 {
				t.Errorf("%d of 10,000 calls at the place %d of %d", looked, of, turns)
			}
		}
	}
}

// BenchmarkLook is a call's bodies among many others'.
func BenchmarkLook(b *testing.B) {
	var r Route
	b.ReportAllocs()
	for n := range b.N {
		request, response := Print(n%1500)*0x9e3779b97f4a7c15|1, Print(n%700)*0xbf58476d1ce4e5b9|1
		r.Look(request, response, 100, 1000)
	}
}
