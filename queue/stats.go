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
	P50       time.Duration `json:"p50"`       // of this process's last 1,024 handlings, or of those of each partition
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
	var st Stats
	var took []time.Duration
	for _, one := range s.all() {
		if err := one.addStats(ctx, &st); err != nil {
			return Stats{}, err
		}
		one.mu.Lock()
		took = append(took, one.took...)
		one.mu.Unlock()
	}
	var err error
	if st.Dead, err = s.q.countDead(ctx, s.stream, s.group); err != nil {
		return Stats{}, err
	}
	slices.Sort(took)
	if n := len(took); n > 0 {
		st.P50, st.P99 = took[n/2], took[n*99/100]
	}
	return st, nil
}

// addStats adds what the server says of one consumer.
func (s *Subscription) addStats(ctx context.Context, st *Stats) error {
	info, err := s.cons.Info(ctx)
	if err != nil {
		return err
	}
	st.Lag += info.NumPending
	st.InFlight += info.NumAckPending
	st.Retrying += info.NumRedelivered
	if info.NumPending == 0 && info.NumAckPending == 0 {
		return nil
	}
	stream, err := s.q.js.Stream(ctx, s.stream)
	if err != nil {
		return err
	}
	subject := info.Config.FilterSubject
	if subject == "" {
		subject = ">"
	}
	oldest, err := stream.GetMsg(ctx, info.AckFloor.Stream+1, jetstream.WithGetMsgSubject(subject))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil
	}
	if err == nil {
		st.OldestAge = max(st.OldestAge, time.Since(oldest.Time))
	}
	return err
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
