package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Stats is how a group is doing.
type Stats struct {
	Lag       uint64        `json:"lag"`       // messages never delivered to the group
	InFlight  int           `json:"inFlight"`  // delivered and not done with, in all processes, also those that wait for their next attempt
	Retrying  int           `json:"retrying"`  // of them, those that were delivered more than once
	Waiting   uint64        `json:"waiting"`   // that wait longer than a minute for their next attempt, and are none of those
	Delayed   uint64        `json:"delayed"`   // messages of the topic that are not due yet, and no group has had
	Dead      uint64        `json:"dead"`      // dead letters
	OldestAge time.Duration `json:"oldestAge"` // of the oldest message that is not done with; 0: there is none
	P50       time.Duration `json:"p50"`       // of this process's last 1,024 handlings, or of those of each partition
	P99       time.Duration `json:"p99"`
}

// Stats asks the server how the group is doing.
func (s *Subscription) Stats(ctx context.Context) (Stats, error) {
	st, err := s.stats(ctx)
	if err != nil {
		return Stats{}, fmt.Errorf("queue: stream %s, group %q: %w", s.stream, s.group, explained(err))
	}
	return st, nil
}

func (s *Subscription) stats(ctx context.Context) (Stats, error) {
	stream, err := s.q.js.Stream(ctx, s.stream)
	if err != nil {
		return Stats{}, err
	}
	st, err := s.q.groupStats(ctx, stream, s.group)
	if err != nil {
		return Stats{}, err
	}
	var took []time.Duration
	for _, one := range s.all() {
		one.mu.Lock()
		took = append(took, one.took...)
		one.mu.Unlock()
	}
	slices.Sort(took)
	if n := len(took); n > 0 {
		st.P50, st.P99 = took[n/2], took[n*99/100]
	}
	return st, nil
}

// groupStats asks the server for the group's consumer, or for those of each partition.
func (q *Queue) groupStats(ctx context.Context, s jetstream.Stream, group string) (st Stats, err error) {
	if !groupName.MatchString(group) {
		return Stats{}, ErrNoGroup
	}
	err = addStats(ctx, s, group, &st)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		for p := range partitions {
			if err = addStats(ctx, s, partConsumer(group, p), &st); err != nil {
				break
			}
		}
	}
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return Stats{}, ErrNoGroup
	}
	name := s.CachedInfo().Config.Name
	if err == nil {
		st.Dead, _, err = q.countDead(ctx, name, group)
	}
	if err == nil {
		err = q.addLater(ctx, name, group, &st)
	}
	return st, explained(err)
}

// Left is how many messages the group is not done with, its dead letters not among them.
func (s Stats) Left() uint64 { return s.Lag + uint64(s.InFlight) + s.Waiting + s.Delayed }

// addLater adds what is delayed, of the group and of all.
func (q *Queue) addLater(ctx context.Context, stream, group string, st *Stats) error {
	s, err := q.js.Stream(ctx, stream+laterStreamEnd)
	if errors.Is(err, jetstream.ErrStreamNotFound) || err == nil && s.CachedInfo().State.Msgs == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	if st.Waiting, err = countLater(ctx, s, stream, group); err != nil {
		return err
	}
	st.Delayed, err = countLater(ctx, s, stream, allGroups)
	return err
}

// countLater counts the delayed messages of a group, or of allGroups.
func countLater(ctx context.Context, s jetstream.Stream, stream, group string) (uint64, error) {
	// A consumer knows how many messages it has without naming each of them, as the stream would.
	c, err := s.CreateConsumer(ctx, jetstream.ConsumerConfig{
		FilterSubject: "later." + stream + "." + group + ".*", AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true, Replicas: 1, InactiveThreshold: time.Second,
	})
	if err != nil {
		return 0, err
	}
	info := c.CachedInfo()
	_ = s.DeleteConsumer(ctx, info.Name) // or it ends by itself
	return info.NumPending, nil
}

// addStats adds what the server says of one consumer.
func addStats(ctx context.Context, s jetstream.Stream, consumer string, st *Stats) error {
	c, err := s.Consumer(ctx, consumer)
	if err != nil {
		return err
	}
	info := c.CachedInfo()
	st.Lag += info.NumPending
	st.InFlight += info.NumAckPending
	st.Retrying += info.NumRedelivered
	oldest, err := oldestOf(ctx, s, info)
	if oldest != nil {
		st.OldestAge = max(st.OldestAge, time.Since(oldest.Time))
	}
	return err
}
