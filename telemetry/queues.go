package telemetry

import (
	"context"
	"time"
)

// Queue is how a topic is doing, as its server says, and what senders of this process met.
type Queue struct {
	Topic   string
	Created time.Time // of the topic on its server: with its name, which one it is
	Where   string    // unix: and the folder of an embedded server, or the URLs of others
	At      time.Time

	Asked    bool // the server has said what follows up to Groups
	Messages uint64
	Bytes    uint64
	MaxBytes int64  // that there may be
	Last     uint64 // sequence of the newest message there was
	Delayed  uint64 // messages that are not due yet
	Leader   string // of a cluster: the server that has its streams now; empty: there is none, or it is not known
	Groups   []QueueGroup

	Blocked time.Duration // that senders waited for room, since it was asked last; those that waited at once each count
	Refused uint64        // messages for which there was no room
}

// QueueGroup is how a group of a topic is doing.
type QueueGroup struct {
	Name     string
	Lag      uint64 // messages never delivered to it
	InFlight uint64 // delivered and not done with
	Retrying uint64 // of them, those that were delivered more than once
	Dead     uint64
	Oldest   time.Duration // age of the oldest message that is not done with; 0: there is none, or it is not known
}

// AddQueues has [Recorder.Queues] ask f, until remove is called.
func (r *Recorder) AddQueues(f func(context.Context) []Queue) (remove func()) {
	if r == nil {
		return func() {}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.queues == nil {
		r.queues = map[*func(context.Context) []Queue]struct{}{}
	}
	r.queues[&f] = struct{}{}
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.queues, &f)
	}
}

// Queues tells of all queues that the process has open, until ctx ends.
func (r *Recorder) Queues(ctx context.Context) (all []Queue) {
	r.mu.Lock()
	asked := make([]func(context.Context) []Queue, 0, len(r.queues))
	for f := range r.queues {
		asked = append(asked, *f)
	}
	r.mu.Unlock()
	for _, f := range asked {
		all = append(all, f(ctx)...)
	}
	return all
}
