package control

import (
	"math"
	"sync/atomic"
)

// Budget bounds what retries and hedges add to the load of a service: to a share of the
// calls made, counted in tokens that calls pay in, and to a share of the calls under way. It
// is safe for concurrent use and takes no time: load is counted in calls.
type Budget struct {
	share   float64 // of the calls
	always  int64   // extra attempts at once that the calls under way never forbid
	deposit int64   // by each call, in parts of a token
	calls   atomic.Int64
	extra   atomic.Int64
	tokens  atomic.Int64 // in parts
}

const (
	// tokenParts is how finely shares are counted; an extra attempt costs a whole token.
	tokenParts = 10_000
	// reserve is how many tokens there are at first, and at most: so many failures after
	// a quiet time are retried, however few calls there have been.
	reserve = 10
)

// NewBudget returns a budget of percent of the calls. always is how many extra attempts may
// be under way however few calls are.
func NewBudget(percent float64, always int) *Budget {
	b := &Budget{share: percent / 100, always: int64(always)}
	b.deposit = int64(math.Round(b.share * tokenParts))
	if percent > 0 {
		b.tokens.Store(reserve * tokenParts)
	}
	return b
}

// Begin tells of a call that begins; End is due when it has ended.
func (b *Budget) Begin() {
	b.calls.Add(1)
	if b.tokens.Load() < reserve*tokenParts {
		b.tokens.Add(b.deposit)
	}
}

// End ends what Begin began.
func (b *Budget) End() { b.calls.Add(-1) }

// Take asks for one more attempt of a call under way. If it is granted, Give is due when
// the attempt has ended.
func (b *Budget) Take() bool {
	most := max(b.always, int64(b.share*float64(b.calls.Load())))
	if b.extra.Add(1) > most {
		b.extra.Add(-1)
		return false
	}
	if b.tokens.Add(-tokenParts) < 0 {
		b.tokens.Add(tokenParts)
		b.extra.Add(-1)
		return false
	}
	return true
}

// Give ends what Take granted.
func (b *Budget) Give() { b.extra.Add(-1) }

// Throttle is gRPC's retry throttling (gRFC A6): while half of the tokens or more are gone,
// nothing is retried. It is safe for concurrent use. A nil Throttle never throttles.
type Throttle struct {
	most, half, ratio int64 // in thousandths of a token, as in gRPC
	tokens            atomic.Int64
}

// NewThrottle returns a throttle that is full. A failure takes one token, a success gives
// back ratio.
func NewThrottle(maxTokens, ratio float64) *Throttle {
	t := &Throttle{most: int64(maxTokens * 1000), ratio: max(int64(ratio*1000), 1)}
	t.half = t.most / 2
	t.tokens.Store(t.most)
	return t
}

// Failed counts a failure that may be retried and reports whether it must not be.
func (t *Throttle) Failed() (throttled bool) {
	return t != nil && t.add(-1000) <= t.half
}

// Succeeded counts an attempt that went well.
func (t *Throttle) Succeeded() {
	if t != nil && t.tokens.Load() < t.most {
		t.add(t.ratio)
	}
}

// Throttled reports whether nothing may be tried again now.
func (t *Throttle) Throttled() bool { return t != nil && t.tokens.Load() <= t.half }

func (t *Throttle) add(n int64) int64 {
	for {
		old := t.tokens.Load()
		next := min(max(old+n, 0), t.most)
		if t.tokens.CompareAndSwap(old, next) {
			return next
		}
	}
}
