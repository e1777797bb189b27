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
