package telemetry

import (
	"encoding/json"
	"fmt"
	"math"
	"math/bits"
	"slices"
)

// SubBuckets is how many buckets a histogram has for each doubling: a value is known to 1/32.
const SubBuckets = 1 << subBits

const (
	subBits = 5
	// lastBucket holds what is 2^62 or more.
	lastBucket = (62-subBits+1)<<subBits - 1
)

// Histogram counts values that are not negative, such as nanoseconds or bytes, in log-linear buckets. Its memory is of the range between the least and
// the largest value. Its zero value is empty. It is not safe for concurrent use.
type Histogram struct {
	count  uint64
	sum    float64
	least  uint64
	most   uint64
	first  int // bucket of counts[0]
	counts []uint64
}

// Record counts a value; a negative one counts as 0.
func (h *Histogram) Record(v int64) {
	u := uint64(max(v, 0))
	i := bucketOf(u) - h.first
	if uint(i) >= uint(len(h.counts)) || h.count == 0 {
		h.RecordN(v, 1)
		return
	}
	h.counts[i]++
	h.least, h.most = min(h.least, u), max(h.most, u)
	h.count++
	h.sum += float64(u)
}

// RecordN counts n equal values.
func (h *Histogram) RecordN(v int64, n uint64) {
	if n == 0 {
		return
	}
	u := uint64(max(v, 0))
	h.widen(bucketOf(u))
	h.counts[bucketOf(u)-h.first] += n
	if h.count == 0 || u < h.least {
		h.least = u
	}
	h.most = max(h.most, u)
	h.count += n
	h.sum += float64(u) * float64(n)
}

// widen makes room for a bucket.
func (h *Histogram) widen(b int) {
	if len(h.counts) == 0 {
		h.first, h.counts = b, append(h.counts, 0)
		return
	}
	if more := h.first - b; more > 0 {
		h.first, h.counts = b, append(make([]uint64, more, more+len(h.counts)), h.counts...)
	}
	for b >= h.first+len(h.counts) {
		h.counts = append(h.counts, 0)
	}
}

// roomOf makes room for values like those of another, while h is empty.
func (h *Histogram) roomOf(o *Histogram) {
	if o.count > 0 {
		h.first = bucketOf(o.least)
		h.counts = make([]uint64, bucketOf(o.most)-h.first+1)
	}
}

// Merge counts all that other has counted.
func (h *Histogram) Merge(other *Histogram) {
	if other.count == 0 {
		return
	}
	from, to := 0, len(other.counts)
	for other.counts[from] == 0 { // there is one, or count were 0
		from++
	}
	for other.counts[to-1] == 0 {
		to--
	}
	h.widen(other.first + from)
	h.widen(other.first + to - 1)
	for i := from; i < to; i++ {
		h.counts[other.first+i-h.first] += other.counts[i]
	}
	if h.count == 0 || other.least < h.least {
		h.least = other.least
	}
	h.most = max(h.most, other.most)
	h.count += other.count
	h.sum += other.sum
}

// Without returns a histogram of the values of h that are not among those of part, all of which h has recorded. Of its least and largest value it knows the bucket.
func (h *Histogram) Without(part *Histogram) Histogram {
	left := Histogram{sum: max(h.sum-part.sum, 0), first: h.first, counts: slices.Clone(h.counts)}
	for i, n := range part.counts {
		if n > 0 {
			left.counts[part.first+i-h.first] -= n
		}
	}
	for i, n := range left.counts {
		if n == 0 {
			continue
		}
		if left.count += n; left.count == n {
			left.least = max(lowest(h.first+i), h.least)
		}
		left.most = min(lowest(h.first+i+1)-1, h.most)
	}
	return left
}

// Count is how many values were recorded.
func (h *Histogram) Count() uint64 { return h.count }

// Sum is that of the values.
func (h *Histogram) Sum() float64 { return h.sum }

// Mean is that of the values; 0 if there are none.
func (h *Histogram) Mean() float64 {
	if h.count == 0 {
		return 0
	}
	return h.sum / float64(h.count)
}

