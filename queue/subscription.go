package queue

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/stile-ipc/stile/telemetry"
)

// Subscription is a group's handler in this process. Its methods are safe for concurrent use.
type Subscription struct {
	q      *Queue
	stream string
	mover  *mover // of the topic
	group  string
	cons   jetstream.Consumer
	set    subscribing
	handle func(ctx context.Context, d delivery, attempt int) error
	batch  func(ctx context.Context, ds []delivery) []said // instead of handle; nil: messages are handled one by one
	leave  func()                                          // of the group
	parts  []*Subscription                                 // those that do the work, one for each partition; nil: this one does
	topic  string                                          // of the stream
	dead   identity                                        // of the stream of its dead letters
	route  *telemetry.Route                                // counts messages; nil: nothing does

	ctx     context.Context // of the handlers
	cancel  context.CancelFunc
	drain   chan struct{} // closed: nothing more is asked for
	once    sync.Once     // closes drain
	order   *order        // what comes goes there instead of to the workers; nil: there is no order
	permits chan struct{} // one for each handler at work, where parts share them; nil: there are as many as workers
	pull    *puller
	say     func(subject, reply, body []byte) error // to the server
	done    chan struct{}                           // closed when all has ended

	taking  sync.WaitGroup // messages that are being taken in
	burials sync.WaitGroup // of messages that had no room among the dead letters
	learned atomic.Int64   // messages that were asked about although they are delivered for the first time

	mu        sync.Mutex
	held      map[uint64][]byte // what came and is not done with: its Reply
	noted     map[uint64]noted  // of messages that this process has tried in vain
	waiting   []delivery        // of them, what no worker has taken
	taken     int               // of waiting, how many have been since, from its beginning
	idle      int               // workers that wait for work
	woken     bool              // one of them is on its way
	work      sync.Cond         // tells them
	ending    bool              // nothing more is asked for
	over      bool              // what still comes is given back
	noMore    bool              // there will be no work
	unhandled []delivery        // what is given back in the end
	alive     *time.Timer       // tells the server of what is held
	took      []time.Duration   // the last handlers', a ring
	next      int               // in took
	pace      time.Duration     // that a handler takes, about
}

// keptTimes is how many handlings Stats tells of.
const keptTimes = 1024

func newSubscription(q *Queue, topic, stream, group string, cons jetstream.Consumer, set subscribing, dead identity) *Subscription {
	s := &Subscription{
		q: q, topic: topic, stream: stream, group: group, dead: dead, cons: cons, set: set, drain: make(chan struct{}), done: make(chan struct{}), held: map[uint64][]byte{},
	}
	s.work.L = &s.mu
	if s.counts() { // else it hands messages on
		s.route = q.counts.route(telemetry.Server, topic)
	}
	return s
}

func (s *Subscription) start(ctx context.Context) (err error) {
	if s.parts != nil {
		return s.startParts(ctx)
	}
	s.ctx, s.cancel = context.WithCancel(ctx)
	if s.pull, err = newPuller(s); err != nil {
		s.cancel()
		return explained(err)
	}
	var workers sync.WaitGroup
	work := s.worker
	if s.batch != nil {
		work = s.batcher
	}
	for range s.set.workers {
		workers.Go(work)
	}
	go func() {
		defer close(s.done)
		defer s.leave()
		if s.order != nil {
			s.order.await()
		}
		s.pull.over(0, nil) // and so it begins
		select {
		case <-s.drain:
		case <-s.ctx.Done():
		}
		s.mu.Lock()
		s.ending = true
		s.work.Broadcast()
		s.mu.Unlock()
		s.pull.end()
		s.mu.Lock()
		s.over = true
		s.mu.Unlock()
		s.taking.Wait()
		if s.order != nil {
			s.order.wait()
		}
		s.mu.Lock()
		s.noMore = true
		s.work.Broadcast()
		s.mu.Unlock()
		workers.Wait()
		s.burials.Wait()
		s.giveBack()
		s.cancel()
		s.mu.Lock()
		if s.alive != nil {
			s.alive.Stop()
		}
		s.mu.Unlock()
	}()
	return nil
}

// Drain asks for nothing more and returns when all that came has been handled. When ctx ends first, so do the handlers' contexts; when they have returned the
// rest is given back, and Drain returns the error of ctx. It takes a second at most if nothing is to be handled.
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

// Stop ends the handlers' contexts and returns when they have returned, and the server gives out nothing more: within a second or so. What came and was not handled is given back, and delivered to others
// at once.
func (s *Subscription) Stop() {
	s.cancel()
	<-s.done
}

