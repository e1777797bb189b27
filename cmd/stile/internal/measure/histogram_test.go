package measure

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestHistogramQuantiles(t *testing.T) {
	var h Histogram
	if got := h.Quantile(0.5); got != 0 {
		t.Errorf("empty: %v", got)
	}
	random := rand.New(rand.NewPCG(1, 2))
	var all []time.Duration
	for range 20_000 {
		d := time.Duration(random.ExpFloat64() * float64(3*time.Millisecond))
		all = append(all, d)
		h.Record(d)
	}
	slices.Sort(all)
	for _, q := range []float64{0.01, 0.5, 0.9, 0.99, 1} {
		want := all[max(int(q*float64(len(all)))-1, 0)]
		if got := h.Quantile(q); got < want*98/100-1 || got > want*102/100+1 {
			t.Errorf("quantile %v: %v, want %v", q, got, want)
		}
	}
}

func TestHistogramEdges(t *testing.T) {
	for _, d := range []time.Duration{-1, 0, 1, 63, 64, 65, 127, 128, 1<<maxBits - 1, 1 << maxBits, 1<<63 - 1} {
		i := bucketOf(d)
		if i < 0 || i >= buckets {
			t.Fatalf("%d is in bucket %d of %d", d, i, buckets)
		}
		if d >= 0 && d < 1<<maxBits && (middle(i) < d-d/64-1 || middle(i) > d+d/64+1) {
			t.Errorf("%d is counted as %d", d, middle(i))
		}
	}
	for i := 1; i < buckets; i++ {
		if bucketOf(middle(i)) != i {
			t.Fatalf("the middle of bucket %d, %d, is in bucket %d", i, middle(i), bucketOf(middle(i)))
		}
	}
}
