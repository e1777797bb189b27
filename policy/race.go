package policy

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/stile-ipc/stile/telemetry"
)

// race is a call whose attempts overlap: the first on the caller's goroutine, each further
// one on its own. There is none before the first attempt has failed or is late. It is over when one went well or failed for good, or all
// have failed; the others are then cancelled, and their replies are their own.
type race struct {
	k     *call
	first *try

	mu     sync.Mutex
	armed  bool        // the next attempt will start
	timer  *time.Timer // starts it; nil: what starts it is under way
	live   []*try      // attempts under way
	room   [2]*try
	winner *try          // went well or failed for good; nil: none yet
	failed *try          // the last that failed otherwise
	panics string        // what an attempt on a goroutine of its own has panicked with
	why    string        // there is no further attempt
	over   bool          // nothing starts any more
	ended  chan struct{} // made by who waits; closed at the end
}

func newRace(k *call) *race {
	h := &race{k: k, first: &k.first}
	h.live = append(h.room[:0], h.first)
	return h
}

// copied tells whether the call's messages can be copied, as overlapping attempts need, and notes the reply's type while nobody
// else has it.
func (k *call) copied() bool {
	_, ok := k.req.(proto.Message)
	m, is := k.reply.(proto.Message)
	if ok && is {
		k.replyType = m.ProtoReflect().Type()
	}
	return ok && is
}

// hedged makes the call with hedges.
func (k *call) hedged() error {
	t := k.next()
	defer k.endRace() // also when a codec panics
	k.makeFirst(t)
	h := k.turn.race
	if h == nil {
		if t.err == nil {
			k.r.budget.throttle.Succeeded()
			return nil
		}
		h = newRace(k)
		k.turn.race = h
	}
	h.finish(t)
	winner, err := h.wait()
	if winner != nil && winner != t {
		winner.handOver(k)
	}
	return err
}

// makeFirst makes the first attempt. When it has returned, k.turn.race is the caller's to read.
func (k *call) makeFirst(t *try) {
	if wait := k.hedgeDelay(); wait >= 0 {
		k.r.pending.add(k, k.begun+wait)
		defer k.r.pending.remove(k)
	}
	k.make(t, true)
}

func (k *call) endRace() {
	if h := k.turn.race; h != nil {
		h.stop()
	}
}

// hedgeDelay is the wait before the next attempt; negative: there is none to be known.
func (k *call) hedgeDelay() time.Duration {
	d := k.r.hedge.HedgingDelay
	if d.Percentile == 0 {
		return time.Duration(d.Fixed)
	}
	if p, ok := k.r.latency.Estimate(); ok {
		return p
	}
	return -1
}

// armLocked starts the next attempt after d, if there may be one.
func (h *race) armLocked(d time.Duration) {
	if d < 0 || h.over || h.why != "" || h.k.tried >= h.k.r.attempts {
		return
	}
	h.armed = true
	if h.timer == nil {
		h.timer = time.AfterFunc(d, h.start)
	} else {
		h.timer.Reset(d)
	}
}

// start makes a further attempt, on a goroutine of its own. A panic there is the caller's, who might know what to do.
func (h *race) start() {
	var t *try
	defer func() {
		if v := recover(); v != nil {
			h.panicked(t, fmt.Sprintf("%v, in a hedge:\n%s", v, debug.Stack()))
		}
	}()
	if t = h.another(); t != nil {
		h.k.makePaid(t, true)
		h.finish(t)
	}
}

// another prepares one more attempt, which the budget has granted, or returns nil.
func (h *race) another() (t *try) {
	k := h.k
	h.mu.Lock()
	defer h.mu.Unlock()
	h.armed = false
	if h.over || h.why != "" || k.tried >= k.r.attempts || !h.allowedLocked() {
		h.endLocked()
		return nil
	}
	defer func() { // also when what follows panics
		if t == nil {
			k.r.budget.budget.Give()
		}
	}()
	k.count(telemetry.Hedge)
	k.tell(Retried, nil, "hedge")
	req, reply, opts := proto.Clone(k.req.(proto.Message)), k.replyType.New().Interface(), own(k.opts) // the caller may have all back before this attempt ends
	one := k.next()
	one.req, one.reply, one.opts = req, reply, opts
	h.live = append(h.live, one)
	h.armLocked(k.hedgeDelay())
	return one
}

// panicked ends the race, unless it is over.
func (h *race) panicked(t *try, text string) {
	if t == nil {
		t = new(try)
	}
	h.mu.Lock()
	if h.winner == nil && !h.over {
		h.panics = text
	}
	h.mu.Unlock()
	t.err = errPanicked
	h.finish(t)
}

// allowedLocked asks throttle and budget for one more attempt.
func (h *race) allowedLocked() bool {
	b := h.k.r.budget
	if len(metadata.ValueFromIncomingContext(h.k.ctx, previousAttempts)) > 0 {
		h.why = aboveRetries
		return false
	}
	if time.Until(h.k.deadline) <= 0 {
		h.why = "the deadline would pass"
		return false
	}
	if b.throttle.Throttled() || !b.budget.Take() {
		h.why = "retry budget empty"
		h.k.count(telemetry.BudgetRefused)
		h.k.tell(BudgetEmpty, nil, "hedge")
		return false
	}
	return true
}

