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
	stream, err := s.q.js.Stream(ctx, s.stream)
	if err != nil {
		return Stats{}, err
	}
	st, err := s.q.groupStats(ctx, stream, s.group)
	if err != nil {
		return Stats{}, err
	}
	s.mu.Lock()
	took := slices.Sorted(slices.Values(s.took))
	s.mu.Unlock()
	if n := len(took); n > 0 {
		st.P50, st.P99 = took[n/2], took[n*99/100]
	}
	return st, nil
}

// groupStats asks the server.
func (q *Queue) groupStats(ctx context.Context, s jetstream.Stream, group string) (Stats, error) {
	if !groupName.MatchString(group) {
		return Stats{}, ErrNoGroup
	}
	c, err := s.Consumer(ctx, group)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return Stats{}, ErrNoGroup
	}
	if err != nil {
		return Stats{}, explained(err)
	}
	info := c.CachedInfo()
	st := Stats{Lag: info.NumPending, InFlight: info.NumAckPending, Retrying: info.NumRedelivered}
	if st.Dead, err = q.countDead(ctx, s.CachedInfo().Config.Name, group); err != nil {
		return Stats{}, err
	}
	if st.Lag > 0 || st.InFlight > 0 {
		oldest, err := s.GetMsg(ctx, info.AckFloor.Stream+1, jetstream.WithGetMsgSubject(">"))
		if err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) {
			return Stats{}, explained(err)
		}
		if err == nil {
			st.OldestAge = time.Since(oldest.Time)
		}
	}
	return st, nil
}
