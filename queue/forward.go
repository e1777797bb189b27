package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	"github.com/stile-ipc/stile/policy/control"
	"github.com/stile-ipc/stile/telemetry"
)

// Forwarder publishes what a topic has here to the topic of that name on servers elsewhere. Its methods are safe for concurrent use.
type Forwarder struct {
	q      *Queue
	topic  string
	stream identity
	log    interface{ Warn(string, ...any) }
	stop   context.CancelFunc
	done   chan struct{}

	mu    sync.Mutex
	cause error // why nothing is forwarded now
}

// ForwardStats is how a forwarder is doing.
type ForwardStats struct {
	Waiting   uint64        `json:"waiting"`         // messages that are not elsewhere yet
	OldestAge time.Duration `json:"oldestAge"`       // of the oldest of them
	Dead      uint64        `json:"dead"`            // messages that were refused elsewhere, among the dead letters of the group "forward"
	Cause     string        `json:"cause,omitempty"` // why nothing is forwarded now
}

const (
	forwardGroup = "forward"
	headerVia    = "Stile-Via" // the stream from which a message was forwarded
	// A message that may have been stored elsewhere and is sent again later than this is looked for there first: its ID may be forgotten soon.
	doubtAfter = idWindow * 3 / 4
	// clockSkew is how much the clocks of two machines may differ.
	clockSkew = 10 * time.Minute
	// forever is more attempts than are made.
	forever      = 1 << 29
	lookForRoom  = 5 * time.Second
	forwardFirst = 100 * time.Millisecond
	forwardMost  = 5 * time.Second
)

// Forward publishes what this topic has, and will have, to the topic of the same name, type and settings on servers elsewhere, in order: that of each
// key with KeyBy, of all without. Publish to this topic then returns when a message is kept here, whether those servers can be reached or not; the
// forwarder goes on when they can. It is for an embedded server of this process, and for one process at a time.
//
// A message is stored there once, also when the connection was lost while it was on its way, or this process ended: by its ID, and what may be older than
// the two minutes in which the servers know IDs is looked for among their messages. One that they refuse for good is a dead letter of the
// group "forward" here. Messages that were forwarded, and that this topic's groups are done with, make room when half of the topic's bytes are used.
func (t *Topic[T]) Forward(ctx context.Context, to Config) (*Forwarder, error) {
	if t.q.server == nil || to.URL == "" {
		return nil, fmt.Errorf("queue: topic %q: Forward is from the process that has the embedded server, to a URL", t.name)
	}
	leave, err := t.q.join(inProcess(t.stream.name, forwardGroup), true)
	if err != nil {
		return nil, fmt.Errorf("queue: topic %q: it is forwarded already: %w", t.name, err)
	}
	if to.Logger == nil {
		to.Logger = t.q.log
	}
	ctx, stop := context.WithCancel(ctx)
	f := &Forwarder{q: t.q, topic: t.name, stream: t.stream, log: to.Logger, stop: stop, done: make(chan struct{})}
	go func() {
		defer close(f.done)
		defer leave()
		if away := reach(ctx, f, t, to); away != nil {
			f.run(ctx, away)
		}
	}()
	return f, nil
}

// reach opens the topic elsewhere, as soon as that can be done.
func reach[T proto.Message](ctx context.Context, f *Forwarder, t *Topic[T], to Config) *Queue {
	backoff := control.Backoff{Initial: forwardFirst, Max: forwardMost, Multiplier: 2}
	for n := 1; ctx.Err() == nil; n++ {
		remote, err := Open(ctx, to)
		if err == nil && remote.nc.ConnectedServerId() == f.q.nc.ConnectedServerId() {
			err = errors.Join(errors.New("the URL is that of this process's own server"), remote.Close())
		} else if err == nil {
			there := &Topic[T]{q: remote, name: t.name, set: t.set, sends: remote.counts.route(telemetry.Client, t.name)}
			there.set.durability = Synced
			if err = there.open(); err == nil {
				return remote
			}
			err = errors.Join(err, remote.Close())
		}
		f.failed(err)
		pause(ctx, backoff.Bound(n))
	}
	return nil
}

// failed notes why nothing is forwarded; nil: something was.
func (f *Forwarder) failed(err error) {
	f.mu.Lock()
	first := f.cause == nil && err != nil
	f.cause = err
	f.mu.Unlock()
	if first {
		f.log.Warn("queue: messages are kept here until they can be forwarded", "topic", f.topic, "error", err)
	}
}