// finish takes in the outcome of an attempt.
func (h *race) finish(t *try) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.live = slices.DeleteFunc(h.live, func(other *try) bool { return other == t })
	if h.winner != nil {
		return
	}
	if t.err == nil {
		h.k.r.budget.throttle.Succeeded()
		h.winLocked(t)
		return
	}
	v := h.k.judgeHedge(t)
	if !v.again {
		h.winLocked(t)
		return
	}
	h.failed = t
	if v.why != "" {
		h.why = v.why
	}
	if !h.armed || h.timer != nil && h.timer.Stop() { // the next one need not wait for its time, unless it starts now
		h.armLocked(v.wait)
	}
	h.endLocked()
}

// winLocked ends the race.
func (h *race) winLocked(t *try) {
	h.winner = t
	h.stopLocked()
	h.endLocked()
}

// endLocked tells the caller if nothing is left to wait for.
func (h *race) endLocked() {
	if h.ended != nil && h.decidedLocked() {
		h.over = true
		close(h.ended)
		h.ended = nil
	}
}

// decidedLocked reports whether there is a winner, or no attempt that might become one.
func (h *race) decidedLocked() bool {
	return h.winner != nil || len(h.live) == 0 && (h.why != "" || h.k.tried >= h.k.r.attempts)
}

// wait returns the call's outcome, and whose it is.
func (h *race) wait() (*try, error) {
	k := h.k
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.decidedLocked() {
		ended := make(chan struct{})
		h.ended = ended
		h.mu.Unlock()
		t := time.NewTimer(time.Until(k.deadline))
		defer t.Stop()
		select {
		case <-ended:
		case <-k.ctx.Done():
		case <-t.C:
		}
		h.mu.Lock()
	}
	h.stopLocked()
	if h.panics != "" {
		panic(h.panics)
	}
	switch w := h.winner; {
	case w != nil && w.err == nil:
		if w != h.first {
			k.tell(HedgeWon, nil, "")
		}
		return w, nil
	case w != nil:
		return w, w.err
	case h.failed != nil && len(h.live) == 0 && k.ctx.Err() == nil:
		why := h.why
		if why == "" {
			why = "maxAttempts reached"
		}
		return h.failed, k.giveUp(h.failed.err, why)
	}
	if err := ended(k.ctx); err != nil {
		return nil, err
	}
	return nil, contextStatus(context.DeadlineExceeded)
}

func (h *race) stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stopLocked()
}

// stopLocked ends all that goes on.
func (h *race) stopLocked() {
	h.over = true
	if h.timer != nil {
		h.timer.Stop()
	}
	for _, other := range h.live {
		other.Cancel(context.Canceled)
	}
}

// judgeHedge tells whether the others may still win after this one has failed.
func (k *call) judgeHedge(t *try) verdict {
	r := k.r
	code := status.Code(t.err)
	if t.Report.Answered || k.ctx.Err() != nil || !r.nonFatal(code) && !t.bounded {
		return verdict{}
	}
	v := verdict{again: true}
	st := status.Convert(t.err)
	asked, wait, stop := pushed(t.Report.Trailer)
	if !asked {
		if wait, asked = delayOf(st); !asked && r.retry {
			wait = r.backoff.Wait(t.n+1, rand.Float64())
		}
	}
	v.wait = wait
	if r.budget.throttle.Failed() {
		v.why = "retry throttling"
	}
	switch {
	case stop:
		v.why = "the server asks for no retry"
	case hasReason(st, ReasonRetriesExhausted):
		v.why = "the server has tried again already"
	case v.why == "" && time.Until(k.deadline) <= wait:
		v.why = "the deadline would pass"
	}
	return v
}

// nonFatal tells whether an attempt that failed so leaves the others a chance.
func (r *route) nonFatal(c codes.Code) bool {
	if p := r.Config.HedgingPolicy; p != nil {
		return slices.Contains(p.NonFatalStatusCodes, Code(c))
	}
	if r.retry {
		return r.retries(c)
	}
	return ClassOf(c) == FallBack
}

// own returns opts with the caller's variables replaced by others.
func own(opts []grpc.CallOption) []grpc.CallOption {
	mine := make([]grpc.CallOption, len(opts))
	for i, o := range opts {
		switch o.(type) {
		case grpc.HeaderCallOption:
			o = grpc.HeaderCallOption{HeaderAddr: new(metadata.MD)}
		case grpc.TrailerCallOption:
			o = grpc.TrailerCallOption{TrailerAddr: new(metadata.MD)}
		case grpc.PeerCallOption:
			o = grpc.PeerCallOption{PeerAddr: new(peer.Peer)}
		}
		mine[i] = o
	}
	return mine
}

// handOver gives the caller what the winner has. The caller's own attempt has returned.
func (t *try) handOver(k *call) {
	for i, o := range k.opts {
		switch o := o.(type) {
		case grpc.HeaderCallOption:
			*o.HeaderAddr = *t.opts[i].(grpc.HeaderCallOption).HeaderAddr
		case grpc.TrailerCallOption:
			*o.TrailerAddr = *t.opts[i].(grpc.TrailerCallOption).TrailerAddr
		case grpc.PeerCallOption:
			*o.PeerAddr = *t.opts[i].(grpc.PeerCallOption).PeerAddr
		}
	}
	if t.err != nil {
		return
	}
	m := k.reply.(proto.Message) // or there would be no other attempt
	proto.Reset(m)
	proto.Merge(m, t.reply.(proto.Message))
}
