package control

import "time"

// Backoff is how long retries wait: a random part (full jitter) of a bound that grows from
// retry to retry. It does not change and is safe for concurrent use.
type Backoff struct {
	Initial    time.Duration // bound before the first retry
	Max        time.Duration // of all bounds
	Multiplier float64
}

// Bound is the longest wait before retry n, from 1.
func (b Backoff) Bound(n int) time.Duration {
	bound := float64(b.Initial)
	for range n - 1 {
		if bound >= float64(b.Max) {
			break
		}
		bound *= b.Multiplier
	}
	if bound >= float64(b.Max) {
		return b.Max
	}
	return time.Duration(bound)
}

// Wait is the wait before retry n, from 1. random is from 0 to 1, without 1.
func (b Backoff) Wait(n int, random float64) time.Duration {
	return time.Duration(random * float64(b.Bound(n)))
}
