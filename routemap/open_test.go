package routemap

import (
	"math/rand/v2"
	"testing"
)

// looked is a route of calls that come at random, each as long as took says, in a window of seconds in which somebody looks each second; open calls that never end are there beside them.
func looked(r *rand.Rand, seconds int, rate float64, took func() float64, hung int) Route {
	s := &Stats{}
	seen := make([]int, seconds)
	for at := 0.0; ; {
		at += r.ExpFloat64() / rate
		if at > float64(seconds) {
			break
		}
		d := took()
		s.Calls++
		s.Client.Record(int64(d * 1e9))
		for look := int(at) + 1; float64(look) <= at+d && look < seconds; look++ {
			seen[look]++
		}
	}
	for _, n := range seen {
		s.Open.Seen += uint64(n + hung)
		s.Open.Most = max(s.Open.Most, uint64(n+hung))
	}
	s.Open.Looks, s.Open.Time = uint64(seconds), int64(seconds)*1e9
	return Route{Key{Mode: Sync}, s}
}

// TestInconsistent: by Little's law a route is as it should be, whatever its calls take and however few are seen; calls that hang, or that are not counted, are noticed.
func TestInconsistent(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	even, heavy := func() float64 { return 0.05 }, func() float64 { return 0.02 * r.ExpFloat64() * r.ExpFloat64() }
	for range 300 {
		for name, one := range map[string]Route{"even": looked(r, 600, 100, even, 0), "heavy": looked(r, 600, 200, heavy, 0), "few": looked(r, 10, 3, even, 0)} {
			if one.Inconsistent() {
				t.Fatalf("%s: %+v of %v s", name, one.Open, one.Client.Sum()/1e9)
			}
		}
	}
	hung := looked(r, 600, 10, even, 1)
	if !hung.Inconsistent() {
		t.Errorf("one hangs: %+v", hung.Open)
	}
	lost := looked(r, 600, 100, even, 0)
	lost.Client = looked(r, 600, 50, even, 0).Client
	if !lost.Inconsistent() {
		t.Errorf("half is not counted: %+v", lost.Open)
	}
	hung.Mode = Stream
	if hung.Inconsistent() || (Route{Key{Mode: Sync}, &Stats{}}).Inconsistent() {
		t.Error("told of what is not known")
	}
	var sum Open
	sum.merge(&hung.Open)
	sum.merge(&lost.Open)
	if want := hung.Open.Total() + lost.Open.Total(); sum.Total() != want || sum.Most != max(hung.Open.Most, lost.Open.Most) {
		t.Errorf("%+v: %g, want %g", sum, sum.Total(), want)
	}
}
