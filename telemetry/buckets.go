package telemetry

import "math/bits"

// Bucket is how many values were at least Low and less than High.
type Bucket struct {
	Low, High int64
	Count     uint64
}

// coarseBits of a value after its highest tell its bucket in [Histogram.Buckets].
const coarseBits = 3

// Buckets are those from the least value to the largest, each beginning where the one before ends: 8 or fewer for each doubling.
func (h *Histogram) Buckets() []Bucket {
	if h.count == 0 {
		return nil
	}
	var all []Bucket
	for b := bucketOf(h.least); b <= bucketOf(h.most); b++ {
		low := lowest(b)
		shift := max(bits.Len64(low)-1-coarseBits, 0)
		from := int64(low >> shift << shift)
		if n := len(all); n == 0 || all[n-1].Low != from {
			all = append(all, Bucket{Low: from, High: from + 1<<shift})
		}
		all[len(all)-1].Count += h.counts[b-h.first]
	}
	return all
}
