package telemetry

import "time"

// maxArrivals is how many are known.
const maxArrivals = 32

// Arrivals is when the earliest of some calls came. Its zero value is of none.
type Arrivals struct {
	at   [maxArrivals]time.Duration
	n    int
	last time.Duration // of at, if there is no room
}

// All returns the times on the recorder's clock, in order: of all calls if there are fewer than 32, else of the 32 earliest. They belong to a.
func (a *Arrivals) All() []time.Duration { return a.at[:a.n] }

// record notes that a call came.
func (a *Arrivals) record(at time.Duration) {
	if a.n == maxArrivals && at >= a.last {
		return
	}
	i := min(a.n, maxArrivals-1)
	for ; i > 0 && a.at[i-1] > at; i-- {
		a.at[i] = a.at[i-1]
	}
	a.at[i] = at
	a.n = min(a.n+1, maxArrivals)
	a.last = a.at[maxArrivals-1]
}

// merge adds other calls.
func (a *Arrivals) merge(o *Arrivals) {
	for _, at := range o.All() {
		a.record(at)
	}
}
