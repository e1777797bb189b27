package queue

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// orderedAckWait is ackWait where a message that nobody handles holds up others.
const orderedAckWait = 10 * time.Second

// partConsumer is the name of a group's consumer of one partition. No group's name has a "=".
func partConsumer(group string, partition int) string { return group + "=" + strconv.Itoa(partition) }

// joinParts makes the subscription of a group that is ordered, on a server elsewhere: one for each partition of the topic, each with a
// consumer that gives out no message before the last is done with, whoever has it.
func (t *Topic[T]) joinParts(ctx context.Context, group string, handle Handler[T], s subscribing, dead identity) (*Subscription, error) {
	whole := &Subscription{q: t.q, stream: t.stream.name, group: group, parts: make([]*Subscription, partitions), drain: make(chan struct{}), done: make(chan struct{})}
	permits := make(chan struct{}, s.workers)
	s.workers, s.ackWait = 1, orderedAckWait
	errs := make([]error, partitions)
	var all sync.WaitGroup
	for p := range partitions {
		all.Go(func() {
			cons, err := t.q.consumer(ctx, t.stream.name, jetstream.ConsumerConfig{
				Durable: partConsumer(group, p), FilterSubject: t.subjects[p], AckPolicy: jetstream.AckExplicitPolicy, AckWait: s.ackWait,
				MaxDeliver: -1, MaxAckPending: 1, DeliverPolicy: jetstream.DeliverAllPolicy,
			})
			if errs[p] = err; err == nil {
				whole.parts[p] = t.member(group, cons, handle, s, dead)
				whole.parts[p].permits = permits
			}
		})
	}
	all.Wait()
	return whole, errors.Join(errs...)
}

// startParts is start for a subscription that has parts.
func (s *Subscription) startParts(ctx context.Context) error {
	s.ctx, s.cancel = context.WithCancel(ctx)
	for i, p := range s.parts {
		p.leave = func() {}
		if err := p.start(s.ctx); err != nil {
			for _, begun := range s.parts[:i] {
				begun.Stop()
			}
			s.cancel()
			return err
		}
	}
	go func() {
		defer close(s.done)
		defer s.leave()
		for _, p := range s.parts {
			<-p.done
		}
		s.cancel()
	}()
	return nil
}

// all returns the subscriptions that do the work.
func (s *Subscription) all() []*Subscription {
	if s.parts != nil {
		return s.parts
	}
	return []*Subscription{s}
}

// permit waits until one more message may be handled in this process; false: the subscription ends.
func (s *Subscription) permit() bool {
	if s.permits == nil {
		return s.ctx.Err() == nil
	}
	select {
	case s.permits <- struct{}{}:
		return true
	case <-s.ctx.Done():
		return false
	}
}

func (s *Subscription) permitted() {
	if s.permits != nil {
		<-s.permits
	}
}

// checkKind tells whether a group has consumers of the other kind on a server elsewhere: its messages are given out by one kind alone.
func (q *Queue) checkKind(ctx context.Context, stream, group string, ordered bool) error {
	other, kind := partConsumer(group, 0), "with Ordered"
	if ordered {
		other, kind = group, "without Ordered"
	}
	_, err := created(ctx, q, stream, func(ctx context.Context) (jetstream.Consumer, error) { return q.js.Consumer(ctx, stream, other) })
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return nil
	}
	if err == nil {
		return fmt.Errorf("the group has been subscribed %s: subscribe it as it was, or choose another name", kind)
	}
	return explained(err)
}
