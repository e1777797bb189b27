package control

import (
	"math"
	"slices"
	"time"
)

// The constants were chosen with the simulation of adapt_test.go.
const (
	// A window is at least windowTime and windowSamples calls long; at a low rate,
	// windowLong and windowFew. The mean of 100 exponential times is 10 % off.
	windowTime    = 100 * time.Millisecond
	windowSamples = 100
	windowLong    = time.Second
	windowFew     = 10

	baseWindows = 10   // the base is the least latency of so many windows
	queueSmall  = 0.3  // grow if less than this share of the limit waits at the server
	queueLarge  = 0.5  // try a lower limit if more does: latency is twice the base then
	usedShare   = 0.75 // of the limit, on average: it holds calls back
	trialShare  = 0.6  // of the limit is tried: it empties a queue of up to 40 %
	busyFall    = 1.25 // the server was still busy if latency over limit rises by no more
	steadyRise  = 1.15 // latency still rises if it does by more from window to window
	headroom    = 1.35 // over the calls that a trial shows to be needed
	shrinkShare = 0.9  // of the limit is left by a window with overload
	overShare   = 0.02 // more than this share of a window's calls: overload
)

// adaptation is an adaptive limit. It is a pure state machine for use under a lock.
//
// As TCP Vegas does, it estimates the calls that wait at the server from latency and
// base, the latency without a queue: limit * (1 - base/latency). Few: the limit grows.
// The base is the least mean of the latest windows, not the least latency: single
// latencies that vary by themselves say nothing of a queue. Under lasting load there
// is no window without a queue and the base would follow the latency upwards, limit
// and latency after it. So, now and then and whenever the queue seems large, a lower
// limit is tried for a window. If the latency falls with it, what was taken away did
// nothing but wait. If it does not, the server itself has become slower: its latency
// is the new base and the limit returns. A trial ends no call, and takes place only
// while the limit holds calls back.
//
// The limit starts at the ceiling. Without evidence the operator's word holds, and to
// refuse calls that a healthy server could take, each time a client starts, is worse
// than a queue in the first seconds of an overload. Coming down takes about three times
// the latency at the ceiling under full load, and some windows.
type adaptation struct {
	min, max float64
	limit    float64

	// The window under way.
	from         time.Duration // calls that end before are not of it
	calls, over  int           // those that ended, and the overloaded among them
	sum, squares float64       // of the latencies of the others, ns
	inFlight     float64       // sum of the calls in flight when each ended
	full         bool          // the limit was reached

	means     [baseWindows]float64 // latest mean latencies, ns
	windows   int                  // how many there were since the base was last reset
	before    float64              // mean latency of the window before, ns
	saturated int                  // windows in which the limit held calls back, since the latest trial
	trialFrom float64              // the limit before the trial under way; 0: none is
	trialTop  float64              // the limit before the first of several trials in a row
	descent   bool                 // the way down from the ceiling, until the first trial that fails
}

func newAdaptation(floor, ceiling int, start time.Duration) *adaptation {
	return &adaptation{
		min: float64(floor), max: float64(ceiling), limit: float64(ceiling), from: start,
		saturated: baseWindows - 1, // nothing is known of the base
		descent:   true,
	}
}

// done takes note of a call that ends and returns the limit. inFlight counts it too.
func (a *adaptation) done(now, took time.Duration, overloaded bool, inFlight int) int {
	if now < a.from {
		return int(a.limit)
	}
	a.calls++
	a.inFlight += float64(inFlight)
	if inFlight >= int(a.limit) {
		a.full = true
	}
	if overloaded {
		a.over++ // its time tells nothing: it may have been refused at once
	} else {
		a.sum += float64(took)
		a.squares += float64(took) * float64(took)
	}
	if d := now - a.from; d >= windowTime && (a.calls >= windowSamples || a.calls >= windowFew && d >= windowLong) {
		a.endWindow(now)
	}
	return int(a.limit)
}

// endWindow sets the limit by the window that ends. The next one begins when the calls
// that were sent under the old limit have ended.
func (a *adaptation) endWindow(now time.Duration) {
	latency, old := a.before, a.limit
	if float64(a.over) > overShare*float64(a.calls) {
		a.limit, a.trialFrom = a.limit*shrinkShare, 0
	} else {
		latency = a.sum / float64(a.calls-a.over)
		a.limit = a.next(latency)
	}
	a.limit = min(max(a.limit, a.min), a.max)
	a.before = latency
	a.from = now
	if int(a.limit) != int(old) {
		a.from += time.Duration(latency)
	}
	a.calls, a.over, a.sum, a.squares, a.inFlight, a.full = 0, 0, 0, 0, 0, false
}

// next returns the limit after a window with that mean latency.
func (a *adaptation) next(latency float64) float64 {
	tried := a.trialFrom > 0
	if tried {
		a.windows = 0
	}
	a.means[a.windows%baseWindows] = latency
	a.windows++
	if tried {
		if limit := a.judge(latency); limit > 0 {
			return limit
		}
	}
	if a.inFlight < usedShare*a.limit*float64(a.calls) {
		a.saturated = 0
		if a.full {
			return a.grown()
		}
		return a.limit
	}
	a.saturated++
	queue := a.queue(latency)
	if (a.saturated >= baseWindows || queue > queueLarge) && a.steady(latency) {
		a.saturated = 0
		if limit := max(a.limit*trialShare, a.min); int(limit) < int(a.limit) {
			a.trialFrom, a.trialTop = a.limit, max(a.trialTop, a.limit)
			return limit
		}
	}
	if queue < queueSmall {
		return a.grown()
	}
	return a.limit
}

// judge ends a trial. It returns the limit to go on with, 0 if the server was still busy
// under the lower one: that is kept, and the next trial is due.
func (a *adaptation) judge(latency float64) float64 {
	from := a.trialFrom
	a.trialFrom = 0
	share := math.Floor(a.limit) / math.Floor(from)
	fell := latency / a.before // to share, had the server still been busy
	threshold := share * busyFall
	if a.descent {
		threshold = (1 + share) / 2 // be quick rather than exact
	}
	if fell <= threshold {
		a.saturated = baseWindows
		return 0
	}
	a.descent = false
	a.saturated = 0
	// By Little's law from*fell calls in flight give the throughput there was before.
	limit := min(a.trialTop, max(a.limit, from*fell*headroom))
	a.trialTop = 0
	return limit
}

// queue estimates which share of the limit waits at the server, with the latency taken
// to be lower by one standard error.
func (a *adaptation) queue(latency float64) float64 {
	n := float64(a.calls - a.over)
	deviation := math.Sqrt(max(a.squares/n-latency*latency, 0) / n)
	base := slices.Min(a.means[:min(a.windows, baseWindows)])
	if latency-deviation <= base {
		return 0
	}
	return 1 - base/(latency-deviation)
}

// steady reports whether a trial can be judged by this latency. On the way down from
// the ceiling the queue may still be filling.
func (a *adaptation) steady(latency float64) bool {
	return !a.descent || latency < steadyRise*a.before || a.saturated >= 2*baseWindows
}

// grown returns the limit one step higher: from 10 to 1000 in 60 windows.
func (a *adaptation) grown() float64 { return a.limit + math.Sqrt(a.limit) }
