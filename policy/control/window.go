package control

import "time"

// maxWindow bounds a window, in calls and in seconds; maxBuckets bounds the buckets of a window
// of seconds. A window takes 250 kB at most.
const (
	maxWindow  = 1_000_000
	maxBuckets = 1000
)

// outcome says how a call went.
type outcome uint8

const (
	failedCall outcome = 1 << iota
	slowCall
)

// tally counts outcomes.
type tally struct{ calls, failed, slow int }

func (t *tally) add(o outcome) {
	t.calls++
	t.failed += int(o & failedCall)
	t.slow += int(o & slowCall >> 1)
}

func (t *tally) sub(s tally) {
	t.calls -= s.calls
	t.failed -= s.failed
	t.slow -= s.slow
}

// outcomes is a window of the latest outcomes. Its owner locks.
type outcomes interface {
	// add puts in an outcome of now and returns what the window holds then.
	add(now time.Duration, o outcome) tally
	clear()
}

// callWindow holds the latest size outcomes: a ring of two bits for each.
type callWindow struct {
	sum  tally
	next int // place of the next outcome
	size int
	bits []uint64
}

const perWord = 32 // outcomes in a uint64

func newCallWindow(size int) *callWindow {
	size = min(max(size, 1), maxWindow)
	return &callWindow{size: size, bits: make([]uint64, (size+perWord-1)/perWord)}
}

func (w *callWindow) add(_ time.Duration, o outcome) tally {
	word, shift := &w.bits[w.next/perWord], w.next%perWord*2
	if w.sum.calls == w.size {
		var oldest tally
		oldest.add(outcome(*word>>shift) & (failedCall | slowCall))
		w.sum.sub(oldest)
	}
	*word = *word&^(3<<shift) | uint64(o)<<shift
	if w.next++; w.next == w.size {
		w.next = 0
	}
	w.sum.add(o)
	return w.sum
}

// clear leaves the bits: those beyond sum.calls are not read.
func (w *callWindow) clear() { w.sum, w.next = tally{}, 0 }

// timeWindow holds the outcomes of the latest seconds: a ring of buckets of equal width. The
// newest bucket is the one that time is in, so the window is up to a bucket shorter than said.
type timeWindow struct {
	sum     tally
	newest  int64 // time of the newest bucket, in widths since the epoch
	at      int   // its place
	width   time.Duration
	buckets []tally
}

// newTimeWindow returns a window of buckets of a second, or, if there would be more than
// maxBuckets, of maxBuckets wider ones.
func newTimeWindow(seconds int) *timeWindow {
	seconds = min(max(seconds, 1), maxWindow)
	n := min(seconds, maxBuckets)
	return &timeWindow{width: time.Duration(seconds) * time.Second / time.Duration(n), buckets: make([]tally, n)}
}

// add counts an outcome that is older than the newest bucket as one of that bucket.
func (w *timeWindow) add(now time.Duration, o outcome) tally {
	if t := floorDiv(now, w.width); w.sum.calls == 0 {
		w.newest = t
	} else if t > w.newest {
		w.turn(t)
	}
	w.buckets[w.at].add(o)
	w.sum.add(o)
	return w.sum
}

// turn makes t the newest bucket and empties those between.
func (w *timeWindow) turn(t int64) {
	n := t - w.newest
	w.newest = t
	if n >= int64(len(w.buckets)) {
		w.clear()
		return
	}
	for range n {
		if w.at++; w.at == len(w.buckets) {
			w.at = 0
		}
		w.sum.sub(w.buckets[w.at])
		w.buckets[w.at] = tally{}
	}
}

// clear leaves newest: add sets it when the window is empty.
func (w *timeWindow) clear() {
	w.sum, w.at = tally{}, 0
	clear(w.buckets)
}

func floorDiv(d, by time.Duration) int64 {
	q := int64(d / by)
	if d%by < 0 {
		q--
	}
	return q
}
