package telemetry

import (
	"math"
	"math/rand/v2"
	"testing"
)

// TestBuckets: coarse buckets have every value once, without gaps, and no more than 8 for each doubling.
func TestBuckets(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, most := range []float64{0, 2, 5, 9, 30, 61} {
		var h Histogram
		for range 1000 {
			h.Record(int64(math.Exp2(r.Float64() * most)))
		}
		h.Record(0)
		total, octaves := uint64(0), map[int]int{}
		var before Bucket
		for i, b := range h.Buckets() {
			if b.High <= b.Low || i > 0 && b.Low != before.High {
				t.Errorf("up to 2^%g: %+v after %+v", most, b, before)
			}
			total, before = total+b.Count, b
			octaves[int(math.Log2(float64(b.Low)))]++
		}
		if total != h.Count() || before.High <= h.Quantile(1) {
			t.Errorf("up to 2^%g: %d of %d values, the last bucket is %+v", most, total, h.Count(), before)
		}
		for octave, n := range octaves {
			if n > 8 {
				t.Errorf("up to 2^%g: %d buckets from 2^%d", most, n, octave)
			}
		}
	}
	var h Histogram
	h.Record(math.MaxInt64)
	if b := h.Buckets(); len(b) != 1 || b[0].Count != 1 || b[0].Low <= 0 || b[0].High <= b[0].Low {
		t.Errorf("the largest: %+v", b)
	}
	if none := new(Histogram).Buckets(); none != nil {
		t.Errorf("of none: %+v", none)
	}
}
