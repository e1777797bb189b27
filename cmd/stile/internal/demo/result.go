package demo

import (
	"math"
	"slices"
	"time"
)

// Result is what a run has shown. Times and costs are medians over the windows of
// a side.
type Result struct {
	Rate     float64 `json:"rate"`     // of the load, requests/s
	Windows  int     `json:"windows"`  // measured on each side
	Requests int64   `json:"requests"` // of the load on both sides, answered or not
	Failed   int64   `json:"failed"`   // of those
	Failure  string  `json:"failure,omitempty"`
	Way      Way     `json:"way"`
	Plain    Side    `json:"grpc_go"`
	Stile    Side    `json:"stile"`
	Ratio    Ratio   `json:"ratio"`
	Mail     *Mail   `json:"mail,omitempty"`
}

// Side is what one way of calling has cost. What could not be measured is nil.
type Side struct {
	Requests  int64    `json:"requests"` // measured
	PerSecond float64  `json:"requests_per_s"`
	P50       float64  `json:"p50_ms"`
	P99       float64  `json:"p99_ms"`
	CPU       *float64 `json:"cpu_ms_per_request"`   // of all six programs
	Switches  *float64 `json:"switches_per_request"` // of all six programs
	Most      float64  `json:"most_requests_per_s"`  // when asked without pause
	Failed    int64    `json:"failed"`               // measured or not
}

// Ratio is how many times less Stile takes than grpc-go, or answers more.
type Ratio struct {
	P50      float64  `json:"p50"`
	P99      float64  `json:"p99"`
	CPU      *float64 `json:"cpu"`
	Switches *float64 `json:"switches"`
	Most     float64  `json:"most_requests_per_s"`
}

func (d *demo) result(rate float64) Result {
	r := Result{Rate: rate, Plain: d.plain.result(), Stile: d.stile.result()}
	for _, s := range []*side{&d.plain, &d.stile} {
		for _, w := range s.stretches {
			done, failed := w.counts()
			r.Requests += done + failed
			r.Failed += failed
			if w.err != nil && r.Failure == "" {
				r.Failure = s.name + ": " + w.err.Error()
			}
			if s == &d.plain && w.measured {
				r.Windows++
			}
		}
	}
	r.Ratio = Ratio{
		P50: ratio(r.Plain.P50, r.Stile.P50), P99: ratio(r.Plain.P99, r.Stile.P99), Most: ratio(r.Stile.Most, r.Plain.Most),
		CPU: ratioOf(r.Plain.CPU, r.Stile.CPU), Switches: ratioOf(r.Plain.Switches, r.Stile.Switches),
	}
	return r
}

// result sums a side up, whose windows are all idle.
func (s *side) result() Side {
	var out Side
	var rps, p50, p99, cpu, switches []float64
	for _, w := range s.stretches {
		done, failed := w.counts()
		out.Failed += failed
		if !w.measured {
			continue
		}
		out.Requests += done
		rps = append(rps, float64(done)/w.ended.Sub(w.begun).Seconds())
		p50 = append(p50, milliseconds(w.times.Quantile(0.5)))
		p99 = append(p99, milliseconds(w.times.Quantile(0.99)))
		if used := w.after.Since(w.before); w.usageErr == nil && done > 0 {
			cpu = append(cpu, milliseconds(used.CPU)/float64(done))
			switches = append(switches, float64(used.Switches)/float64(done))
		}
	}
	out.PerSecond, out.P50, out.P99, out.Most = median(rps), median(p50), median(p99), median(s.most)
	if len(cpu) == len(rps) && len(cpu) > 0 {
		out.CPU, out.Switches = new(median(cpu)), new(median(switches))
	}
	return out
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// median returns the middle of values, which it sorts, or the mean of the two
// middle ones; 0 of none.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	half := len(values) / 2
	if len(values)%2 == 1 {
		return values[half]
	}
	return (values[half-1] + values[half]) / 2
}

// ratio returns more/less; 0 where that says nothing.
func ratio(more, less float64) float64 {
	if r := more / less; !math.IsNaN(r) && !math.IsInf(r, 0) {
		return r
	}
	return 0
}

func ratioOf(more, less *float64) *float64 {
	if more == nil || less == nil {
		return nil
	}
	return new(ratio(*more, *less))
}
