package measure

import (
	"math/bits"
	"time"
)

const (
	// subBits is the log2 of the buckets in each doubling: a bucket spans at
	// most 1/64 of the durations in it.
	subBits = 6
	// maxBits bounds the durations: 2^41 ns are 36 minutes.
	maxBits = 41

	buckets = (maxBits - subBits + 1) << subBits
)

// Histogram counts durations in log-linear buckets. Its zero value is empty. It is
// not safe for concurrent use.
type Histogram struct {
	Count  int64 // of durations recorded
	counts [buckets]uint32
}

// Record counts one duration.
func (h *Histogram) Record(d time.Duration) {
	h.counts[bucketOf(d)]++
	h.Count++
}

// Add counts all that other counted.
func (h *Histogram) Add(other *Histogram) {
	h.Count += other.Count
	for i, n := range other.counts {
		h.counts[i] += n
	}
}

func bucketOf(d time.Duration) int {
	v := uint64(max(d, 0))
	switch {
	case v < 1<<subBits:
		return int(v)
	case v >= 1<<maxBits:
		return buckets - 1
	}
	shift := bits.Len64(v) - 1 - subBits
	return shift<<subBits + int(v>>shift)
}

// middle returns the duration in the middle of bucket i.
func middle(i int) time.Duration {
	shift := max(i>>subBits-1, 0)
	low := uint64(i-shift<<subBits) << shift
	return time.Duration(low + uint64(1)<<shift/2)
}

// Quantile returns the duration that the part q (0 to 1) of those recorded does
// not exceed; 0 if none was recorded.
func (h *Histogram) Quantile(q float64) time.Duration {
	left := max(int64(q*float64(h.Count)+0.999999), 1)
	for i, n := range h.counts {
		if left -= int64(n); left <= 0 {
			return middle(i)
		}
	}
	return 0
}
