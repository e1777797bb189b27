package policy

import (
	"context"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/stile-ipc/stile/internal/lazyctx"
	"github.com/stile-ipc/stile/telemetry"
)

const (
	// previousAttempts is gRPC's metadata that tells a server how often a call was tried
	// before (gRFC A6).
	previousAttempts = "grpc-previous-rpc-attempts"
	// pushback is gRPC's trailer by which a server says when to try again, in
	// milliseconds; negative: not at all (gRFC A6).
	pushback = "grpc-retry-pushback-ms"
)

// try is one attempt. It belongs to the goroutine that makes it.
type try struct {
	lazyctx.Attempt
	seen    *lazyctx.Observed // nil: the channel reports by itself
	n       int               // attempts made before it
	bounded bool              // it has less time than the call
	req     any
	reply   any
	opts    []grpc.CallOption
	err     error // the outcome
}

// attempts makes the call as often as policy and luck want.
func (k *call) attempts() error {
	r := k.r
	if r.attempts == 1 {
		t := k.next()
		k.make(t, false)
		return t.err
	}
	r.budget.budget.Begin()
	defer r.budget.budget.End()
	if r.hedge != nil && k.copied() {
		return k.hedged()
	}
	for extra := false; ; extra = true {
		t := k.next()
		if extra {
			k.makePaid(t, false)
		} else {
			k.make(t, false)
		}
		if t.err == nil {
			r.budget.throttle.Succeeded()
			return nil
		}
		v := k.decide(t)
		if !v.again {
			return k.giveUp(t.err, v.why)
		}
		if err := k.sleep(v.wait); err != nil {
			r.budget.budget.Give()
			return err
		}
		k.count(telemetry.Retry)
		k.tell(Retried, t.err, "")
	}
}

// next prepares the next attempt.
func (k *call) next() *try {
	t := &k.first
	if k.tried > 0 {
		t = new(try)
	}
	t.n, t.req, t.reply, t.opts = k.tried, k.req, k.reply, k.opts
	k.tried++
	return t
}

// make makes an attempt. If it is hedged, another goroutine may call t.Cancel meanwhile.
func (k *call) make(t *try, hedged bool) {
	t.Hedged = hedged
	ctx := k.begin(t)
	opts := t.opts
	if k.r.attempts > 1 && k.side.below == nil {
		t.seen = new(lazyctx.Observed)
		opts = t.seen.Options(opts)
	}
	t.err = k.side.send(ctx, k.r.Method, t.req, t.reply, k.cc, k.invoke, opts)
	if t.Private = t.Private && !t.Waited(); ctx != k.ctx && !t.Private {
		t.Cancel(context.Canceled)
	}
	if l := k.r.latency; l != nil && t.n == 0 { // also if a hedge has ended it: that it took so long counts
		now := k.side.p.now()
		l.Add(now, now-k.begun)
	}
	if t.err != nil && t.seen != nil {
		t.Report = t.seen.Report()
	}
}

// makePaid is make for an attempt that the budget has granted.
func (k *call) makePaid(t *try, hedged bool) {
	defer k.r.budget.budget.Give()
	k.make(t, hedged)
}

// begin returns the context of an attempt that is made now.
func (k *call) begin(t *try) context.Context {
	p := k.side.p
	now, deadline := k.begun, k.deadline
	if t.n > 0 {
		now = p.now()
	}
	left := p.since(deadline) - now
	if per := k.perTry(t.n, left); per != 0 && per < left {
		left, deadline, t.bounded = per, p.at(now+per), true
	}
	parent := k.ctx
	switch d, ok := k.ctx.Deadline(); {
	case t.n > 0:
		parent = metadata.AppendToOutgoingContext(parent, previousAttempts, strconv.Itoa(t.n))
	case ok && !t.bounded && k.side.below == nil && k.r.hedge == nil && d.Equal(k.deadline):
		return k.ctx // will do
	}
	t.Start(parent, deadline, left)
	t.Ways, t.Tally = k.r.ways, k.r.tally
	if t.n == 0 {
		t.Queued = k.queued
	}
	return &t.Attempt
}

