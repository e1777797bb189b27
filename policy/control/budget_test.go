package control

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// TestBudgetBounds: whatever happens, there are no more extra attempts than a share of the calls, plus the
// reserve, and no more at once than the calls under way allow.
func TestBudgetBounds(t *testing.T) {
	for seed := range 200 {
		r := rand.New(rand.NewPCG(uint64(seed), 4))
		percent, always := float64(r.IntN(101)), r.IntN(5)
		b := NewBudget(percent, always)
		calls, open, extra, out := 0, 0, 0, 0
		for range 2000 {
			switch r.IntN(4) {
			case 0:
				b.Begin()
				calls++
				open++
			case 1:
				if open > 0 && open > out {
					b.End()
					open--
				}
			case 2:
				if b.Take() {
					extra++
					out++
				}
			case 3:
				if out > 0 {
					b.Give()
					out--
				}
			}
			if most := percent/100*float64(calls) + reserve; float64(extra) > most+1e-6 {
				t.Fatalf("seed %d: %d extra attempts of %d calls at %v %%", seed, extra, calls, percent)
			}
			if percent == 0 && extra > 0 {
				t.Fatal("a budget of nothing gave something")
			}
		}
	}
}

func TestBudgetAtOnce(t *testing.T) {
	b := NewBudget(100, 2)
	for range 2 {
		if !b.Take() {
			t.Fatal("what is always allowed was refused")
		}
	}
	if b.Take() {
		t.Fatal("three extra attempts, no call")
	}
	for range 5 {
		b.Begin()
	}
	for i := range 3 {
		if !b.Take() {
			t.Fatalf("extra attempt %d of 5 calls refused", i+3)
		}
	}
	if b.Take() {
		t.Fatal("six extra attempts of five calls at once")
	}
	b.Give()
	if !b.Take() {
		t.Fatal("a place was lost")
	}
}

func TestThrottle(t *testing.T) {
	var none *Throttle
	if none.Failed() || none.Throttled() {
		t.Error("none throttles")
	}
	none.Succeeded()
	th := NewThrottle(4, 0.5)
	if th.Failed() || th.Throttled() {
		t.Error("throttled at 3 of 4 tokens")
	}
	if !th.Failed() || !th.Throttled() {
		t.Error("not throttled at 2 of 4 tokens")
	}
	th.Succeeded()
	if th.Throttled() {
		t.Error("throttled at 2.5 of 4 tokens")
	}
	for range 100 {
		th.Failed()
	}
	for range 5 { // from none to 2.5
		th.Succeeded()
	}
	if th.Throttled() {
		t.Error("throttled at 2.5 of 4 tokens, after 0")
	}
}

func TestThrottleConcurrently(t *testing.T) {
	th := NewThrottle(1000, 1)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				th.Failed()
				th.Succeeded()
			}
		})
	}
	wg.Wait()
	if got := th.tokens.Load(); got != th.most {
		t.Errorf("%d of %d tokens left", got, th.most)
	}
}

func TestBackoff(t *testing.T) {
	b := Backoff{Initial: 10 * time.Millisecond, Max: 50 * time.Millisecond, Multiplier: 2}
	for i, want := range []time.Duration{10, 20, 40, 50, 50} {
		if got := b.Bound(i + 1); got != want*time.Millisecond {
			t.Errorf("bound %d is %v", i+1, got)
		}
		if got := b.Wait(i+1, 0.5); got != want*time.Millisecond/2 {
			t.Errorf("wait %d is %v", i+1, got)
		}
	}
	if got := (Backoff{Initial: time.Hour, Max: 1<<63 - 1, Multiplier: 1e9}).Bound(1000); got <= 0 {
		t.Errorf("overflow: %v", got)
	}
	if got := (Backoff{Initial: time.Second, Max: time.Minute, Multiplier: 0.5}).Bound(3); got != 250*time.Millisecond {
		t.Errorf("a multiplier below one: %v", got)
	}
}

// TestLatency compares estimates with the percentiles of what was counted.
func TestLatency(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	for _, p := range []float64{50, 95, 99} {
		l := NewLatency(p, 0)
		if _, ok := l.Estimate(); ok {
			t.Error("an estimate of nothing")
		}
		now := time.Duration(0)
		for range 20_000 {
			now += time.Millisecond / 2
			l.Add(now, time.Duration(r.Float64()*float64(100*time.Millisecond)))
		}
		got, ok := l.Estimate()
		if want := time.Duration(p / 100 * float64(100*time.Millisecond)); !ok || got < want*95/100 || got > want*115/100 {
			t.Errorf("p%v of 0 to 100 ms is %v", p, got)
		}
		for range 80_000 { // the service becomes faster: what is old is forgotten
			now += time.Millisecond / 2
			l.Add(now, time.Millisecond)
		}
		if got, _ := l.Estimate(); got > 1200*time.Microsecond {
			t.Errorf("p%v of 1 ms is %v", p, got)
		}
	}
}

func TestLatencyBuckets(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 6))
	for range 100_000 {
		d := time.Duration(r.Uint64() >> (1 + r.IntN(63)))
		i := bucketOf(d)
		if i < 0 || i >= buckets || d > upper(i) || i > 0 && d <= upper(i-1) {
			t.Fatalf("%d is in bucket %d, up to %d", d, i, upper(i))
		}
	}
	if bucketOf(-1) != 0 {
		t.Error("negative durations")
	}
}
