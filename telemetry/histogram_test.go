package telemetry

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
)

// TestHistogramQuantiles: each quantile is that of the sorted values, to 1/32, and merging loses nothing.
func TestHistogramQuantiles(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, most := range []float64{3, 10, 20, 30, 61} {
		var parts [3]Histogram
		var values []int64
		sum := 0.0
		for i := range 5000 {
			v := int64(math.Exp2(r.Float64() * most))
			values, sum = append(values, v), sum+float64(v)
			parts[i%3].Record(v)
		}
		slices.Sort(values)
		var h Histogram
		for i := range parts {
			h.Merge(&parts[i])
		}
		if h.Count() != 5000 || math.Abs(h.Sum()-sum) > 1e-9*sum || math.Abs(h.Mean()-sum/5000) > 1e-9*sum {
			t.Errorf("count %d, sum %g of %g", h.Count(), h.Sum(), sum)
		}
		for _, q := range []float64{0, 0.001, 0.25, 0.5, 0.9, 0.99, 0.9999, 1} {
			want := values[min(max(int(math.Ceil(q*5000)), 1), 5000)-1]
			if got := h.Quantile(q); math.Abs(float64(got-want)) > float64(want)/SubBuckets {
				t.Errorf("up to 2^%g: quantile %g is %d, want %d", most, q, got, want)
			}
		}
		var back Histogram
		text, err := json.Marshal(&h)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &back); err != nil || !reflect.DeepEqual(h, back) {
			t.Errorf("%v: it came back otherwise", err)
		}
	}
}

func TestHistogramEdges(t *testing.T) {
	var h, none Histogram
	if h.Quantile(0.5) != 0 || h.Mean() != 0 {
		t.Error("an empty one has values")
	}
	h.Merge(&none)
	h.RecordN(7, 0)
	h.Record(-5)
	h.Record(math.MaxInt64)
	h.RecordN(100, 2)
	if h.Count() != 4 || h.Quantile(0) != 0 || h.Quantile(1) != math.MaxInt64 || h.Quantile(0.5)/4 != 25 {
		t.Errorf("%d: %d %d %d", h.Count(), h.Quantile(0), h.Quantile(0.5), h.Quantile(1))
	}
	for b := range lastBucket {
		if bucketOf(lowest(b)) != b || bucketOf(lowest(b+1)-1) != b {
			t.Fatalf("bucket %d is from %d to %d", b, lowest(b), lowest(b+1))
		}
	}
	for _, bad := range []string{`{"count":2,"counts":[1]}`, `{"count":1,"first":-1,"counts":[1]}`, `{"count":1,"first":99999,"counts":[1]}`, `{"count":1,"counts":[1],"min":2,"max":1}`, `[]`} {
		if err := new(Histogram).UnmarshalJSON([]byte(bad)); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}

func BenchmarkHistogramRecord(b *testing.B) {
	var h Histogram
	for i := int64(0); b.Loop(); i++ {
		h.Record(100_000 + i&0xffff)
	}
}

// TestWithout: what is left of a histogram is what was recorded besides.
func TestWithout(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 500 {
		var all, part, rest Histogram
		for range r.IntN(30) {
			v := int64(math.Exp2(r.Float64() * 50))
			all.Record(v)
			if r.IntN(2) == 0 {
				part.Record(v)
			} else {
				rest.Record(v)
			}
		}
		left := all.Without(&part)
		if left.Count() != rest.Count() || math.Abs(left.Sum()-rest.Sum()) > 1e-9*all.Sum() {
			t.Fatalf("%+v, want %+v", left, rest)
		}
		for b := range lastBucket {
			at := func(h *Histogram) uint64 {
				if i := b - h.first; i >= 0 && i < len(h.counts) {
					return h.counts[i]
				}
				return 0
			}
			if at(&left) != at(&rest) {
				t.Fatalf("bucket %d: %+v, want %+v", b, left, rest)
			}
		}
		if rest.Count() > 0 && (bucketOf(left.least) != bucketOf(rest.least) || bucketOf(left.most) != bucketOf(rest.most)) {
			t.Fatalf("%+v, want %+v", left, rest)
		}
		if _, err := FromRaw(left.Raw()); err != nil {
			t.Fatal(err)
		}
	}
}
