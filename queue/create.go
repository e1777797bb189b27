package queue

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// createLimit is how long servers are asked to make something, if the caller has no deadline. Servers that elect a leader need 10 s for it.
	createLimit = 30 * time.Second
	// createWithin is of one try: a request that comes while nobody leads has no answer.
	createWithin = 3 * time.Second
	createAgain  = 250 * time.Millisecond
)

// Codes of JetStream for what cannot be made, or not now.
const (
	codeClusterAway    = 10008 // no leader
	codeNotLeader      = 10009
	codeNoPeers        = 10005
	codeNoReplicas     = 10074 // there is one server
	maxReplicasAllowed = 5     // NATS has no more
)

// creations are under way, by what ends their tries.
type creations struct {
	mu    sync.Mutex
	names map[*context.CancelCauseFunc]string
}

// begin returns the context of one try.
func (c *creations) begin(ctx context.Context, name string) (once context.Context, end func()) {
	within, stop := context.WithTimeout(ctx, createWithin)
	once, cancel := context.WithCancelCause(within)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.names == nil {
		c.names = map[*context.CancelCauseFunc]string{}
	}
	c.names[&cancel] = name
	return once, func() {
		c.mu.Lock()
		delete(c.names, &cancel)
		c.mu.Unlock()
		cancel(nil)
		stop()
	}
}

// denied ends what the user may not ask for: the server says it to the connection alone. It reports whether there was anything.
func (c *creations) denied(err error) (found bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for cancel, name := range c.names {
		if strings.Contains(err.Error(), "$JS.API.") && strings.Contains(err.Error(), "."+name) {
			(*cancel)(err)
			found = true
		}
	}
	return found
}

// created asks the servers to make something of a stream, again while they cannot, until ctx ends or createLimit has passed. What is
// made must be the same however often it is asked for.
func created[V any](ctx context.Context, q *Queue, stream string, ask func(context.Context) (V, error)) (V, error) {
	ctx, cancel := within(ctx, createLimit)
	defer cancel()
	for {
		once, end := q.creations.begin(ctx, stream)
		v, err := ask(once)
		cause := context.Cause(once)
		end()
		switch {
		case errors.Is(cause, nats.ErrPermissionViolation):
			return v, cause
		case err == nil || !notNow(err):
			return v, err
		}
		select {
		case <-time.After(createAgain):
		case <-ctx.Done():
			what := "more than half of the servers have to be up: start those that are down and try again"
			if q.redo != nil {
				what = "see that the process that has the folder runs, and try again"
			}
			return v, fmt.Errorf("%w: %w: %s", ErrNoAnswer, err, what)
		}
	}
}

// notNow tells whether servers that elect a leader, or wait for others of them, may say this.
func notNow(err error) bool {
	var api *jetstream.APIError
	if errors.As(err, &api) {
		switch api.ErrorCode {
		case codeClusterAway, codeNotLeader:
			return true
		case codeNoPeers: // "miscellaneous": a server is there of which little is known yet
			return strings.Contains(api.Description, "offline") || strings.Contains(api.Description, "miscellaneous")
		}
		return false
	}
	return errors.Is(err, nats.ErrTimeout) || errors.Is(err, nats.ErrNoResponders) || errors.Is(err, context.DeadlineExceeded)
}

// createStream returns a stream, made if it is not there, with as many copies as the Queue wants; one that is there keeps those it has.
func (q *Queue) createStream(ctx context.Context, cfg jetstream.StreamConfig) (jetstream.Stream, error) {
	cfg.Replicas = max(q.replicas, 1)
	s, err := created(ctx, q, cfg.Name, func(ctx context.Context) (jetstream.Stream, error) {
		s, err := q.js.CreateStream(ctx, cfg)
		if !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			return s, err
		}
		there, lost := q.js.Stream(ctx, cfg.Name)
		if lost != nil {
			return nil, lost
		}
		has := cfg
		if has.Replicas = there.CachedInfo().Config.Replicas; has.Replicas == cfg.Replicas {
			return nil, err // something else differs
		}
		return q.js.CreateStream(ctx, has)
	})
	var api *jetstream.APIError
	if errors.As(err, &api) && cfg.Replicas > 1 && (api.ErrorCode == codeNoPeers || api.ErrorCode == codeNoReplicas) {
		return nil, fmt.Errorf("Config.Replicas wants %d copies, each on a server of its own, and there are not so many servers with room for one: lower it, or add servers: %w", cfg.Replicas, err)
	}
	return s, err
}

// checkReplicas tells what is wrong with Config.Replicas.
func (c *Config) checkReplicas() error {
	switch {
	case c.Replicas < 0 || c.Replicas > maxReplicasAllowed:
		return fmt.Errorf("%d Replicas: there can be 1 to %d copies", c.Replicas, maxReplicasAllowed)
	case c.Replicas > 1 && c.Dir != "":
		return fmt.Errorf("%d Replicas: an embedded server has the only copy; set URL to servers of a cluster, or Replicas to 1", c.Replicas)
	}
	return nil
}
