package telemetry

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// TestArrivals: of calls that end in any order, in places of their own, the earliest are known and in order.
func TestArrivals(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 500 {
		var parts [3]Arrivals
		var all []time.Duration
		for range r.IntN(150) {
			at := time.Duration(r.Int64N(200))
			parts[r.IntN(len(parts))].record(at)
			all = append(all, at)
		}
		slices.Sort(all)
		var got Arrivals
		for i := range parts {
			got.merge(&parts[i])
		}
		if want := all[:min(len(all), maxArrivals)]; !slices.Equal(got.All(), want) {
			t.Fatalf("%v\nwant %v", got.All(), want)
		}
	}
}

// TestRouteArrivals: a route knows when its calls came since it was taken last; that of one which nobody has noted is not known.
func TestRouteArrivals(t *testing.T) {
	r := enabled()
	route := r.Link(Server, "shm", Peer{}).Route(RouteName{Method: "/s/M"})
	for n := range 100 {
		route.Record(uint32(n), &Call{Begun: time.Duration(1000 - n)})
		route.Record(0, &Call{})
	}
	if got := r.Take()[0].Arrivals.All(); len(got) != maxArrivals || got[0] != 901 || got[maxArrivals-1] != 901+maxArrivals-1 {
		t.Errorf("%v", got)
	}
	route.Record(0, &Call{Begun: 7})
	if got := r.Take()[0].Arrivals.All(); !slices.Equal(got, []time.Duration{7}) {
		t.Errorf("%v", got)
	}
}
