package routemap

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/stile-ipc/stile/telemetry"
)

// Change is how a route differs between two maps.
type Change struct {
	Key
	Before Side     `json:"before"`
	After  Side     `json:"after"`
	Median Interval `json:"median"` // of the median durations, after to before
	Failed Interval `json:"failed"` // of the shares that failed, after less before
}

// Side is a route in one of two maps. One without calls does not have the route.
type Side struct {
	Calls    uint64  `json:"calls"`
	PerTrace float64 `json:"perTrace"` // calls for each trace of the map
	Failed   uint64  `json:"failed"`
	P50      int64   `json:"p50"` // ns
	P99      int64   `json:"p99"` // ns
}

// Interval is a value and where it lies with a confidence of 95 %. Differs tells that "the same" does not lie there; an interval that is not Known has nothing to go by.
type Interval struct {
	Value   float64 `json:"value"`
	Low     float64 `json:"low"`
	High    float64 `json:"high"`
	Known   bool    `json:"known"`
	Differs bool    `json:"differs"`
}

const (
	diffLeast   = 8   // samples on each side
	diffRounds  = 400 // of resampling
	diffOutside = 0.025
	z95         = 1.96
)

// Diff compares two reports, route by route: those that differ first, by how much more their callers wait after than before.
func Diff(before, after *Report) []Change {
	type pair struct{ a, b *Stats }
	pairs := map[Key]pair{}
	for _, r := range before.Routes {
		pairs[r.Key] = pair{a: r.Stats}
	}
	for _, r := range after.Routes {
		pairs[r.Key] = pair{pairs[r.Key].a, r.Stats}
	}
	all := []Change{}
	for k, p := range pairs {
		c := Change{Key: k, Before: sideOf(p.a, before.Traces), After: sideOf(p.b, after.Traces)}
		if p.a != nil && p.b != nil {
			if c.Median = medians(p.a.Samples, p.b.Samples); !c.Median.Known {
				c.Median = countedMedians(p.a.Duration(), p.b.Duration())
			}
			c.Failed = shares(c.Before.Failed, c.Before.Calls, c.After.Failed, c.After.Calls)
		}
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b Change) int {
		return cmp.Or(cmp.Compare(b.rank(), a.rank()), cmp.Compare(b.more(), a.more()), cmp.Compare(a.Key.String(), b.Key.String()), cmp.Compare(a.Transport, b.Transport), cmp.Compare(a.Mode, b.Mode))
	})
	return all
}

// Differs tells whether the route does: it is new or gone, or its median or its failures have changed.
func (c *Change) Differs() bool {
	return c.Before.Calls == 0 || c.After.Calls == 0 || c.Median.Differs || c.Failed.Differs
}

func (c *Change) rank() int {
	if c.Differs() {
		return 1
	}
	return 0
}

// more is how much longer a trace waits for the route, about.
func (c *Change) more() float64 {
	return math.Abs(c.After.PerTrace*float64(c.After.P50) - c.Before.PerTrace*float64(c.Before.P50))
}

func sideOf(s *Stats, traces uint64) Side {
	if s == nil {
		return Side{}
	}
	d := s.Duration()
	return Side{Calls: s.Calls, PerTrace: float64(s.Calls) / float64(max(traces, 1)), Failed: s.Failed(), P50: d.Quantile(0.5), P99: d.Quantile(0.99)}
}

// medians is the ratio of two medians, by resampling.
func medians(a, b []int64) Interval {
	if len(a) < diffLeast || len(b) < diffLeast {
		return Interval{}
	}
	r := rand.New(rand.NewPCG(uint64(len(a)), uint64(len(b)))) // the same for the same input
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	ratios := make([]float64, diffRounds)
	for i := range ratios {
		ratios[i] = float64(resampledMedian(r, b)) / float64(max(resampledMedian(r, a), 1))
	}
	slices.Sort(ratios)
	cut := int(diffOutside * diffRounds)
	i := Interval{Value: float64(b[len(b)/2]) / float64(max(a[len(a)/2], 1)), Low: ratios[cut], High: ratios[diffRounds-1-cut], Known: true}
	i.Differs = i.Low > 1 || i.High < 1
	return i
}

// countedMedians is the ratio of two medians of which no single durations are known, by the ranks between which a median lies. More calls make it no surer than the durations
// that are kept else would: calls of a route that come together are alike.
func countedMedians(a, b *telemetry.Histogram) Interval {
	if min(a.Count(), b.Count()) < diffLeast {
		return Interval{}
	}
	at := func(h *telemetry.Histogram) (low, middle, high float64) {
		half := z95 / 2 / math.Sqrt(float64(min(h.Count(), maxSamples)))
		of := func(q float64) float64 { return math.Log(float64(max(h.Quantile(q), 1))) }
		const width = 1.0 / telemetry.SubBuckets // of a bucket
		return of(0.5-half) - width, of(0.5), of(0.5+half) + width
	}
	lowA, middleA, highA := at(a)
	lowB, middleB, highB := at(b)
	d := middleB - middleA
	i := Interval{Value: math.Exp(d), Low: math.Exp(d - math.Hypot(middleB-lowB, highA-middleA)), High: math.Exp(d + math.Hypot(highB-middleB, middleA-lowA)), Known: true}
	i.Differs = i.Low > 1 || i.High < 1
	return i
}

// resampledMedian is the median of as many values as there are, drawn from them with replacement. They are sorted.
func resampledMedian(r *rand.Rand, sorted []int64) int64 {
	counts := make([]int, len(sorted))
	for range sorted {
		counts[r.IntN(len(sorted))]++
	}
	left := len(sorted)/2 + 1
	for i, n := range counts {
		if left -= n; left <= 0 {
			return sorted[i]
		}
	}
	return sorted[len(sorted)-1]
}

// shares is the difference of two shares, by Newcombe's interval from Wilson's of each.
func shares(failedA, a, failedB, b uint64) Interval {
	if a == 0 || b == 0 {
		return Interval{}
	}
	pa, pb := float64(failedA)/float64(a), float64(failedB)/float64(b)
	lowA, highA := wilson(pa, float64(a))
	lowB, highB := wilson(pb, float64(b))
	d := pb - pa
	i := Interval{Value: d, Low: d - math.Hypot(pb-lowB, highA-pa), High: d + math.Hypot(highB-pb, pa-lowA), Known: true}
	i.Differs = i.Low > 0 || i.High < 0
	return i
}

// wilson is the interval of a share of n.
func wilson(p, n float64) (low, high float64) {
	middle := (p + z95*z95/(2*n)) / (1 + z95*z95/n)
	half := z95 / (1 + z95*z95/n) * math.Sqrt(p*(1-p)/n+z95*z95/(4*n*n))
	return max(middle-half, 0), min(middle+half, 1)
}
