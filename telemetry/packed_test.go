package telemetry

import (
	"math"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/stile-ipc/stile/internal/packed"
)

func unpacked(b []byte) (Histogram, error) {
	var h Histogram
	r := packed.NewReader(b)
	h.ReadPacked(&r)
	return h, r.End()
}

// TestPacked: histograms come back as they were, and nothing of what is cut.
func TestPacked(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for n := range 200 {
		var h Histogram
		for range n {
			h.RecordN(int64(math.Exp2(r.Float64()*63)), uint64(1+r.IntN(3)))
		}
		if n == 7 {
			h.RecordN(math.MaxInt64, 1<<40) // of which the sum is not exact
		}
		b := h.AppendPacked(nil)
		back, err := unpacked(b)
		if err != nil || !reflect.DeepEqual(h, back) {
			t.Fatalf("%+v came back as %+v, %v", h, back, err)
		}
		for i := range b {
			if _, err := unpacked(b[:i]); err == nil {
				t.Errorf("%d of %d bytes are taken", i, len(b))
			}
		}
	}
}

func FuzzPacked(f *testing.F) {
	var h Histogram
	f.Add(h.AppendPacked(nil))
	h.RecordN(5, 3)
	h.Record(1e6)
	f.Add(h.AppendPacked(nil))
	h.RecordN(math.MaxInt64, 1<<40)
	f.Add(h.AppendPacked(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := unpacked(b)
		if err != nil {
			return
		}
		back, err := unpacked(h.AppendPacked(nil))
		if err != nil || !reflect.DeepEqual(h, back) {
			t.Errorf("%+v came back as %+v, %v", h, back, err)
		}
		other := h // merging with itself, quantiles and buckets stay within the buckets
		other.counts = append([]uint64(nil), h.counts...)
		other.Merge(&h)
		_, _, _ = other.Quantile(0.9), other.Buckets(), other.Above(7)
	})
}
