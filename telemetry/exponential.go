package telemetry

import "math"

// Exponential is a histogram as OpenTelemetry's exponential ones are: Counts[i] are the values above Base^(Offset+i) and up to Base times that, where Base is 2^(2^-Scale).
type Exponential struct {
	Scale  int32
	Offset int32
	Zero   uint64
	Counts []uint64
}

const (
	exponentialScale   = 5 // as many buckets for each doubling as SubBuckets, but of another width
	exponentialBuckets = 320
)

// Exponential returns the histogram with values in a unit, such as 1e9 for seconds of nanoseconds. Each value is counted where the middle of its bucket is, whatever else was recorded, so that of a
// histogram that has grown no bucket has become less, unless the scale has: it is off by 4 % at most if the values are within 10 doublings, by 7 % within 20, and by 11 % else.
func (h *Histogram) Exponential(unit float64) Exponential {
	e := Exponential{Scale: exponentialScale}
	index := func(b int) int {
		return int(math.Ceil(math.Log2(float64(middle(b))/unit)*(1<<exponentialScale))) - 1
	}
	least, most := -1, -1 // buckets with something in them, but for that of 0
	for i, n := range h.counts {
		switch b := h.first + i; {
		case n == 0:
		case b == 0:
			e.Zero = n
		case least < 0:
			least, most = b, b
		default:
			most = b
		}
	}
	if least < 0 {
		return e
	}
	for index(most)>>(exponentialScale-e.Scale)-index(least)>>(exponentialScale-e.Scale) >= exponentialBuckets {
		e.Scale--
	}
	coarser := exponentialScale - e.Scale
	first := index(least) >> coarser
	e.Offset, e.Counts = int32(first), make([]uint64, index(most)>>coarser-first+1)
	for b := least; b <= most; b++ {
		if n := h.counts[b-h.first]; n > 0 {
			e.Counts[index(b)>>coarser-first] += n
		}
	}
	return e
}
