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

// Exponential returns the histogram with values in a unit, such as 1e9 for seconds of nanoseconds. Each value is counted where the middle of its bucket is: it is off by
// 4 % at most if the values are within 10 doublings, by 7 % within 20, and by 11 % else.
func (h *Histogram) Exponential(unit float64) Exponential {
	e := Exponential{Scale: exponentialScale}
	if h.count == 0 {
		return e
	}
	index := func(v uint64) int { return int(math.Ceil(math.Log2(float64(v)/unit)*(1<<exponentialScale))) - 1 }
	least, most := index(max(h.least, 1)), index(max(h.most, 1))
	for most>>(exponentialScale-e.Scale)-least>>(exponentialScale-e.Scale) >= exponentialBuckets {
		e.Scale--
	}
	coarser := exponentialScale - e.Scale
	first := least >> coarser
	e.Offset, e.Counts = int32(first), make([]uint64, most>>coarser-first+1)
	for i, n := range h.counts {
		switch v := min(max(middle(h.first+i), h.least), h.most); {
		case n == 0:
		case v == 0:
			e.Zero += n
		default:
			e.Counts[index(v)>>coarser-first] += n
		}
	}
	return e
}
