package queue

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Subscription is a group's handler in this process. Its methods are safe for concurrent use.
type Subscription struct {
	q      *Queue
	stream string
	group  string
	cons   jetstream.Consumer
	set    subscribing
	handle func(context.Context, delivery) error
	bury   func(ctx context.Context, d delivery, why string, err error) error

	ctx    context.Context // of the handlers
	cancel context.CancelFunc
	drain  chan struct{} // closed: nothing more is fetched
	once   sync.Once     // closes drain
	work   chan delivery // what is fetched and not yet handled
	slots  chan struct{} // one for each message that is held
	done   chan struct{} // closed when all has ended

	mu    sync.Mutex
	held  map[uint64]jetstream.Msg // fetched and not done with
	alive *time.Timer              // tells the server of them
	took  []time.Duration          // the last handlers', a ring
	next  int                      // in took
}

// delivery is a message that was fetched.
type delivery struct {
	msg  jetstream.Msg
	meta *jetstream.MsgMetadata
}

// keptTimes is how many handlings Stats tells of.
const keptTimes = 1024

func newSubscription(q *Queue, stream, group string, cons jetstream.Consumer, set subscribing) *Subscription {
	return &Subscription{
		q: q, stream: stream, group: group, cons: cons, set: set, drain: make(chan struct{}), done: make(chan struct{}),
		work: make(chan delivery, set.prefetch), slots: make(chan struct{}, set.prefetch), held: map[uint64]jetstream.Msg{},
	}
}

func (s *Subscription) start(ctx context.Context) {
	s.ctx, s.cancel = context.WithCancel(ctx)
	var workers sync.WaitGroup
	for range s.set.workers {
		workers.Go(s.worker)
	}
	go func() {
		defer close(s.done)
		s.fetch()
		close(s.work)
		workers.Wait()
		s.cancel()
		s.mu.Lock()
		if s.alive != nil {
			s.alive.Stop()
		}
		s.mu.Unlock()
	}()
}

// Drain fetches nothing more and returns when all that was fetched has been handled, or with the error of ctx, after which the rest is
// given back.
func (s *Subscription) Drain(ctx context.Context) error {
	s.once.Do(func() { close(s.drain) })
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
		s.cancel()
		<-s.done
		return fmt.Errorf("queue: drain: %w", ctx.Err())
	}
}

// Stop ends the handlers' contexts and returns when they have returned. What was fetched and not handled is given back, and delivered to others
// at once.
func (s *Subscription) Stop() {
	s.cancel()
	<-s.done
}

// fetch fetches messages until the end.
func (s *Subscription) fetch() {
	vain := 0
	for s.goesOn() {
		n := s.room()
		if n == 0 {
			continue
		}
		got, err := s.fetchSome(n)
		for range n - got {
			<-s.slots
		}
		if err == nil || errors.Is(err, jetstream.ErrNoMessages) {
			vain = 0
			continue
		}
		vain++
		if vain == 1 {
			s.q.log.Warn("queue: no messages can be had; trying again", "stream", s.stream, "group", s.group, "error", err)
		}
		select {
		case <-time.After(min(time.Duration(vain)*100*time.Millisecond, 5*time.Second)):
		case <-s.drain:
		case <-s.ctx.Done():
		}
	}
}

func (s *Subscription) goesOn() bool {
	select {
	case <-s.drain:
		return false
	case <-s.ctx.Done():
		return false
	default:
		return true
	}
}

// room takes slots for at least half of what may be held, or fewer if no more are free at the end.
func (s *Subscription) room() int {
	n := 0
	for n < (cap(s.slots)+1)/2 {
		select {
		case s.slots <- struct{}{}:
			n++
		case <-s.drain:
			return s.giveBack(n)
		case <-s.ctx.Done():
			return s.giveBack(n)
		}
	}
	return n
}

func (s *Subscription) giveBack(n int) int {
	for range n {
		<-s.slots
	}
	return 0
}

// fetchSome fetches up to n messages and waits for the first as long as the server does.
func (s *Subscription) fetchSome(n int) (got int, err error) {
	batch, err := s.cons.Fetch(n, jetstream.FetchMaxWait(fetchLimit))
	if err != nil {
		return 0, err
	}
	for m := range batch.Messages() {
		meta, err := m.Metadata()
		if err != nil { // not of JetStream
			s.q.log.Error("queue: a message without metadata", "stream", s.stream, "group", s.group, "error", err)
			continue
		}
		got++
		s.hold(m, meta)
		s.work <- delivery{m, meta} // has room: a slot was taken
	}
	return got, batch.Error()
}

// hold keeps a message from being delivered to others.
func (s *Subscription) hold(m jetstream.Msg, meta *jetstream.MsgMetadata) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held[meta.Sequence.Stream] = m
	if s.alive == nil {
		s.alive = time.AfterFunc(s.set.ackWait/3, s.stillHeld)
	}
}

// stillHeld tells the server of what is held, until nothing is.
func (s *Subscription) stillHeld() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.held {
		_ = m.InProgress() // the connection is down: what then is delivered again was to be expected
	}
	s.alive = nil
	if len(s.held) > 0 {
		s.alive = time.AfterFunc(s.set.ackWait/3, s.stillHeld)
	}
}

