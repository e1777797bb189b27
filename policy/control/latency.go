package control

import (
	"math"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

// Latency estimates a percentile of what calls have taken lately, at most 13 % too high. It is
// safe for concurrent use; Add takes no lock but now and then.
type Latency struct {
	percentile float64
	now        atomic.Pointer[counts]
	found      atomic.Int64 // when the estimate was made
	estimate   atomic.Int64 // ns; 0: too little is known

	mu     sync.Mutex
	past   *counts // the interval before
	turned time.Duration
}

// counts has a counter for each eighth of a power of two of nanoseconds.
type counts struct {
	of [buckets]atomic.Uint32
	n  atomic.Uint32
}

const (
	buckets = 64 * 8
	// turnEvery bounds how old a call may be that counts: from one to two times it.
	turnEvery = 10 * time.Second
	// refresh is how old an estimate may be while calls are counted.
	refresh = 200 * time.Millisecond
	// enough is how many calls make an estimate.
	enough = 20
)

// NewLatency returns an estimate of the percentile p, 0 < p < 100.
func NewLatency(p float64, start time.Duration) *Latency {
	l := &Latency{percentile: p, past: new(counts), turned: start}
	l.now.Store(new(counts))
	l.found.Store(int64(start))
	return l
}

// Add counts a call that ends now and took so long.
func (l *Latency) Add(now, took time.Duration) {
	c := l.now.Load()
	c.of[bucketOf(took)].Add(1)
	if n := c.n.Add(1); n == enough || now-time.Duration(l.found.Load()) >= refresh {
		l.find(now)
	}
}

// Estimate returns the percentile; false: too few calls are known.
func (l *Latency) Estimate() (time.Duration, bool) {
	ns := l.estimate.Load()
	return time.Duration(ns), ns != 0
}

func (l *Latency) find(now time.Duration) {
	if !l.mu.TryLock() { // another one does
		return
	}
	defer l.mu.Unlock()
	l.found.Store(int64(now))
	var sum [buckets]uint64
	total, c := uint64(0), l.now.Load()
	for i := range sum {
		sum[i] = uint64(c.of[i].Load()) + uint64(l.past.of[i].Load())
		total += sum[i]
	}
	if total >= enough {
		l.estimate.Store(int64(rank(&sum, uint64(math.Ceil(l.percentile/100*float64(total))))))
	}
	if now-l.turned >= turnEvery {
		l.past, l.turned = c, now
		l.now.Store(new(counts))
	}
}

// rank is an upper bound of the n-th smallest.
func rank(sum *[buckets]uint64, n uint64) time.Duration {
	seen := uint64(0)
	for i, k := range sum {
		if seen += k; seen >= n {
			return max(upper(i), 1)
		}
	}
	return upper(buckets - 1)
}

func bucketOf(d time.Duration) int {
	n := uint64(max(d, 0))
	if n < 8 {
		return int(n)
	}
	exp := bits.Len64(n) - 4 // n>>exp is from 8 to 15
	return exp*8 + int(n>>exp)
}

// upper is the longest duration of bucket i.
func upper(i int) time.Duration {
	if i < 8 {
		return time.Duration(i)
	}
	exp := i/8 - 1
	return time.Duration(uint64(i%8+9)<<exp - 1)
}
