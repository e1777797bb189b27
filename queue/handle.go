package queue

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"time"

	"github.com/stile-ipc/stile/telemetry"
)

// outcome is what an attempt to handle a message has come to.
type outcome struct {
	what  verdict
	wait  time.Duration // before the next attempt, if there is one
	why   string        // it is dead
	cause error         // of that
	tries int           // the attempt's number, or how many there were
	took  time.Duration // by the handler
}

type verdict int

const (
	handled verdict = iota
	retried
	died
	buried // it is dead, and among the dead letters
	cut    // the subscription ends, which says nothing of the message
)

// worker handles messages that have no order.
func (s *Subscription) worker() {
	for d, ok := s.nextWork(); ok; d, ok = s.nextWork() {
		o := outcome{what: cut}
		if s.permit() {
			s.learn(&d)
			o = s.attempt(&d)
			s.permitted()
		}
		s.settle(d, o)
	}
}

// attempt has a message handled, of which it is known how often it was before. That it is not when the subscription ends, which ends the asking, too.
func (s *Subscription) attempt(d *delivery) outcome {
	if s.ctx.Err() != nil {
		return outcome{what: cut}
	}
	if o, over := s.unhandledOutcome(*d); over {
		return o
	}
	n := d.attempt()
	s.begin(*d)
	began := time.Now()
	err := s.call(*d, n)
	o := s.outcomeOf(err, n)
	o.took = time.Since(began)
	s.handled(d, began, o.took, err)
	s.end(d, o.what)
	return o
}

// unhandledOutcome tells of a message that is not to be handled what becomes of it.
func (s *Subscription) unhandledOutcome(d delivery) (o outcome, over bool) {
	if target := d.Header.Get(headerGroup); target != "" && target != s.group {
		return outcome{}, true // it was sent again, for another group
	}
	if begun := d.tries.Begun; begun >= crashFactor*s.set.attempts {
		return outcome{what: died, why: "crashed", cause: fmt.Errorf("%d times a handler began, and nobody said what became of it", begun), tries: d.attempt() - 1}, true
	}
	return outcome{}, false
}

// outcomeOf is what a handler's error makes of attempt n.
func (s *Subscription) outcomeOf(err error, n int) outcome {
	var rejected *rejection
	var later *postponement
	switch {
	case err == nil:
		return outcome{}
	case s.ctx.Err() != nil:
		return outcome{what: cut}
	case errors.As(err, &rejected):
		return outcome{what: died, why: rejected.why, cause: rejected.err, tries: n}
	case n >= s.set.attempts:
		return outcome{what: died, why: "attempts", cause: err, tries: n}
	case errors.As(err, &later):
		return outcome{what: retried, wait: later.wait, tries: n}
	}
	return outcome{what: retried, wait: s.set.backoff.Wait(n, rand.Float64()), tries: n}
}

// call is the handler; a panic is an error.
func (s *Subscription) call(d delivery, n int) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v", v)
			s.q.log.Error("queue: a handler panicked", "stream", s.stream, "group", s.group, "sequence", d.seq, "panic", v, "stack", string(debug.Stack()))
		}
	}()
	return s.handle(s.ctx, d, n)
}

// settle tells the server what became of a message, and lets go of it.
func (s *Subscription) settle(d delivery, o outcome) {
	var err error
	switch o.what {
	case handled:
		err = s.ack(d)
	case retried:
		err = s.retry(d, o)
	case cut: // given back when nothing is fetched any more, or it would come again at once
		s.mu.Lock()
		s.unhandled = append(s.unhandled, d)
		s.mu.Unlock()
		return
	case died:
		if s.toDead(d, o) != nil {
			s.burials.Go(func() { s.settle(d, s.bury(d, o)) })
			return
		}
		err = s.ack(d)
	case buried:
		err = s.ack(d)
	}
	s.said(d, err)
	s.release(d, o.took)
}

// giveBack has what was not handled delivered to others.
func (s *Subscription) giveBack() {
	for _, d := range s.unhandled {
		s.said(d, s.nak(d, 0))
		s.release(d, 0)
	}
	s.unhandled = nil
}

// said heeds that the server could not be told what became of a message: it comes again.
func (s *Subscription) said(d delivery, err error) {
	if err != nil {
		s.q.log.Warn("queue: the server could not be told of a message, which will come again", "stream", s.stream, "group", s.group, "sequence", d.seq, "error", err)
	}
}

// bury puts a message among the dead letters, however often that has to be tried. It is not handled again meanwhile, and with order no other of its key
// overtakes it.
func (s *Subscription) bury(d delivery, o outcome) outcome {
	for n := 1; ; n++ {
		if !s.pause(max(s.set.backoff.Bound(n), againLater)) {
			return outcome{what: cut}
		}
		if s.toDead(d, o) == nil {
			o.what = buried
			return o
		}
	}
}

// pause reports whether a wait was not cut short by the subscription's end.
func (s *Subscription) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.ctx.Done():
	case <-s.drain:
	}
	return false
}

// toDead puts a message among the dead letters.
func (s *Subscription) toDead(d delivery, o outcome) error {
	if err := s.q.bury(context.WithoutCancel(s.ctx), s.dead, s.topic, s.group, d, o); err != nil {
		s.q.log.Error("queue: a message cannot be put among the dead letters and is tried again", "stream", s.stream, "group", s.group,
			"sequence", d.seq, "reason", o.why, "cause", o.cause, "error", err)
		return err
	}
	dead := telemetry.Event{Kind: "message dead", Subject: s.topic, Detail: "group " + s.group + ": " + o.why, Trace: d.trace(), Error: true}
	if o.cause != nil {
		dead.Example = o.cause.Error()
	}
	telemetry.Process().Event(dead)
	s.q.log.Warn("queue: a message is dead", "stream", s.stream, "group", s.group, "sequence", d.seq, "reason", o.why, "error", o.cause)
	return nil
}
