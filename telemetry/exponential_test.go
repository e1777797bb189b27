package telemetry

import (
	"math"
	"math/rand/v2"
	"testing"
)

// TestExponential: a value is where an exponential histogram has it, as far as is said, and none is missing.
func TestExponential(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	const unit = 1e9
	bounds := func(e *Exponential, i int) (low, high float64) {
		at := func(i int) float64 { return unit * math.Exp2(float64(int(e.Offset)+i)/math.Exp2(float64(e.Scale))) }
		return at(i), at(i + 1)
	}
	for doublings, off := range map[int]float64{1: 0.04, 9: 0.04, 19: 0.07, 38: 0.11} {
		worst := 0.0
		for range 3000 {
			var h Histogram
			h.Record(1000)
			h.Record(1000 << (doublings - 1))
			v := int64(1000 * math.Exp2(r.Float64()*float64(doublings-1)))
			h.RecordN(v, 5)
			e := h.Exponential(unit)
			total, found := e.Zero, false
			for i, n := range e.Counts {
				total += n
				if n >= 5 {
					low, high := bounds(&e, i)
					worst, found = max(worst, high/float64(v)-1, float64(v)/low-1), true
				}
			}
			if total != 7 || !found || len(e.Counts) > exponentialBuckets {
				t.Fatalf("%d of 7 values, %d buckets", total, len(e.Counts))
			}
		}
		if worst > off {
			t.Errorf("within %d doublings a value is off by %.3f", doublings, worst)
		}
	}
	for _, all := range [][]int64{{}, {0}, {0, 0, 1}, {1}, {math.MaxInt64}, {0, math.MaxInt64}, {31, 32, 33}} {
		var h Histogram
		for _, v := range all {
			h.Record(v)
		}
		e := h.Exponential(unit)
		total := e.Zero
		for _, n := range e.Counts {
			total += n
		}
		if total != uint64(len(all)) || len(e.Counts) > exponentialBuckets {
			t.Errorf("%v: %+v", all, e)
		}
	}
}

// TestExponentialGrows: what is told of a histogram that grows is never less than what was told before, in any bucket: who reads it would take it for one that began anew.
func TestExponentialGrows(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		var h Histogram
		was := h.Exponential(1e9)
		for range 20 {
			h.RecordN(int64(math.Exp2(r.Float64()*40))-1, 1+r.Uint64N(3))
			now := h.Exponential(1e9)
			if now.Scale > was.Scale || now.Zero < was.Zero {
				t.Fatalf("%+v, then %+v", was, now)
			}
			at := map[int]uint64{}
			for i, n := range was.Counts {
				at[(int(was.Offset)+i)>>(was.Scale-now.Scale)] += n
			}
			for i, n := range at {
				if in := i - int(now.Offset); in < 0 || in >= len(now.Counts) || now.Counts[in] < n {
					t.Fatalf("bucket %d had %d: %+v, then %+v", i, n, was, now)
				}
			}
			was = now
		}
	}
}