// Quantile returns the value that the part q of those recorded, 0 to 1, does not exceed, to 1/32; 0 if there are none. The least and the largest value are exact.
func (h *Histogram) Quantile(q float64) int64 {
	if h.count == 0 {
		return 0
	}
	left := uint64(math.Ceil(q * float64(h.count)))
	switch {
	case left <= 1:
		return int64(h.least)
	case left >= h.count:
		return int64(h.most)
	}
	for i, n := range h.counts {
		if n < left {
			left -= n
			continue
		}
		return int64(min(max(middle(h.first+i), h.least), h.most))
	}
	return int64(h.most)
}

// Above is how many values were more than v, to 1/32: those of v's own bucket count as no more.
func (h *Histogram) Above(v int64) (n uint64) {
	if h.count == 0 {
		return 0
	}
	if v < 0 {
		return h.count
	}
	for i := max(bucketOf(uint64(v))+1-h.first, 0); i < len(h.counts); i++ {
		n += h.counts[i]
	}
	return n
}

// bucketOf is the bucket of a value: those below 2*SubBuckets have one each.
func bucketOf(v uint64) int {
	if v < SubBuckets {
		return int(v)
	}
	shift := bits.Len64(v) - 1 - subBits
	return min(shift<<subBits+int(v>>shift), lastBucket)
}

// lowest is the least value of a bucket.
func lowest(b int) uint64 {
	shift := max(b>>subBits-1, 0)
	return uint64(b-shift<<subBits) << shift
}

func middle(b int) uint64 {
	low := lowest(b)
	return low + (lowest(b+1)-low)/2
}

// histogramJSON is a histogram for other processes: its buckets in order, from the first that is not empty.
type histogramJSON struct {
	Count  uint64   `json:"count"`
	Sum    float64  `json:"sum"`
	Least  uint64   `json:"min"`
	Most   uint64   `json:"max"`
	First  int      `json:"first"`
	Counts []uint64 `json:"counts"`
}

// MarshalJSON writes the buckets and what they were made of.
func (h Histogram) MarshalJSON() ([]byte, error) {
	return json.Marshal(histogramJSON{h.count, h.sum, h.least, h.most, h.first, h.counts})
}

// UnmarshalJSON reads what MarshalJSON has written. What contradicts itself is an error.
func (h *Histogram) UnmarshalJSON(text []byte) error {
	var j histogramJSON
	if err := json.Unmarshal(text, &j); err != nil {
		return err
	}
	got, err := FromRaw(Raw{j.First, j.Counts, j.Sum, j.Least, j.Most})
	if err != nil {
		return err
	}
	if got.count != j.Count {
		return fmt.Errorf("a histogram of %d values with %d in buckets", j.Count, got.count)
	}
	*h = got
	return nil
}

// Raw is what a histogram is made of, for other processes.
type Raw struct {
	First  int      // bucket of Counts[0]
	Counts []uint64 // shared with the histogram
	Sum    float64
	Min    uint64
	Max    uint64
}

// Raw returns what it is made of.
func (h *Histogram) Raw() Raw { return Raw{h.first, h.counts, h.sum, h.least, h.most} }

// FromRaw is the histogram of which Raw returned b, whose counts it takes over. What contradicts itself is an error.
func FromRaw(b Raw) (Histogram, error) {
	total, over, first, last := uint64(0), false, -1, 0
	for i, n := range b.Counts {
		total += n
		over = over || total < n
		if n > 0 {
			if first < 0 {
				first = b.First + i
			}
			last = b.First + i
		}
	}
	switch {
	case total == 0 && !over:
		return Histogram{}, nil
	case over || b.First < 0 || len(b.Counts) > lastBucket+1 || b.First > lastBucket+1-len(b.Counts) || b.Max > math.MaxInt64 || bucketOf(b.Min) != first || bucketOf(b.Max) != last || b.Min > b.Max,
		!(b.Sum >= 0.99*float64(total)*float64(b.Min) && b.Sum <= 1.01*float64(total)*float64(b.Max)+1):
		return Histogram{}, fmt.Errorf("a histogram of %d values in %d buckets from %d, from %d to %d, with the sum %g", total, len(b.Counts), b.First, b.Min, b.Max, b.Sum)
	}
	return Histogram{total, b.Sum, b.Min, b.Max, b.First, b.Counts}, nil
}
