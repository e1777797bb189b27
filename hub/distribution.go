package hub

import (
	"math"
	"slices"

	"github.com/stile-ipc/stile/routemap/tracefile"
	"github.com/stile-ipc/stile/telemetry"
)

// since is what was counted after an earlier state of the same series. It is false if that cannot be: the counters began anew.
func since(now, before *tracefile.Distribution) (tracefile.Distribution, bool) {
	if now.Exponential != before.Exponential || now.Count < before.Count || now.Zero < before.Zero {
		return tracefile.Distribution{}, false
	}
	was := *before
	diff := *now
	if now.Exponential {
		diff, was = sameScale(diff, was)
	} else if !slices.Equal(now.Bounds, before.Bounds) {
		return tracefile.Distribution{}, false
	}
	diff.Counts = slices.Clone(diff.Counts)
	for i, n := range was.Counts {
		at := i + int(was.Offset) - int(diff.Offset)
		if n == 0 {
			continue
		}
		if at < 0 || at >= len(diff.Counts) || diff.Counts[at] < n {
			return tracefile.Distribution{}, false
		}
		diff.Counts[at] -= n
	}
	diff.Count, diff.Zero = now.Count-before.Count, now.Zero-before.Zero
	if diff.Sum = now.Sum - before.Sum; diff.Sum < 0 {
		diff.Sum = math.NaN()
	}
	return diff, true
}

// sameScale makes the finer of two exponential ones as coarse as the other.
func sameScale(a, b tracefile.Distribution) (tracefile.Distribution, tracefile.Distribution) {
	scale := min(a.Scale, b.Scale)
	return coarser(a, scale), coarser(b, scale)
}

func coarser(d tracefile.Distribution, scale int32) tracefile.Distribution {
	by := d.Scale - scale
	if by <= 0 || len(d.Counts) == 0 {
		d.Scale = scale
		return d
	}
	first := d.Offset >> by
	last := (int(d.Offset) + len(d.Counts) - 1) >> by
	counts := make([]uint64, last-int(first)+1)
	for i, n := range d.Counts {
		counts[(int(d.Offset)+i)>>by-int(first)] += n
	}
	d.Scale, d.Offset, d.Counts = scale, first, counts
	return d
}

// bucket is what is between two durations, ns.
type bucket struct {
	low, high float64
	count     uint64
}

func bucketsOf(d *tracefile.Distribution) (all []bucket) {
	if d.Zero > 0 {
		all = append(all, bucket{0, 0, d.Zero})
	}
	for i, n := range d.Counts {
		if n == 0 {
			continue
		}
		b := bucket{0, 0, n}
		switch {
		case d.Exponential:
			b.low, b.high = exponentialBound(d, i), exponentialBound(d, i+1)
		default:
			if i > 0 {
				b.low = d.Bounds[i-1]
			}
			if i < len(d.Bounds) {
				b.high = d.Bounds[i]
			} else { // no bound is told: the largest value, or twice the last bound, or what the sum says
				b.high = max(2*b.low, d.Max)
				if len(d.Bounds) == 0 && d.Sum > 0 {
					b.high = max(b.high, d.Sum)
				}
			}
		}
		b.low, b.high = min(b.low, mostDuration), min(b.high, mostDuration)
		all = append(all, b)
	}
	return all
}

const mostDuration = float64(longest) // ns

func exponentialBound(d *tracefile.Distribution, i int) float64 {
	return d.Unit * math.Exp2(math.Ldexp(float64(int(d.Offset)+i), -int(d.Scale)))
}

// record adds what a distribution has counted to histograms: each value as if it were as far into its bucket as makes the sum right. A value is known as far as its
// bucket tells, and the mean as it was sent.
func record(d *tracefile.Distribution, to ...*telemetry.Histogram) {
	all := bucketsOf(d)
	low, width := 0.0, 0.0
	for _, b := range all {
		low += b.low * float64(b.count)
		width += (b.high - b.low) * float64(b.count)
	}
	into := 0.5
	if !math.IsNaN(d.Sum) && width > 0 {
		into = min(max((d.Sum-low)/width, 0), 1)
	}
	for _, b := range all {
		for _, h := range to {
			h.RecordN(int64(math.Round(b.low+into*(b.high-b.low))), b.count)
		}
	}
}
