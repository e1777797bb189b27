package demo

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

// histogram counts durations in log-linear buckets. Its zero value is empty.
type histogram struct {
	count  int64
	counts [buckets]uint32
}

func (h *histogram) record(d time.Duration) {
	h.counts[bucketOf(d)]++
	h.count++
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

// quantile returns the duration that the part q (0 to 1) of those recorded does
// not exceed; 0 if none was recorded.
func (h *histogram) quantile(q float64) time.Duration {
	left := max(int64(q*float64(h.count)+0.999999), 1)
	for i, n := range h.counts {
		if left -= int64(n); left <= 0 {
			return middle(i)
		}
	}
	return 0
}