// run forwards until ctx ends.
func (f *Forwarder) run(ctx context.Context, remote *Queue) {
	defer func() {
		if err := remote.Close(); err != nil {
			f.log.Warn("queue: the connection of a forwarder", "topic", f.topic, "error", err)
		}
	}()
	for ctx.Err() == nil {
		sub, err := f.subscribe(ctx, remote)
		if err == nil {
			f.makeRoom(ctx)
			<-sub.done
			return
		}
		f.failed(err)
		pause(ctx, forwardMost)
	}
}

func (f *Forwarder) subscribe(ctx context.Context, remote *Queue) (*Subscription, error) {
	s := subscribing{workers: defaultWorkers, attempts: forever, backoff: control.Backoff{Initial: forwardFirst, Max: forwardMost, Multiplier: 2}, ordered: true, ackWait: ackWaitEmbedded}
	dead, err := f.q.deadStream(ctx, f.topic)
	if err != nil {
		return nil, err
	}
	cons, err := f.q.groupConsumer(ctx, f.stream.name, forwardGroup, s.ackWait)
	if err != nil {
		return nil, err
	}
	sub := newSubscription(f.q, f.topic, f.stream.name, forwardGroup, cons, s, dead)
	sub.leave = func() {}
	w := &forwarding{f: f, remote: remote, began: time.Now(), doubted: map[uint64]time.Time{}}
	sub.handle = w.forward
	if sub.order, err = newOrder(ctx, sub); err != nil {
		return nil, err
	}
	return sub, sub.start(ctx)
}

// forwarding is what a forwarder knows of the messages that are on their way.
type forwarding struct {
	f      *Forwarder
	remote *Queue
	began  time.Time

	mu      sync.Mutex
	doubted map[uint64]time.Time // since when a message may be there although nobody said so
	looked  time.Time            // when that was last found out
	since   time.Time            // of all that has come there from then on
	there   map[string]bool      // IDs of messages that came from here
}

// forward publishes one message elsewhere.
func (w *forwarding) forward(ctx context.Context, d delivery, _ int) error {
	if known, err := w.isThere(ctx, d); known || err != nil {
		w.f.failed(err)
		return err
	}
	h := d.copyHeader()
	delete(h, headerGroup)
	h[headerVia] = []string{w.via()}
	h[headerID] = []string{idThere(d)}
	within, cancel := context.WithTimeout(ctx, publishLimit)
	defer cancel()
	_, err := w.remote.store(within, &nats.Msg{Subject: string(d.Subject), Header: h, Data: d.Data}, false)
	switch {
	case err == nil:
		w.sure(d.seq)
		w.f.failed(nil)
		return nil
	case errors.Is(err, ErrTooLarge):
		return Reject(err, "refused")
	}
	w.doubt(d.seq)
	w.f.failed(err)
	return err
}

// idThere is a message's ID elsewhere.
func idThere(d delivery) string { return cmp.Or(d.Header.Get(headerID), d.Header.Get(headerEventID)) }

func (w *forwarding) via() string {
	return w.f.stream.name + " " + number(uint64(w.f.stream.created))
}

func (w *forwarding) doubt(seq uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, known := w.doubted[seq]; !known {
		w.doubted[seq] = time.Now()
	}
}

func (w *forwarding) sure(seq uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.doubted, seq)
}

// isThere tells whether a message is known to be elsewhere already. What was kept here before this forwarder began may have been forwarded by
// another, and what nobody answered for may have come; while the servers know IDs, they tell themselves.
func (w *forwarding) isThere(ctx context.Context, d delivery) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	since, doubted := w.doubted[d.seq]
	if !doubted && d.stored.Before(w.began) {
		since, doubted = d.stored, true
	}
	if !doubted || time.Since(since) < doubtAfter {
		return false, nil
	}
	// What was found out is of use if it goes back as far, and nothing was sent in vain since, long ago.
	lastSent, sent := w.doubted[d.seq]
	if w.there == nil || since.Before(w.since) || sent && lastSent.After(w.looked) {
		there, err := w.remote.idsSince(ctx, w.f.stream.name, "", since.Add(-clockSkew), func(h nats.Header) bool { return h.Get(headerVia) == w.via() })
		if err != nil {
			return false, err
		}
		w.there, w.since, w.looked = there, since, time.Now()
	}
	if sent {
		w.doubted[d.seq] = time.Now() // from now on the servers know the ID of what is sent
	}
	return w.there[idThere(d)], nil
}

