package spans

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// seeded is a buffer whose draws are always the same.
func seeded(seed uint64) *Buffer {
	b := New()
	b.choice.random = rand.New(rand.NewPCG(seed, 1)).Uint64
	b.Start()
	return b
}

// roots are n roots of a window, of which the chosen have as many spans. It returns how many were chosen, and how many roots they stand for.
func roots(b *Buffer, n, spans int) (chosen int, weight uint64) {
	for range n {
		s := b.Root()
		if s == nil {
			continue
		}
		chosen++
		weight += uint64(s.Weight)
		for range spans {
			b.Add(uint32(n), s)
		}
	}
	return chosen, weight
}

// TestAll: below the budget all roots are chosen, window after window.
func TestAll(t *testing.T) {
	b := seeded(1)
	for range 5 {
		if n, w := roots(b, Budget-1, 2); n != Budget-1 || w != Budget-1 {
			t.Errorf("%d roots chosen, for %d", n, w)
		}
		if all, lost := b.Take(); len(all) != 2*(Budget-1) || lost != 0 {
			t.Errorf("%d spans, %d lost", len(all), lost)
		}
	}
}

// TestBudget: however many roots a window has, not more than two budgets of them are chosen, about, and in later windows not more than one; they stand for all, about. When there are fewer
// again, more of them are chosen.
func TestBudget(t *testing.T) {
	for _, n := range []int{Budget + 1, 50_000, 400_000} {
		b := seeded(uint64(n))
		for window := range 4 {
			chosen, weight := roots(b, n, 1)
			b.Take()
			if chosen > 2*Budget+5*leastPart || window > 0 && chosen > Budget+300 { // 300: chance, of a half or less
				t.Errorf("%d roots, window %d: %d chosen", n, window, chosen)
			}
			if off := float64(weight)/float64(n) - 1; window > 0 && (off < -0.2 || off > 0.2) {
				t.Errorf("%d roots, window %d: the chosen stand for %d", n, window, weight)
			}
		}
		for range 2 {
			roots(b, 100, 1)
			b.Take()
		}
		if chosen, _ := roots(b, 100, 1); chosen != 100 {
			t.Errorf("%d of 100 roots are chosen after quiet windows", chosen)
		}
	}
}

// TestUniform: each root is chosen as likely as any other: in 100 parts of a window, by chi-square.
func TestUniform(t *testing.T) {
	b := seeded(3)
	const parts, each = 100, 4_000
	roots(b, parts*each, 1)
	b.Take()
	var chosen [parts]int
	total := 0
	for i := range parts {
		chosen[i], _ = roots(b, each, 1)
		total += chosen[i]
	}
	mean, chi := float64(total)/parts, 0.0
	for _, n := range chosen {
		chi += (float64(n) - mean) * (float64(n) - mean) / mean
	}
	if total < Budget/2 || chi > 148 { // 99 degrees of freedom: one seed in a thousand
		t.Errorf("%d chosen, chi-square %.0f", total, chi)
	}
}

// TestRoom: what is held is bounded; traces that have begun get what room is left, no others are begun, and fewer are in the next window.
func TestRoom(t *testing.T) {
	b := seeded(4)
	const spans = 10
	chosen, _ := roots(b, Budget-1, spans)
	if chosen*spans > rootsUpTo+spans {
		t.Errorf("%d traces of %d spans are begun", chosen, spans)
	}
	for range maxSpans {
		b.Add(0, &Span{})
	}
	all, lost := b.Take()
	if len(all) != maxSpans || int(lost) != chosen*spans {
		t.Errorf("%d spans are held, %d lost of %d", len(all), lost, maxSpans+chosen*spans)
	}
	for range 3 {
		roots(b, Budget-1, spans)
		b.Take()
	}
	if chosen, weight := roots(b, Budget-1, spans); chosen*spans > rootsUpTo || weight < 3*Budget/4 || weight > 5*Budget/4 {
		t.Errorf("later %d are chosen, for %d", chosen, weight)
	}
}

// TestClaims: a client that has all its calls traced takes a part of a window.
func TestClaims(t *testing.T) {
	b := seeded(5)
	var c Claims
	for range 2 {
		n := 0
		for range 2 * maxClaims {
			if b.Claim(&c) {
				n++
			}
		}
		if _, lost := b.Take(); n != maxClaims || lost != maxClaims {
			t.Errorf("%d claims are honoured, %d lost", n, lost)
		}
	}
}

// TestStopped: nothing is chosen nor held before Start and after Stop.
func TestStopped(t *testing.T) {
	b := New()
	for range 2 {
		if b.Root() != nil || b.Child(TraceID{1}, 1) != nil {
			t.Error("a call is chosen")
		}
		b.Add(0, &Span{})
		if all, lost := b.Take(); len(all) != 0 || lost != 0 {
			t.Errorf("%d spans, %d lost", len(all), lost)
		}
		b.Start()
		b.Add(0, b.Root())
		b.Stop()
	}
}

// TestTogether: what many add while it is taken is taken once, or lost and counted.
func TestTogether(t *testing.T) {
	b := New()
	b.Start()
	const callers, each = 8, 20_000
	var all sync.WaitGroup
	var added, got, lost atomic.Uint64
	for i := range callers {
		all.Go(func() {
			for range each {
				if s := b.Root(); s != nil {
					added.Add(1)
					b.Add(uint32(i), b.Child(s.Trace, s.ID))
				}
			}
		})
	}
	take := func() {
		some, n := b.Take()
		got.Add(uint64(len(some)))
		lost.Add(n)
	}
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	for going := true; going; runtime.Gosched() {
		select {
		case <-done:
			going = false
		default:
		}
		take()
	}
	take()
	if got.Load()+lost.Load() != added.Load() || b.held.Load() != 0 {
		t.Errorf("%d added, %d taken, %d lost, %d held", added.Load(), got.Load(), lost.Load(), b.held.Load())
	}
}

// BenchmarkUnchosen is what the choice costs a root that is not chosen.
func BenchmarkUnchosen(b *testing.B) {
	of := New()
	of.Start()
	of.choice.every.Store(mostSparse)
	b.ReportAllocs()
	for b.Loop() {
		of.Root()
	}
}
