package demo

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/stile-ipc/stile/cmd/stile/internal/measure"
	"github.com/stile-ipc/stile/cmd/stile/internal/terminal"
)

const (
	// backFor is how long goodput must be back to count as such, backShare what part
	// of the requests due in that time must be answered well.
	backFor   = 500 * time.Millisecond
	backShare = 0.95
)

// ChaosResult is what [Chaos] has shown.
type ChaosResult struct {
	Rate       float64      `json:"rate"` // of the load, requests/s
	GoodWithin float64      `json:"good_within_ms"`
	Policy     string       `json:"policy"`
	Phases     []ChaosPhase `json:"phases"`
	Helped     bool         `json:"policy_helped"` // goodput was better in each faulty phase
}

// ChaosPhase is one phase, without the policy and with it.
type ChaosPhase struct {
	Name    string    `json:"name"`
	Fault   string    `json:"fault,omitempty"` // empty: quiet
	Without ChaosSide `json:"without"`
	With    ChaosSide `json:"with"`
}

// ChaosSide is how the requests went that were due in a phase.
type ChaosSide struct {
	Seconds  float64  `json:"seconds"`
	Requests int      `json:"requests"`
	Good     int      `json:"good"` // answered well, and soon enough
	Failed   int      `json:"failed"`
	Goodput  float64  `json:"goodput_per_s"`
	P50      *float64 `json:"p50_ms"` // of those that did not fail; nil: all did
	P99      *float64 `json:"p99_ms"`
	Failure  string   `json:"failure,omitempty"` // the first

	// For faulty phases. Nil: the phase ended before.
	Adapted   *float64 `json:"good_again_in_fault_s,omitempty"`    // from the fault's beginning
	Recovered *float64 `json:"good_again_after_fault_s,omitempty"` // from its end
}

// goodPart is the part of the requests that were answered well.
func (s ChaosSide) goodPart() float64 { return ratio(float64(s.Good), float64(s.Requests)) }

// FailedPercent is the part of the requests that failed.
func (s ChaosSide) FailedPercent() float64 {
	return 100 * ratio(float64(s.Failed), float64(s.Requests))
}

func chaosResult(rate float64, without, with *turn) ChaosResult {
	r := ChaosResult{Rate: rate, GoodWithin: milliseconds(goodWithin), Helped: true}
	for i, p := range script {
		phase := ChaosPhase{Name: p.name, Without: without.result(i), With: with.result(i)}
		if p.faulty() {
			phase.Fault = p.program + ": " + p.what
			r.Helped = r.Helped && phase.helped()
		}
		r.Phases = append(r.Phases, phase)
	}
	return r
}

// helped reports whether goodput was better with the policy, by more than chance: the
// difference of two counts of n requests has a standard deviation of sqrt(n/2) at most.
func (p ChaosPhase) helped() bool {
	n := float64(p.With.Requests)
	return n*(p.With.goodPart()-p.Without.goodPart()) > math.Sqrt(n)
}

// Unhelped returns the faulty phases in which goodput was not better with the policy.
func (r ChaosResult) Unhelped() []string {
	var names []string
	for _, p := range r.Phases {
		if p.Fault != "" && !p.helped() {
			names = append(names, p.Name)
		}
	}
	return names
}

func (a answer) good() bool { return a.err == nil && a.took <= goodWithin }

// result sums up phase i of a turn that is over.
func (t *turn) result(i int) ChaosSide {
	now := t.spans[i]
	due := t.within(now)
	s := ChaosSide{Seconds: now.ended.Sub(now.begun).Seconds(), Requests: len(due)}
	var times []time.Duration
	for _, a := range due {
		if a.good() {
			s.Good++
		}
		if a.err == nil {
			times = append(times, a.took)
			continue
		}
		s.Failed++
		if s.Failure == "" {
			s.Failure = a.err.Error()
		}
	}
	if len(times) > 0 {
		slices.Sort(times)
		s.P50, s.P99 = new(milliseconds(quantile(times, 0.5))), new(milliseconds(quantile(times, 0.99)))
	}
	s.Goodput = ratio(float64(s.Good), s.Seconds)
	if script[i].faulty() {
		s.Adapted = t.goodAgain(now, now.ended)
		s.Recovered = t.goodAgain(t.spans[i+1], time.Time{})
	}
	return s
}

