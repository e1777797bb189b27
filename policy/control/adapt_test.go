package control

import (
	"container/heap"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// adaptServer simulates a server with workers, a client that calls it at random times
// through a Limit, and the time.
type adaptServer struct {
	limit   *Limit
	workers int
	mean    time.Duration // of service
	service func() time.Duration
	demand  float64 // calls a second

	rand    *rand.Rand
	now     time.Duration
	ends    adaptEnds
	busy    int
	queue   []time.Duration // when the calls that wait at the server were admitted
	waiting []*Waiter       // in the client, first come first
	counted adaptCounts
}

type adaptCounts struct {
	arrived, refused, done int
	latency, worked        time.Duration // sums
	lowest                 int           // limit
}

// adaptEnd is a call that a worker does: when it ends and when it was admitted.
type adaptEnd struct{ at, from time.Duration }

type adaptEnds []adaptEnd

func (h adaptEnds) Len() int           { return len(h) }
func (h adaptEnds) Less(i, k int) bool { return h[i].at < h[k].at }
func (h adaptEnds) Swap(i, k int)      { h[i], h[k] = h[k], h[i] }
func (h *adaptEnds) Push(x any)        { *h = append(*h, x.(adaptEnd)) }
func (h *adaptEnds) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// run lets so much time go by and returns what happened in it.
func (s *adaptServer) run(d time.Duration) adaptCounts {
	s.counted = adaptCounts{lowest: math.MaxInt}
	until := s.now + d
	gap := func() time.Duration { return time.Duration(s.rand.ExpFloat64() / s.demand * 1e9) }
	for next := s.now + gap(); next < until; {
		if len(s.ends) > 0 && s.ends[0].at <= next {
			s.end(heap.Pop(&s.ends).(adaptEnd))
			continue
		}
		s.now = next
		s.arrive()
		next += gap()
	}
	s.now = until
	return s.counted
}

func (s *adaptServer) arrive() {
	s.counted.arrived++
	w := NewWaiter()
	switch s.limit.Admit(s.now, 0, 0, w) {
	case Admitted:
		s.begin()
	case Queued:
		s.waiting = append(s.waiting, w)
	default:
		s.counted.refused++
	}
}

// begin has a call arrive at the server.
func (s *adaptServer) begin() {
	s.queue = append(s.queue, s.now)
	s.work()
}

func (s *adaptServer) work() {
	for s.busy < s.workers && len(s.queue) > 0 {
		s.busy++
		d := s.service()
		s.counted.worked += d
		heap.Push(&s.ends, adaptEnd{s.now + d, s.queue[0]})
		s.queue = s.queue[1:]
	}
}

func (s *adaptServer) end(e adaptEnd) {
	s.now = e.at
	s.busy--
	s.work()
	s.counted.done++
	s.counted.latency += s.now - e.from
	limit, _, _ := s.limit.Stats()
	s.counted.lowest = min(s.counted.lowest, limit)
	s.limit.Done(s.now, s.now-e.from, false)
	for len(s.waiting) > 0 && len(s.waiting[0].C) > 0 {
		<-s.waiting[0].C
		s.waiting = s.waiting[1:]
		s.begin()
	}
}

// newAdaptServer starts a server with that many workers, each serving a call in mean
// on average, and a client that asks for load times what they can do.
func newAdaptServer(c LimitConfig, workers int, mean time.Duration, load float64, kind string, seed uint64) *adaptServer {
	c.Adaptive, c.Min = true, 1
	r := rand.New(rand.NewPCG(seed, 2))
	s := &adaptServer{
		limit: NewLimit(c, 0), workers: workers, mean: mean, rand: r,
		demand: load * float64(workers) / mean.Seconds(),
	}
	s.service = func() time.Duration {
		switch {
		case kind == "exponential":
			return time.Duration(r.ExpFloat64() * float64(s.mean))
		case kind == "one in ten slow" && r.IntN(10) == 0:
			return s.mean * 11 / 2
		case kind == "one in ten slow":
			return s.mean / 2
		}
		return s.mean
	}
	return s
}

var serviceKinds = []string{"fixed", "exponential", "one in ten slow"}

// check runs s and compares throughput, as the share of the time that its workers were
// busy, and mean latency, as a multiple of the mean service time.
func (s *adaptServer) check(t *testing.T, d time.Duration, throughput, latency float64) {
	t.Helper()
	n := s.run(d)
	if busy := n.worked.Seconds() / d.Seconds() / float64(s.workers); busy < throughput {
		t.Errorf("the workers are busy %.3f of the time, want %.2f", busy, throughput)
	}
	if l := n.latency.Seconds() / float64(n.done) / s.mean.Seconds(); l > latency {
		t.Errorf("latency is %.2f of the service time, want at most %.2f", l, latency)
	}
}

// TestAdaptOverload: the limit holds throughput and latency under overload, from the
// ceiling, and again when the service has become slower or faster for good.
func TestAdaptOverload(t *testing.T) {
	for _, c := range []struct {
		limit   LimitConfig
		workers int
		mean    time.Duration
	}{
		{LimitConfig{Max: 20}, 10, 10 * time.Millisecond},
		{LimitConfig{Max: 1000, Pending: 100}, 16, 10 * time.Millisecond},
		{LimitConfig{Max: 1000}, 100, 60 * time.Millisecond},
	} {
		if raceDetector && c.workers != 10 {
			continue // one goroutine: there is no race to be found
		}
		for _, kind := range serviceKinds {
			for _, load := range []float64{2, 4} {
				t.Run(fmt.Sprintf("%d workers %s load %v", c.workers, kind, load), func(t *testing.T) {
					throughput, latency := 0.9, 2.0
					if kind == "one in ten slow" { // means of a window vary more
						throughput, latency = 0.85, 2.5
					}
					s := newAdaptServer(c.limit, c.workers, c.mean, load, kind, 1)
					s.run(30 * time.Second)
					s.check(t, 20*time.Second, throughput, latency)
					s.mean *= 2
					s.run(30 * time.Second)
					s.check(t, 20*time.Second, throughput, latency)
					s.mean /= 2
					s.run(30 * time.Second)
					s.check(t, 20*time.Second, throughput, latency)
				})
			}
		}
	}
}

// TestAdaptUnderused: nothing is refused below capacity, also after an overload.
func TestAdaptUnderused(t *testing.T) {
	for _, kind := range serviceKinds {
		t.Run(kind, func(t *testing.T) {
			s := newAdaptServer(LimitConfig{Max: 1000, Pending: 20}, 10, 10*time.Millisecond, 0.5, kind, 1)
			check := func() {
				t.Helper()
				if n := s.run(60 * time.Second); n.refused > 0 {
					t.Errorf("%d calls of %d refused", n.refused, n.arrived)
				}
			}
			check()
			s.demand *= 6
			s.run(30 * time.Second)
			s.demand /= 6
			s.run(10 * time.Second)
			check()
		})
	}
}

// TestAdaptVariance: latency that varies much and does not depend on load leaves the
// limit above demand.
func TestAdaptVariance(t *testing.T) {
	for seed := range uint64(5) {
		s := newAdaptServer(LimitConfig{Max: 100}, 1000, 100*time.Millisecond, 0.05, "", seed)
		s.service = func() time.Duration { // log-normal, its mean 5 times the median
			return time.Duration(20e6 * math.Exp(1.8*s.rand.NormFloat64()))
		}
		s.run(30 * time.Second)
		if n := s.run(100 * time.Second); n.refused*1000 > n.arrived || n.lowest < 75 {
			t.Errorf("the limit goes down to %d; %d of %d calls refused", n.lowest, n.refused, n.arrived)
		}
	}
}

// TestAdaptOutcomes: overload shrinks the limit to the floor and no further; some
// single failures do not; Forget never does.
func TestAdaptOutcomes(t *testing.T) {
	end := func(l *Limit, calls, overEach int) {
		for i := range calls {
			now := time.Duration(i) * time.Millisecond
			l.Admit(now, 0, 0, nil)
			l.Done(now, time.Millisecond, overEach > 0 && i%overEach == 0)
		}
	}
	for _, c := range []struct{ overEach, want int }{{0, 100}, {1, 7}, {10, 7}, {100, 100}} {
		l := NewLimit(LimitConfig{Max: 100, Min: 7, Adaptive: true}, 0)
		end(l, 10000, c.overEach)
		if limit, _, _ := l.Stats(); limit != c.want {
			t.Errorf("overloaded each %d: limit %d, want %d", c.overEach, limit, c.want)
		}
		for i := range 10000 {
			l.Admit(0, 0, 0, nil)
			l.Forget(time.Duration(i) * time.Second)
		}
		if limit, _, _ := l.Stats(); limit != c.want {
			t.Errorf("forgotten after each %d: limit %d, want %d", c.overEach, limit, c.want)
		}
	}
}

// TestLimitConcurrent has many goroutines admit, leave and end calls. Each of them gets
// one verdict, and no place is lost.
func TestLimitConcurrent(t *testing.T) {
	for _, c := range []LimitConfig{
		{Max: 1, Pending: 3}, {Max: 4, Pending: 8}, {Max: 3}, {Max: 8, Min: 1, Pending: 8, Adaptive: true},
	} {
		l := NewLimit(c, 0)
		var wg sync.WaitGroup
		for g := range 16 {
			wg.Go(func() { runCaller(t, l, c, rand.New(rand.NewPCG(uint64(g), 7))) })
		}
		wg.Wait()
		if _, in, pending := l.Stats(); in != 0 || pending != 0 {
			t.Errorf("%+v: at the end %d in flight, %d pending", c, in, pending)
		}
	}
}

func runCaller(t *testing.T, l *Limit, c LimitConfig, r *rand.Rand) {
	w := NewWaiter()
	for i := range 2000 {
		now := time.Duration(i) * time.Millisecond
		var deadline time.Duration
		if r.IntN(2) == 0 {
			deadline = now + time.Duration(r.IntN(int(100*time.Millisecond)))
		}
		v := l.Admit(now, deadline, r.IntN(3), w)
		if v == Queued {
			if r.IntN(3) == 0 && l.Leave(w) {
				continue
			}
			v = <-w.C
			if v != Admitted && v != Evicted && v != Hopeless {
				t.Errorf("a waiter is sent %v", v)
			}
		}
		if _, in, pending := l.Stats(); in > c.Max || pending > c.Pending {
			t.Errorf("%+v: %d in flight, %d pending", c, in, pending)
		}
		switch {
		case v != Admitted:
		case r.IntN(4) == 0:
			l.Forget(now)
		default:
			l.Done(now, time.Duration(r.IntN(int(10*time.Millisecond))), r.IntN(20) == 0)
		}
	}
}

func benchmarkedLimits() map[string]LimitConfig {
	return map[string]LimitConfig{
		"fixed":    {Max: 64, Pending: 64},
		"adaptive": {Max: 64, Min: 4, Pending: 64, Adaptive: true},
	}
}

func BenchmarkLimit(b *testing.B) {
	for name, c := range benchmarkedLimits() {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			l, w, now := NewLimit(c, 0), NewWaiter(), time.Duration(0)
			for b.Loop() {
				now += time.Microsecond
				l.Admit(now, 0, 0, w)
				l.Done(now, time.Microsecond, false)
			}
		})
	}
}

