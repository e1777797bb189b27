package telemetry

import (
	"sync"
	"testing"
)

// takenDecisions sums up what was decided since it was asked last.
func takenDecisions(r *Recorder) (all Decisions) {
	for _, t := range r.Take() {
		all.add(&t.Decisions)
	}
	return all
}

// TestDecisions: what is decided at once by many, while links are taken and forgotten, counts once.
func TestDecisions(t *testing.T) {
	r := enabled()
	route := r.Link(Client, "shm", Peer{}).Route(RouteName{Method: "/m"})
	route.link.Close()
	const callers, each = 8, 20_000
	var all sync.WaitGroup
	for i := range callers {
		all.Go(func() {
			for range each {
				route.Decide(Decision(i % 2))
			}
		})
	}
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	var sum Decisions
	for going := true; going; {
		select {
		case <-done:
			going = false
		default:
		}
		got := takenDecisions(r)
		sum.add(&got)
	}
	if want := (Decisions{callers / 2 * each, callers / 2 * each}); sum != want {
		t.Errorf("%v, want %v", sum, want)
	}
	takenDecisions(r)
	if takenDecisions(r); len(r.links) != 0 {
		t.Errorf("%d links are held", len(r.links))
	}
	route.Decide(CacheHit)
	if got := takenDecisions(r); got != (Decisions{CacheHit: 1}) {
		t.Errorf("of a link that was forgotten: %v", got)
	}
}

// TestTally: what is decided before a call has gone any way is counted with the first, and then on the way that calls go.
func TestTally(t *testing.T) {
	r := enabled()
	var tally Tally
	tally.Count(LimitRefused)
	tally.Count(LimitRefused)
	tally.Count(Late)
	link := func(transport string) *Link { return r.Link(Client, transport, Peer{}) }
	far, near, other := link("tcp"), link("shm"), link("shm")
	name := RouteName{Method: "/m"}
	got := func(l *Link, want Decisions) {
		t.Helper()
		for _, one := range r.Take() {
			if one.Link != l || one.Decisions != want {
				t.Errorf("%v of %s, want %v", one.Decisions, one.Transport, want)
			}
			want = Decisions{}
		}
		if want != (Decisions{}) {
			t.Errorf("%v is missing", want)
		}
	}
	tally.Goes(far.Route(name))
	got(far, Decisions{LimitRefused: 2, Late: 1})
	tally.Goes(near.Route(name))
	tally.Goes(other.Route(name)) // any of those that go the same way
	tally.Count(CacheHit)
	got(near, Decisions{CacheHit: 1})
	near.Close()
	tally.Count(CacheHit)
	got(near, Decisions{CacheHit: 1})
	tally.Goes(other.Route(name))
	tally.Count(CacheHit)
	got(other, Decisions{CacheHit: 1})
	if n := testing.AllocsPerRun(100, func() { tally.Count(CacheHit) }); n != 0 {
		t.Errorf("a decision takes %v allocations", n)
	}
}

// TestTallyAtOnce: what is decided while the first call finds its way counts once.
func TestTallyAtOnce(t *testing.T) {
	r := enabled()
	for range 500 {
		var tally Tally
		route := r.Link(Client, "shm", Peer{}).Route(RouteName{Method: "/m"})
		var all sync.WaitGroup
		for range 2 {
			all.Go(func() { tally.Count(CacheHit) })
			all.Go(func() { tally.Goes(route) })
		}
		all.Wait()
	}
	if got := takenDecisions(r); got != (Decisions{CacheHit: 1000}) {
		t.Errorf("%v", got)
	}
}

// BenchmarkDecide is what a decision costs where it occurs: a cache hit, above all.
func BenchmarkDecide(b *testing.B) {
	var tally Tally
	b.Run("nobody reports", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			tally.Count(CacheHit)
		}
	})
	r := enabled()
	tally.Goes(r.Link(Client, "shm", Peer{}).Route(RouteName{Method: "/m"}))
	b.Run("one", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			tally.Count(CacheHit)
		}
	})
	b.Run("many", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				tally.Count(CacheHit)
			}
		})
	})
}

// TestDisabled: after Disable and Enable what is decided counts again, on whatever link calls go then.
func TestDisabled(t *testing.T) {
	r := NewRecorder()
	r.Enable()
	old := r.Link(Client, "shm", Peer{})
	var tally Tally
	tally.Goes(old.Route(RouteName{Method: "/a/B"}))
	r.Disable()
	if !old.Closed() {
		t.Error("a link goes on after Disable")
	}
	r.Enable()
	tally.Goes(r.Link(Client, "shm", Peer{}).Route(RouteName{Method: "/a/B"}))
	tally.Count(Retry)
	if taken := r.Take(); len(taken) != 1 || !taken[0].Decisions.Any() {
		t.Errorf("%+v", taken)
	}
}