// perTry is how long attempt n may take of what is left to the call; 0: all.
func (k *call) perTry(n int, left time.Duration) time.Duration {
	if r := k.r; r.split && n < r.attempts-1 {
		return left / time.Duration(r.attempts-n)
	}
	return k.r.perTry
}

// verdict is what is done after a failed attempt.
type verdict struct {
	again bool
	wait  time.Duration
	why   string // not again; empty: the error is not one to retry
}

// decide decides after a failed attempt, as gRFC A6 has it and the method's idempotency. If there
// is to be another attempt, the budget has granted it.
func (k *call) decide(t *try) verdict {
	r := k.r
	k.trace = t.Report.Trace
	v := k.judge(t)
	if !v.again {
		return v
	}
	if k.tried >= r.attempts {
		return verdict{why: "maxAttempts reached"}
	}
	if time.Until(k.deadline) <= v.wait {
		return verdict{why: "the deadline would pass"}
	}
	if !r.budget.budget.Take() {
		k.count(telemetry.BudgetRefused)
		k.tell(BudgetEmpty, t.err, "retry budget")
		return verdict{why: "retry budget empty"}
	}
	return v
}

// judge tells whether the error is one to retry, and after what wait.
func (k *call) judge(t *try) verdict {
	r, rep := k.r, &t.Report
	if !r.retry || k.ctx.Err() != nil {
		return verdict{}
	}
	st := status.Convert(t.err)
	late := st.Code() == codes.DeadlineExceeded && t.bounded
	listed := r.retries(st.Code()) || late
	asked, wait, stop := pushed(rep.Trailer)
	if stop && !rep.Answered {
		r.failed() // as gRPC counts, whatever the code
	}
	switch {
	case !listed:
		return verdict{}
	case rep.Answered:
		return verdict{why: "the server had begun to answer"}
	case stop:
		return verdict{why: "the server asks for no retry"}
	}
	if !r.idempotent && (!rep.Known || rep.Sent && !slices.Contains(rep.Trailer[lazyctx.NotBegun], r.Method)) {
		return verdict{why: notAgain}
	}
	if hasReason(st, ReasonRetriesExhausted) {
		return verdict{why: "the server has tried again already"}
	}
	if len(metadata.ValueFromIncomingContext(k.ctx, previousAttempts)) > 0 {
		return verdict{why: aboveRetries}
	}
	if r.failed() {
		k.count(telemetry.BudgetRefused)
		k.tell(BudgetEmpty, t.err, "retry throttling")
		return verdict{why: "retry throttling"}
	}
	if !asked {
		if wait, asked = delayOf(st); !asked {
			wait = r.backoff.Wait(t.n+1, rand.Float64())
		}
	}
	return verdict{again: true, wait: wait}
}

// failed counts a failure for gRPC's throttling and reports whether there must be no retry. What is in shadow
// must not throttle others.
func (r *route) failed() bool {
	if r.shadow {
		return r.budget.throttle.Throttled()
	}
	return r.budget.throttle.Failed()
}

// pushed reads a server's pushback: a wait, or the wish that nobody tries again.
func pushed(trailer map[string][]string) (asked bool, wait time.Duration, stop bool) {
	values := trailer[pushback]
	if len(values) == 0 {
		return false, 0, false
	}
	ms, err := strconv.Atoi(values[0])
	if len(values) > 1 || err != nil || ms < 0 {
		return true, 0, true
	}
	return true, time.Duration(ms) * time.Millisecond, false
}

// sleep waits before the next attempt, which the deadline allows.
func (k *call) sleep(d time.Duration) error {
	if d <= 0 {
		return ended(k.ctx)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-k.ctx.Done():
		return contextStatus(k.ctx.Err())
	}
}

// giveUp is the end of a call that failed, told once. An error that was retried in vain here, or for which there was
// no budget, must not be retried above: that is what multiplies.
func (k *call) giveUp(err error, why string) error {
	if why == "" {
		return err
	}
	k.tell(RetryGivenUp, err, why)
	if why == notAgain || why == aboveRetries {
		return err
	}
	return exhausted(err, k.tried)
}

// Why an error is not retried here, which is no reason not to try again above.
const (
	notAgain     = "the method is not idempotent and may have run"
	aboveRetries = "the call above is a retry already"
)
