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
