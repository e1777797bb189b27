package agent

import (
	"cmp"
	"context"
	"math"
	"slices"
	"time"

	"github.com/stile-ipc/stile/hub/hubpb"
	"github.com/stile-ipc/stile/telemetry"
)

// Bounds of what is told of queues.
const (
	maxQueues      = 256
	maxQueueGroups = 512 // of all
	queuesWithin   = 3 * time.Second
)

// queues asks how they are doing: all that the process has open, each once.
func queues(ctx context.Context, r *telemetry.Recorder) (all []*hubpb.Queue) {
	ctx, cancel := context.WithTimeout(ctx, queuesWithin)
	defer cancel()
	taken := r.Queues(ctx)
	slices.SortStableFunc(taken, func(a, b telemetry.Queue) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), a.Created.Compare(b.Created))
	})
	groups := maxQueueGroups
	for i := range taken {
		q := Queue(&taken[i], groups)
		if n := len(all); n > 0 && all[n-1].Topic == q.Topic && all[n-1].CreatedUnixNano == q.CreatedUnixNano {
			all[n-1] = both(all[n-1], q) // it was opened twice
			continue
		}
		if len(all) == maxQueues {
			break
		}
		groups -= len(q.Groups)
		all = append(all, q)
	}
	return all
}

// both is what two have said of one topic.
func both(a, b *hubpb.Queue) *hubpb.Queue {
	if !a.Asked {
		a, b = b, a
	}
	a.BlockedNs += b.BlockedNs
	a.Refused += b.Refused
	return a
}

// Queue is a queue as it is reported, with so many groups at most.
func Queue(q *telemetry.Queue, groups int) *hubpb.Queue {
	out := &hubpb.Queue{
		Topic: short(q.Topic), CreatedUnixNano: q.Created.UnixNano(), Where: short(q.Where), Leader: short(q.Leader), AtUnixNano: q.At.UnixNano(), Asked: q.Asked,
		Messages: signed(q.Messages), Bytes: signed(q.Bytes), MaxBytes: max(q.MaxBytes, 0), Last: signed(q.Last), Delayed: signed(q.Delayed), BlockedNs: int64(max(q.Blocked, 0)), Refused: signed(q.Refused),
	}
	for _, g := range q.Groups[:min(len(q.Groups), groups)] {
		out.Groups = append(out.Groups, &hubpb.QueueGroup{
			Name: short(g.Name), Lag: signed(g.Lag), InFlight: signed(g.InFlight), Retrying: signed(g.Retrying), Dead: signed(g.Dead), OldestNs: int64(max(g.Oldest, 0)),
		})
	}
	return out
}

// signed is a number that a hub takes.
func signed(n uint64) uint64 { return min(n, math.MaxInt64) }
