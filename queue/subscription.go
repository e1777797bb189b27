package queue

import (
	"context"
	"errors"
	"fmt"
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
	handle func(ctx context.Context, d delivery, attempt int) error
	leave  func()          // of the group
	parts  []*Subscription // those that do the work, one for each partition; nil: this one does
	bury   func(ctx context.Context, d delivery, why string, err error) error

	ctx     context.Context // of the handlers
	cancel  context.CancelFunc
	drain   chan struct{} // closed: nothing more is fetched
	once    sync.Once     // closes drain
	work    chan delivery // what is fetched and not yet handled
	order   *order        // what is fetched goes there instead; nil: there is no order
	slots   chan struct{} // one for each message that is held
	permits chan struct{} // one for each handler at work, where parts share them; nil: there are as many as workers
	done    chan struct{} // closed when all has ended

	mu        sync.Mutex
	held      map[uint64]jetstream.Msg // fetched and not done with
	unhandled []delivery               // of them, those that are given back in the end
	alive     *time.Timer              // tells the server of them
	took      []time.Duration          // the last handlers', a ring
	next      int                      // in took
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
	if s.parts != nil {
		s.startParts(ctx)
		return
	}
	s.ctx, s.cancel = context.WithCancel(ctx)
	var workers sync.WaitGroup
	for range s.set.workers {
		workers.Go(s.worker)
	}
	go func() {
		defer close(s.done)
		defer s.leave()
		if s.order != nil {
			s.order.await()
		}
		s.fetch()
		if s.order != nil {
			s.order.wait()
		}
		close(s.work)
		workers.Wait()
		s.giveBack()
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
	for _, one := range s.all() {
		one.once.Do(func() { close(one.drain) })
	}
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

// room waits for a free slot and takes it, and up to half of all; for more than one it waits while there is work left for a while.
func (s *Subscription) room() int {
	n := 0
	for n < (cap(s.slots)+1)/2 {
		if n > 0 && len(s.work) <= cap(s.work)/4 {
			select {
			case s.slots <- struct{}{}:
				n++
				continue
			default:
				return n
			}
		}
		select {
		case s.slots <- struct{}{}:
			n++
		case <-s.drain:
			return s.noRoom(n)
		case <-s.ctx.Done():
			return s.noRoom(n)
		}
	}
	return n
}

func (s *Subscription) noRoom(n int) int {
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
		if !s.hold(m, meta) {
			continue // it is here already, and the server has lost patience
		}
		got++
		if d := (delivery{m, meta}); s.order != nil {
			s.order.add(d)
		} else {
			s.work <- d // has room: a slot was taken
		}
	}
	return got, batch.Error()
}

// hold keeps a message from being delivered to others. It reports whether the message is new.
func (s *Subscription) hold(m jetstream.Msg, meta *jetstream.MsgMetadata) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, twice := s.held[meta.Sequence.Stream]; twice {
		return false
	}
	s.held[meta.Sequence.Stream] = m
	if s.alive == nil {
		s.alive = time.AfterFunc(s.set.ackWait/3, s.stillHeld)
	}
	return true
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