// take takes in a message: it is kept from being delivered to others.
func (s *Subscription) take(d delivery) {
	if !s.hold(d) {
		return
	}
	defer s.taking.Done()
	if s.order != nil {
		s.order.add(d)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.order == nil {
		s.addLocked(d)
	}
	s.cameLocked()
}

// hold tells the server of a message from now on, and reports whether it is to be taken in; taking.Done is due then. One that comes when all has ended is
// given back.
func (s *Subscription) hold(d delivery) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		s.said(d, s.nak(d, 0))
		return false
	}
	if _, twice := s.held[d.seq]; twice { // the server has lost patience
		s.cameLocked()
		return false
	}
	s.held[d.seq] = d.Reply
	if s.alive == nil {
		s.alive = time.AfterFunc(s.set.ackWait/3, s.stillHeld)
	}
	s.taking.Add(1)
	return true
}

// cameLocked takes in that a message has come that was asked for.
func (s *Subscription) cameLocked() {
	s.pull.asked, s.pull.vain, s.pull.brought = max(s.pull.asked-1, 0), 0, true
	s.pull.restLocked()
}

func (s *Subscription) addLocked(d delivery) {
	if len(s.waiting) == cap(s.waiting) && s.taken > 0 { // make room where some have been taken
		n := copy(s.waiting, s.waiting[s.taken:])
		clear(s.waiting[n:])
		s.waiting, s.taken = s.waiting[:n], 0
	}
	s.waiting = append(s.waiting, d)
	s.wakeLocked()
}

// wakeLocked wakes a worker if there is work and none is on its way: that one wakes the next.
func (s *Subscription) wakeLocked() {
	if s.idle > 0 && !s.woken && s.waitingLocked() > 0 {
		s.woken = true
		s.work.Signal()
	}
}

// waitingLocked is how many messages no worker has taken.
func (s *Subscription) waitingLocked() int { return len(s.waiting) - s.taken }

// nextWork waits for a message to handle, or for the end.
func (s *Subscription) nextWork() (d delivery, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.waitingLocked() == 0 {
		if s.noMore {
			return delivery{}, false
		}
		s.awaitWorkLocked()
	}
	return s.workLocked(), true
}

// workNow does not wait.
func (s *Subscription) workNow() (d delivery, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waitingLocked() == 0 {
		return delivery{}, false
	}
	return s.workLocked(), true
}

// workUntil waits no longer than until a moment, nor when the subscription is to end.
func (s *Subscription) workUntil(moment time.Time) (d delivery, ok bool) {
	t := time.AfterFunc(time.Until(moment), func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.work.Broadcast()
	})
	defer t.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.waitingLocked() == 0 {
		if s.ending || !time.Now().Before(moment) {
			return delivery{}, false
		}
		s.awaitWorkLocked()
	}
	return s.workLocked(), true
}

func (s *Subscription) awaitWorkLocked() {
	s.idle++
	s.work.Wait()
	s.idle--
	s.woken = false
}

func (s *Subscription) workLocked() (d delivery) {
	d, s.waiting[s.taken] = s.waiting[s.taken], delivery{}
	if s.taken++; s.taken == len(s.waiting) {
		s.waiting, s.taken = s.waiting[:0], 0
	}
	s.wakeLocked()
	return d
}

// capacity is how many messages may be held: what the handlers do in prefetchFor, as far as they have shown their pace.
func (s *Subscription) capacity() int {
	switch {
	case s.order != nil:
		return max(2*s.set.workers, orderedPrefetch)
	case s.batch != nil:
		return max(min(2*s.set.workers*s.set.most, maxUnderWay), minPrefetch)
	case s.pace == 0:
		return max(2*s.set.workers, minPrefetch)
	}
	return max(2*s.set.workers, min(s.set.workers*int(prefetchFor/s.pace), maxPrefetch))
}

// stillHeld tells the server of what is held, until nothing is.
func (s *Subscription) stillHeld() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, reply := range s.held {
		_ = s.say(reply, nil, wordInProgress) // the connection is down: what then is delivered again was to be expected
	}
	s.alive = nil
	if len(s.held) > 0 {
		s.alive = time.AfterFunc(s.set.ackWait/3, s.stillHeld)
	}
}

// release lets go of a message, whose handler took some time, or none.
func (s *Subscription) release(d delivery, took time.Duration) {
	s.mu.Lock()
	delete(s.held, d.seq)
	if took > 0 {
		s.tookLocked(took)
	}
	n := s.pull.moreLocked()
	s.mu.Unlock()
	s.pull.ask(n)
}

func (s *Subscription) tookLocked(d time.Duration) {
	if s.pace == 0 {
		s.pace = d
	}
	s.pace = max(s.pace+(d-s.pace)/16, 1)
	if len(s.took) < keptTimes {
		s.took = append(s.took, d)
		return
	}
	s.took[s.next] = d
	s.next = (s.next + 1) % keptTimes
}
