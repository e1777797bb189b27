package queue

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"time"
)

// outcome is what an attempt to handle a message has come to.
type outcome struct {
	what  verdict
	wait  time.Duration // before the next attempt, if there is one
	why   string        // it is dead
	cause error         // of that
}

type verdict int

const (
	handled verdict = iota
	retried
	died
	cut // the subscription ends, which says nothing of the message
)

// worker handles messages that have no order.
func (s *Subscription) worker() {
	for d := range s.work {
		o := outcome{what: cut}
		if s.permit() {
			o = s.attempt(d, int(d.meta.NumDelivered))
			s.permitted()
		}
		s.settle(d, o)
	}
}

// attempt has a message handled. n is the attempt's number, from 1.
func (s *Subscription) attempt(d delivery, n int) outcome {
	if target := d.msg.Headers().Get(headerGroup); target != "" && target != s.group {
		return outcome{} // it was sent again, for another group
	}
	if n > crashFactor*s.set.attempts {
		return outcome{what: died, why: "crashed", cause: fmt.Errorf("it was delivered %d times, and nobody said what became of it", n-1)}
	}
	begin := time.Now()
	err := s.call(d, n)
	s.tookTime(time.Since(begin))
	var rejected *rejection
	var later *postponement
	switch {
	case err == nil:
		return outcome{}
	case s.ctx.Err() != nil:
		return outcome{what: cut}
	case errors.As(err, &rejected):
		return outcome{what: died, why: rejected.why, cause: rejected.err}
	case n >= s.set.attempts:
		return outcome{what: died, why: "attempts", cause: err}
	case errors.As(err, &later):
		return outcome{what: retried, wait: later.wait}
	}
	return outcome{what: retried, wait: s.set.backoff.Wait(n, rand.Float64())}
}

// call is the handler; a panic is an error.
func (s *Subscription) call(d delivery, n int) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v", v)
			s.q.log.Error("queue: a handler panicked", "stream", s.stream, "group", s.group, "sequence", d.meta.Sequence.Stream, "panic", v, "stack", string(debug.Stack()))
		}
	}()
	return s.handle(s.ctx, d, n)
}

// settle tells the server what became of a message, and lets go of it.
func (s *Subscription) settle(d delivery, o outcome) {
	var err error
	switch o.what {
	case handled:
		err = d.msg.Ack()
	case retried:
		err = d.msg.NakWithDelay(o.wait)
	case cut: // given back when nothing is fetched any more, or it would come again at once
		s.mu.Lock()
		s.unhandled = append(s.unhandled, d)
		s.mu.Unlock()
		return
	case died:
		err = s.toDead(d, o)
	}
	s.said(d, err)
	s.release(d)
}

// giveBack has what was not handled delivered to others.
func (s *Subscription) giveBack() {
	for _, d := range s.unhandled {
		s.said(d, d.msg.Nak())
		s.release(d)
	}
	s.unhandled = nil
}

// said heeds that the server could not be told what became of a message: it comes again.
func (s *Subscription) said(d delivery, err error) {
	if err != nil {
		s.q.log.Warn("queue: the server could not be told of a message, which will come again", "stream", s.stream, "group", s.group, "sequence", d.meta.Sequence.Stream, "error", err)
	}
}

// toDead takes a message out of the group's way. If that fails, it comes again.
func (s *Subscription) toDead(d delivery, o outcome) error {
	if err := s.bury(context.WithoutCancel(s.ctx), d, o.why, o.cause); err != nil {
		s.q.log.Error("queue: a message cannot be put among the dead letters and is tried again", "stream", s.stream, "group", s.group,
			"sequence", d.meta.Sequence.Stream, "reason", o.why, "cause", o.cause, "error", err)
		return d.msg.NakWithDelay(s.set.backoff.Bound(int(d.meta.NumDelivered)))
	}
	s.q.log.Warn("queue: a message is dead", "stream", s.stream, "group", s.group, "sequence", d.meta.Sequence.Stream, "reason", o.why, "error", o.cause)
	return d.msg.Ack()
}