func BenchmarkLimitParallel(b *testing.B) {
	for name, c := range benchmarkedLimits() {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			l := NewLimit(c, 0)
			b.RunParallel(func(p *testing.PB) {
				w := NewWaiter()
				for now := time.Duration(0); p.Next(); now += time.Microsecond {
					l.Admit(now, 0, 0, w)
					l.Done(now, time.Microsecond, false)
				}
			})
		})
	}
}

// BenchmarkLimitQueue passes a place through a long queue: each call that ends admits
// the first waiter, which then waits again.
func BenchmarkLimitQueue(b *testing.B) {
	const n = 1000
	b.ReportAllocs()
	l := NewLimit(LimitConfig{Max: 1, Pending: n}, 0)
	l.Admit(0, 0, 0, nil)
	waiters := make([]*Waiter, n)
	for i := range waiters {
		waiters[i] = NewWaiter()
		l.Admit(0, 0, 0, waiters[i])
	}
	for i := 0; b.Loop(); i++ {
		w := waiters[i%n]
		l.Done(0, 0, false)
		<-w.C
		l.Admit(0, 0, 0, w)
	}
}

// BenchmarkLimitEvict evicts the worst of a long queue each time.
func BenchmarkLimitEvict(b *testing.B) {
	const n = 1000
	b.ReportAllocs()
	l := NewLimit(LimitConfig{Max: 1, Pending: n}, 0)
	l.Admit(0, 0, 0, nil)
	waiters := make([]*Waiter, n)
	for i := range waiters {
		waiters[i] = NewWaiter()
		l.Admit(0, 0, i, waiters[i])
	}
	spare := NewWaiter()
	for i := 0; b.Loop(); i++ {
		l.Admit(0, 0, n+i, spare)
		spare, waiters[i%n] = waiters[i%n], spare
		<-spare.C
	}
}
