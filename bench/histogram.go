package main

import "math/bits"

const (
	// subBits is the log2 of the buckets in each doubling: a bucket is at most
	// 1/128 of its values wide.
	subBits = 7
	// maxBits bounds the values: 2^40 ns are 18 minutes.
	maxBits = 40

	buckets = (maxBits - subBits + 1) << subBits
)

// histogram counts durations in log-linear buckets. Its memory is allocated once,
// so recording costs neither an allocation nor a lock. It is not safe for
// concurrent use: each caller has its own.
type histogram struct {
	count  uint64
	counts [buckets]uint32
}

// bucketOf returns the bucket of a duration in nanoseconds.
func bucketOf(ns int64) int {
	if ns < 0 {
		return 0
	}
	v := uint64(ns)
	if v >= 1<<maxBits {
		return buckets - 1
	}
	if v < 1<<subBits {
		return int(v)
	}
	shift := bits.Len64(v) - subBits - 1
	return (shift+1)<<subBits + int(v>>shift) - 1<<subBits
}

// bucketStart returns the least duration in bucket i and the bucket's width.
func bucketStart(i int) (start, width int64) {
	if i < 1<<subBits {
		return int64(i), 1
	}
	shift := i>>subBits - 1
	return int64(i&(1<<subBits-1)+1<<subBits) << shift, 1 << shift
}

func (h *histogram) record(ns int64) {
	h.counts[bucketOf(ns)]++
	h.count++
}

func (h *histogram) add(other *histogram) {
	h.count += other.count
	for i, n := range other.counts {
		h.counts[i] += n
	}
}

// quantile returns the duration in nanoseconds below which the part q (0 to 1) of
// the recorded ones lie, interpolated within its bucket; 0 if there are none.
func (h *histogram) quantile(q float64) float64 {
	rank := q * float64(h.count)
	seen := 0.0
	for i, n := range h.counts {
		if n == 0 {
			continue
		}
		if next := seen + float64(n); next >= rank {
			start, width := bucketStart(i)
			return float64(start) + float64(width)*(rank-seen)/float64(n)
		}
		seen += float64(n)
	}
	return 0
}