// has tells whether a stream has a message of that subject and ID that was stored after something that was stored at a time.
func (q *Queue) has(ctx context.Context, stream, subject, id string, after time.Time) (bool, error) {
	if q.server == nil { // two streams have two leaders
		after = after.Add(-clockSkew)
	}
	there, err := q.idsSince(ctx, stream, subject, after, func(h nats.Header) bool { return h.Get(headerID) == id })
	return there[id], err
}

// idsSince returns the IDs of a stream's messages that want takes, of one subject if there is one given, from a time on.
func (q *Queue) idsSince(ctx context.Context, stream, subject string, since time.Time, want func(nats.Header) bool) (map[string]bool, error) {
	ids := map[string]bool{}
	cfg := jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverByStartTimePolicy, OptStartTime: &since, HeadersOnly: true}
	if subject != "" {
		cfg.FilterSubjects = []string{subject}
	}
	c, err := q.js.OrderedConsumer(ctx, stream, cfg)
	if err != nil {
		return nil, explained(err)
	}
	for {
		batch, err := c.FetchNoWait(maxPrefetch)
		if err != nil {
			return nil, explained(err)
		}
		n := 0
		for m := range batch.Messages() {
			n++
			if h := m.Headers(); want(h) {
				ids[h.Get(headerID)] = true
			}
		}
		if err := batch.Error(); err != nil {
			return nil, explained(err)
		}
		if n == 0 {
			return ids, nil
		}
	}
}

// makeRoom takes away what was forwarded when half of the room is used, until ctx ends.
func (f *Forwarder) makeRoom(ctx context.Context) {
	t := time.NewTicker(lookForRoom)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
		if err := f.purge(ctx); err != nil && ctx.Err() == nil {
			f.log.Warn("queue: what was forwarded could not be taken away", "topic", f.topic, "error", err)
		}
	}
}

// purge takes away what all groups are done with, but for the last message, by which the stream knows its place.
func (f *Forwarder) purge(ctx context.Context) error {
	s, err := f.q.js.Stream(ctx, f.stream.name)
	if err != nil {
		return err
	}
	info := s.CachedInfo()
	if int64(info.State.Bytes) < info.Config.MaxBytes/2 {
		return nil
	}
	upTo := info.State.LastSeq
	list := s.ListConsumers(ctx)
	for c := range list.Info() {
		upTo = min(upTo, c.AckFloor.Stream)
	}
	if err := list.Err(); err != nil || upTo <= info.State.FirstSeq {
		return err
	}
	if err := s.Purge(ctx, jetstream.WithPurgeSequence(upTo)); err != nil { // those below
		return err
	}
	return f.q.settle(ctx)
}

// Stats tells what is not elsewhere yet.
func (f *Forwarder) Stats(ctx context.Context) (ForwardStats, error) {
	f.mu.Lock()
	var out ForwardStats
	if f.cause != nil {
		out.Cause = strings.TrimPrefix(f.cause.Error(), "queue: ")
	}
	f.mu.Unlock()
	st, err := f.q.GroupStats(ctx, f.topic, forwardGroup)
	switch {
	case errors.Is(err, ErrNoGroup): // it has not begun
		t, err := f.q.Topic(ctx, f.topic)
		if err != nil {
			return ForwardStats{}, err
		}
		if out.Waiting = t.Messages; t.Messages > 0 {
			out.OldestAge = time.Since(t.Oldest)
		}
		return out, nil
	case err != nil:
		return ForwardStats{}, err
	}
	out.Waiting, out.OldestAge, out.Dead = st.Lag+uint64(st.InFlight), st.OldestAge, st.Dead
	return out, nil
}

// Drain returns when all that the topic has is elsewhere, or with the error of ctx; then the forwarder has ended.
func (f *Forwarder) Drain(ctx context.Context) error {
	defer f.Stop()
	for {
		st, err := f.Stats(ctx)
		if err != nil || st.Waiting == 0 {
			return err
		}
		select {
		case <-time.After(againAfter):
		case <-ctx.Done():
			return fmt.Errorf("queue: topic %q: %d messages are not forwarded yet: %w", f.topic, st.Waiting, ctx.Err())
		}
	}
}

// Stop ends the forwarder. What is on its way is forwarded again by the next one, and stored once.
func (f *Forwarder) Stop() {
	f.stop()
	<-f.done
}