// within returns the answers to the requests that were due in s, in that order.
func (t *turn) within(s span) []answer {
	var due []answer
	for _, a := range t.answers {
		if !a.due.Before(s.begun) && a.due.Before(s.ended) {
			due = append(due, a)
		}
	}
	slices.SortStableFunc(due, func(a, b answer) int { return a.due.Compare(b.due) })
	return due
}

// goodAgain returns how many seconds after the beginning of s the time begins in which
// requests are answered well for backFor or half of s; nil: none does. Answers that come after by,
// if it is not zero, owe it to the end of the fault and do not count as good.
func (t *turn) goodAgain(s span, by time.Time) *float64 {
	due := t.within(s)
	length := min(backFor, s.ended.Sub(s.begun)/2)
	good := func(a answer) bool { return a.good() && (by.IsZero() || !a.due.Add(a.took).After(by)) }
	n, last := 0, 0 // the good of due[first:last]
	for first, a := range due {
		from := a.due
		if first == 0 {
			from = s.begun
		}
		if from.Add(length).After(s.ended) {
			return nil
		}
		for ; last < len(due) && due[last].due.Before(from.Add(length)); last++ {
			if good(due[last]) {
				n++
			}
		}
		if !good(a) {
			continue
		}
		if float64(n) >= backShare*float64(last-first) {
			return new(from.Sub(s.begun).Seconds())
		}
		n--
	}
	return nil
}

// quantile returns the least of times, which are sorted, that a part q of them does not
// exceed.
func quantile(times []time.Duration, q float64) time.Duration {
	return times[min(int(q*float64(len(times))), len(times)-1)]
}

// Table sets both turns side by side.
func (r ChaosResult) Table(style terminal.Style) string {
	var b strings.Builder
	const format = "%-20s %8s %8s %9s %6s %9s %7s %9s %7s"
	b.WriteString(style.Strong(fmt.Sprintf("%-20s %17s %16s %17s %17s", "", "goodput/s", "failed %", "p50 ms", "p99 ms")) + "\n")
	fmt.Fprintf(&b, format+"\n", "policy:", "without", "with", "without", "with", "without", "with", "without", "with")
	for _, p := range r.Phases {
		a, z := p.Without, p.With
		line := fmt.Sprintf(format, p.Name, measure.Number(a.Goodput), measure.Number(z.Goodput),
			fmt.Sprintf("%.1f", a.FailedPercent()), fmt.Sprintf("%.1f", z.FailedPercent()),
			numberOf(a.P50), numberOf(z.P50), numberOf(a.P99), numberOf(z.P99))
		switch {
		case p.Fault == "":
		case p.helped():
			line = style.Good(line)
		default:
			line = style.Bad(line)
		}
		b.WriteString(line + "\n")
	}
	b.WriteString("\n" + r.recovery())
	fmt.Fprintf(&b, "\n%.0f requests/s (%s), timed from when each was due.\n", r.Rate, Mix)
	fmt.Fprintf(&b, "Goodput: answered well within %.0f ms. Back: %.0f %% of requests for %v. Policy: %s\n", r.GoodWithin, 100*backShare, backFor, r.Policy)
	return b.String()
}

// recovery tells for each fault how soon goodput was back.
func (r ChaosResult) recovery() string {
	var b strings.Builder
	for _, p := range r.Phases {
		if p.Fault != "" {
			fmt.Fprintf(&b, "%s (%s): goodput was back, without the policy, %s; with it, %s.\n", p.Name, p.Fault, p.Without.back(), p.With.back())
		}
	}
	return b.String()
}

func (s ChaosSide) back() string {
	switch {
	case s.Adapted != nil:
		return fmt.Sprintf("%.1f s after the fault began", *s.Adapted)
	case s.Recovered != nil:
		return fmt.Sprintf("%.1f s after the fault ended", *s.Recovered)
	}
	return "not at all"
}