func (s *Subscription) release(d delivery) {
	s.mu.Lock()
	delete(s.held, d.meta.Sequence.Stream)
	s.mu.Unlock()
	<-s.slots
}

// worker handles messages.
func (s *Subscription) worker() {
	for d := range s.work {
		if s.ctx.Err() != nil {
			s.said(d.msg.Nak(), d)
		} else {
			s.one(d)
		}
		s.release(d)
	}
}

// one handles a message and tells the server what became of it.
func (s *Subscription) one(d delivery) {
	if target := d.msg.Headers().Get(headerGroup); target != "" && target != s.group {
		s.said(d.msg.Ack(), d) // it was sent again for another group
		return
	}
	attempts := int(d.meta.NumDelivered)
	if attempts > crashFactor*s.set.attempts {
		s.toDead(d, "crashed", fmt.Errorf("it was delivered %d times, and nobody said what became of it", attempts-1))
		return
	}
	begin := time.Now()
	err := s.call(d)
	s.tookTime(time.Since(begin))
	var rejected *rejection
	var later *postponement
	switch {
	case err == nil:
		s.said(d.msg.Ack(), d)
	case s.ctx.Err() != nil: // that says nothing of the message
		s.said(d.msg.Nak(), d)
	case errors.As(err, &rejected):
		s.toDead(d, rejected.why, rejected.err)
	case attempts >= s.set.attempts:
		s.toDead(d, "attempts", err)
	case errors.As(err, &later):
		s.said(d.msg.NakWithDelay(later.wait), d)
	default:
		s.said(d.msg.NakWithDelay(s.set.backoff.Wait(attempts, rand.Float64())), d)
	}
}

// call is the handler; a panic is an error.
func (s *Subscription) call(d delivery) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v", v)
			s.q.log.Error("queue: a handler panicked", "stream", s.stream, "group", s.group, "sequence", d.meta.Sequence.Stream, "panic", v, "stack", string(debug.Stack()))
		}
	}()
	return s.handle(s.ctx, d)
}

// toDead takes a message out of the group's way. If that fails, it comes again.
func (s *Subscription) toDead(d delivery, why string, cause error) {
	if err := s.bury(context.WithoutCancel(s.ctx), d, why, cause); err != nil {
		s.q.log.Error("queue: a message cannot be put among the dead letters and is tried again", "stream", s.stream, "group", s.group,
			"sequence", d.meta.Sequence.Stream, "reason", why, "cause", cause, "error", err)
		s.said(d.msg.NakWithDelay(s.set.backoff.Bound(int(d.meta.NumDelivered))), d)
		return
	}
	s.q.log.Warn("queue: a message is dead", "stream", s.stream, "group", s.group, "sequence", d.meta.Sequence.Stream, "reason", why, "error", cause)
	s.said(d.msg.Ack(), d)
}

// said heeds that the server could not be told what became of a message: it comes again.
func (s *Subscription) said(err error, d delivery) {
	if err != nil {
		s.q.log.Warn("queue: the server could not be told of a message, which will come again", "stream", s.stream, "group", s.group, "sequence", d.meta.Sequence.Stream, "error", err)
	}
}

func (s *Subscription) tookTime(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.took) < keptTimes {
		s.took = append(s.took, d)
		return
	}
	s.took[s.next] = d
	s.next = (s.next + 1) % keptTimes
}

// Stats is how a group is doing.
type Stats struct {
	Lag       uint64        `json:"lag"`       // messages never delivered to the group
	InFlight  int           `json:"inFlight"`  // delivered and not done with, in all processes, also those that wait for their next attempt
	Retrying  int           `json:"retrying"`  // of them, those that were delivered more than once
	Dead      uint64        `json:"dead"`      // dead letters
	OldestAge time.Duration `json:"oldestAge"` // of the oldest message that is not done with; 0: there is none
	P50       time.Duration `json:"p50"`       // of this process's last 1,024 handlings
	P99       time.Duration `json:"p99"`
}

// Stats asks the server how the group is doing.
func (s *Subscription) Stats(ctx context.Context) (Stats, error) {
	st, err := s.stats(ctx)
	if err != nil {
		return Stats{}, fmt.Errorf("queue: stream %s, group %q: %w", s.stream, s.group, err)
	}
	return st, nil
}

func (s *Subscription) stats(ctx context.Context) (Stats, error) {
	info, err := s.cons.Info(ctx)
	if err != nil {
		return Stats{}, err
	}
	st := Stats{Lag: info.NumPending, InFlight: info.NumAckPending, Retrying: info.NumRedelivered}
	if st.Dead, err = s.q.countDead(ctx, s.stream, s.group); err != nil {
		return Stats{}, err
	}
	if st.Lag > 0 || st.InFlight > 0 {
		stream, err := s.q.js.Stream(ctx, s.stream)
		if err != nil {
			return Stats{}, err
		}
		oldest, err := stream.GetMsg(ctx, info.AckFloor.Stream+1, jetstream.WithGetMsgSubject(">"))
		if err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) {
			return Stats{}, err
		}
		if err == nil {
			st.OldestAge = time.Since(oldest.Time)
		}
	}
	s.mu.Lock()
	took := slices.Sorted(slices.Values(s.took))
	s.mu.Unlock()
	if n := len(took); n > 0 {
		st.P50, st.P99 = took[n/2], took[n*99/100]
	}
	return st, nil
}
