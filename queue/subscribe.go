package queue

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	"github.com/stile-ipc/stile/policy/control"
)

// Msg is a message as a handler gets it.
type Msg[T proto.Message] struct {
	Value       T
	ID          string // of the message: the same whenever it is delivered
	Key         string // that KeyBy gave it
	Topic       string
	Sequence    uint64 // in the stream
	Attempt     int    // to handle it; the first is 1
	Published   time.Time
	Header      Header
	traceparent []byte
}

// Handler handles a message. When it returns nil the message is done with; any other result is tried again, but for those of [Reject].
// It is called from several goroutines at once. ctx ends with the subscription, and has the message's [Msg.SpanContext].
type Handler[T proto.Message] func(ctx context.Context, m *Msg[T]) error

// SubscribeOption says how a subscription is.
type SubscribeOption func(*subscribing)

type subscribing struct {
	workers  int
	attempts int
	backoff  control.Backoff
	inbox    Inbox
	once     bool // there has to be an inbox
	ordered  bool
	ackWait  time.Duration

	latency   time.Duration // of batches
	most      int           // messages of a batch; 0: there are none
	mostBytes int
}

// Workers sets how many messages are handled at once; the default is 8. A subscription holds at least twice as many, which wait for their turn in this
// process, and come again after 30 s if it dies, on an embedded server after 5.
func Workers(n int) SubscribeOption { return func(s *subscribing) { s.workers = n } }

// Retry sets how often a message is tried, and the bounds of the wait before the second attempt, which doubles until longest: each wait is
// a random part of its bound. The default is 8 attempts, a second and an hour. After the last attempt the message goes to the dead
// letters. A message that waits counts among those under way, of which a group has 10,000 at most; for more than a minute it waits among those with
// a [Delay], if it has no order, and comes as another message of the topic, for the group alone.
func Retry(attempts int, first, longest time.Duration) SubscribeOption {
	return func(s *subscribing) {
		s.attempts, s.backoff = attempts, control.Backoff{Initial: first, Max: longest, Multiplier: 2}
	}
}

// Ordered has messages of one key handled one after the other, in the order in which they were published: one that is tried again is waited for by
// those behind it, until it is handled or dead. It is for topics with [KeyBy]. Messages that come again, after a crash, do so in order, too.
//
// On an embedded server it is for one subscription of a group at a time. Other keys do not wait, unless a thousand messages wait already. When a
// subscription before has left messages under way, the first message comes after 6 s: the server has given up the others then.
//
// On servers elsewhere a group has any number of subscriptions, in as many processes. Each key belongs to one of 16 partitions, of which one message at a time
// is handled, wherever: those of its partition wait for one that is tried again, and 10 s for one whose process has died. A process
// that was silent so long may still be handling a message that another has been given; with [Once] the effects are in order nevertheless.
// A group is always Ordered there, or never.
func Ordered() SubscribeOption { return func(s *subscribing) { s.ordered = true } }

// Once has the effects of a handler happen once for each message, whatever is delivered again: those that are in the inbox's transaction.
func Once(inbox Inbox) SubscribeOption {
	return func(s *subscribing) { s.inbox, s.once = inbox, true }
}

const (
	defaultWorkers  = 8
	maxWorkers      = 10_000
	defaultAttempts = 8
	// How many messages a subscription holds, if it has not more workers: at first, at most, and with order. A handler that is slow has
	// what it does in prefetchFor, so that others of the group have the rest.
	minPrefetch     = 100
	maxPrefetch     = 500
	orderedPrefetch = 1000
	prefetchFor     = time.Second
	// maxUnderWay is how many messages of a group are delivered and not done with.
	maxUnderWay = 10_000
	// When a message of whose process nothing is heard is delivered again: the process tells three times as often that it lives. An embedded
	// server ends with its processes, so that nothing but a crash is waited for.
	ackWait         = 30 * time.Second
	ackWaitEmbedded = 5 * time.Second
	// crashFactor times the attempts allowed, a handler may begin in processes that do not live to tell.
	crashFactor = 2
)

var groupName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// rejection is an error that no further attempt mends.
type rejection struct {
	err error
	why string
}

func (r *rejection) Error() string { return r.why + ": " + r.err.Error() }
func (r *rejection) Unwrap() error { return r.err }

// Reject is what a handler returns for a message that is to go to the dead letters at once.
func Reject(err error, why string) error {
	if err == nil {
		err = errors.New("rejected")
	}
	return &rejection{err, why}
}

// postponement is an error with a wait of its own.
type postponement struct {
	err  error
	wait time.Duration
}

func (p *postponement) Error() string { return p.err.Error() }
func (p *postponement) Unwrap() error { return p.err }

// After is what a handler returns for a message that is to be tried again after d, not after the wait of [Retry].
func After(d time.Duration, err error) error {
	if err == nil {
		err = errors.New("not yet")
	}
	return &postponement{err, max(d, 0)}
}

// Subscribe has a group's messages handled: each by one of the group's subscribers, in this process or others, from the first message that the
// topic has. A message whose process has died is delivered again after
// 30 s, by an embedded server after 5.
//
// When ctx ends, the subscription does as after [Subscription.Stop].
func (t *Topic[T]) Subscribe(ctx context.Context, group string, handle Handler[T], opts ...SubscribeOption) (*Subscription, error) {
	s := subscribing{workers: defaultWorkers, attempts: defaultAttempts, backoff: control.Backoff{Initial: time.Second, Max: time.Hour, Multiplier: 2}}
	for _, o := range opts {
		if o != nil {
			o(&s)
		}
	}
	if s.most != 0 || s.latency != 0 {
		return nil, fmt.Errorf("queue: topic %q, group %q: Latency and BatchSize are for SubscribeBatch", t.name, group)
	}
	sub, err := t.subscribe(ctx, group, handle, nil, s)
	if err != nil {
		return nil, fmt.Errorf("queue: topic %q, group %q: %w", t.name, group, err)
	}
	return sub, nil
}

// subscribe subscribes with one of the two kinds of handlers.
func (t *Topic[T]) subscribe(ctx context.Context, group string, handle Handler[T], many BatchHandler[T], s subscribing) (*Subscription, error) {
	if handle == nil && many == nil {
		return nil, errors.New("there is no handler")
	}
	if !groupName.MatchString(group) {
		return nil, errors.New("a group's name has letters, digits, - and _, and 64 of them at most")
	}
	if s.workers < 1 || s.workers > maxWorkers || s.attempts < 1 || s.backoff.Initial < 0 || s.backoff.Max < s.backoff.Initial {
		return nil, fmt.Errorf("%d workers, %d attempts, waits from %s to %s: there must be 1 to %d workers, an attempt or more, and waits that grow",
			s.workers, s.attempts, s.backoff.Initial, s.backoff.Max, maxWorkers)
	}
	if s.once && s.inbox == nil {
		return nil, errors.New("Once has no inbox")
	}
	if s.ordered && t.key == nil {
		return nil, errors.New("there is order by key for a topic with KeyBy (Ordered)")
	}
	if s.ordered && t.q.server == nil && t.q.redo != nil {
		return nil, errors.New("on an embedded server there is order by key in the process that has it (Ordered)")
	}
	leave, err := t.q.join(inProcess(t.stream.name, group), s.ordered && t.q.server != nil)
	if err != nil {
		return nil, err
	}
	sub, err := t.join(ctx, group, handle, many, s)
	if err != nil {
		leave()
		return nil, err
	}
	if err := t.q.alone(ctx, sub); err != nil {
		leave()
		return nil, err
	}
	sub.leave = leave
	if err := sub.start(ctx); err != nil {
		leave()
		return nil, err
	}
	return sub, nil
}

// join makes the subscription.
func (t *Topic[T]) join(ctx context.Context, group string, handle Handler[T], many BatchHandler[T], s subscribing) (*Subscription, error) {
	s.ackWait = ackWait
	if t.q.redo != nil {
		s.ackWait = ackWaitEmbedded
	}
	dead, err := t.q.deadStream(ctx, t.name)
	if err != nil && ctx.Err() == nil && !errors.Is(err, ErrClosed) {
		err = fmt.Errorf("dead letters: %w", err)
	}
	if err != nil {
		return nil, err
	}
	if t.q.redo == nil {
		if err := t.q.checkKind(ctx, t.stream.name, group, s.ordered); err != nil {
			return nil, err
		}
		if s.ordered {
			return t.joinParts(ctx, group, handle, s, dead)
		}
	}
	cons, err := t.q.groupConsumer(ctx, t.stream.name, group, s.ackWait)
	if err != nil {
		return nil, err
	}
	sub := t.member(group, cons, handle, s, dead)
	if many != nil {
		sub.batch = t.together(many)
	}
	if s.ordered {
		if sub.order, err = newOrder(ctx, sub); err != nil {
			return nil, err
		}
	}
	return sub, nil
}

// member makes the subscription to a consumer.
func (t *Topic[T]) member(group string, cons jetstream.Consumer, handle Handler[T], s subscribing, dead identity) *Subscription {
	sub := newSubscription(t.q, t.name, t.stream.name, group, cons, s, dead)
	sub.mover = t.mover
	sub.handle = func(ctx context.Context, d delivery, attempt int) error {
		m, err := t.read(d, attempt)
		if err != nil {
			return Reject(err, "unreadable")
		}
		if ctx = m.inTrace(ctx); s.inbox == nil {
			return handle(ctx, m)
		}
		return s.inbox.Once(ctx, InboxKey{Topic: t.name, Group: group, ID: m.ID}, func(ctx context.Context) error { return handle(ctx, m) })
	}
	return sub
}

// inProcess is what a group of a stream is called among a process's.
func inProcess(stream, group string) string { return stream + " " + group }

var errNotAlone = errors.New("the group has another subscription, and one that is Ordered is alone")

// alone looks for an Ordered subscription in the host, or for others than this in guests if this is Ordered.
func (q *Queue) alone(ctx context.Context, s *Subscription) error {
	if g, visits := q.redo.(guest); visits {
		a, err := g.ask(ctx, hostRequest{Do: hostOrdered, Group: inProcess(s.stream, s.group)})
		if err == nil && a.Ordered {
			err = errNotAlone
		}
		return err
	}
	if !s.set.ordered || q.server == nil {
		return nil
	}
	// Who subscribes asks for messages again and again; of one that has ended the server knows it by the end.
	for end, vain := time.Now().Add(pullLimit+patience), 0; vain < 5; time.Sleep(20 * time.Millisecond) {
		info, err := s.cons.Info(ctx)
		if err != nil {
			return explained(err)
		}
		vain++
		if info.NumWaiting == 0 { // this one has not asked yet
			continue
		}
		if vain = 0; time.Now().After(end) {
			return errNotAlone
		}
	}
	return nil
}

// join notes that a group has one more subscription in this process; leave is due. One that is ordered is alone.
func (q *Queue) join(group string, ordered bool) (leave func(), err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if n := q.groups[group]; n < 0 || ordered && n > 0 {
		return nil, errNotAlone
	}
	add := 1
	if ordered {
		add = -1
	}
	q.groups[group] += add
	return func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		if q.groups[group] -= add; q.groups[group] == 0 {
			delete(q.groups, group)
		}
	}, nil
}

// groupConsumer returns the consumer of a group that has all messages of a stream.
func (q *Queue) groupConsumer(ctx context.Context, stream, group string, ackWait time.Duration) (jetstream.Consumer, error) {
	return q.consumer(ctx, stream, jetstream.ConsumerConfig{
		Durable: group, AckPolicy: jetstream.AckExplicitPolicy, AckWait: ackWait, MaxDeliver: -1, MaxAckPending: maxUnderWay,
		DeliverPolicy: jetstream.DeliverAllPolicy,
	})
}

// consumer returns a consumer, made if it is not there.
func (q *Queue) consumer(ctx context.Context, stream string, cfg jetstream.ConsumerConfig) (jetstream.Consumer, error) {
	c, err := created(ctx, q, stream, func(ctx context.Context) (jetstream.Consumer, error) {
		c, err := q.js.CreateConsumer(ctx, stream, cfg)
		if errors.Is(err, jetstream.ErrConsumerExists) { // with other settings, of an earlier version
			c, err = q.js.UpdateConsumer(ctx, stream, cfg)
		}
		return c, err
	})
	if err != nil {
		return nil, explained(err)
	}
	return c, q.settle(ctx)
}

// read makes the handler's message.
func (t *Topic[T]) read(d delivery, attempt int) (*Msg[T], error) {
	e := d.Header.envelope()
	if string(e.kind) != t.schema {
		return nil, fmt.Errorf("it is a %q, and the subscriber reads %s", e.kind, t.schema)
	}
	hash, ok := isProtobuf(e.content)
	if !ok {
		return nil, fmt.Errorf("its content-type is %q, not %s", e.content, contentType)
	}
	if len(e.id) == 0 {
		return nil, errors.New("it has no ce-id")
	}
	var zero T
	v := zero.ProtoReflect().Type().New().Interface().(T)
	if err := proto.Unmarshal(d.Data, v); err != nil {
		if own := strings.TrimPrefix(t.content, contentType+schemaParam); len(hash) > 0 && string(hash) != own {
			err = fmt.Errorf("%w; its publisher's schema of the type is %s, the subscriber's %s", err, hash, own)
		}
		return nil, err
	}
	m := &Msg[T]{Value: v, ID: string(e.id), Key: string(e.key), Topic: t.name, Sequence: d.seq, Attempt: attempt, Published: d.stored, Header: d.Header, traceparent: e.trace}
	if at, err := time.Parse(time.RFC3339Nano, string(e.time)); err == nil {
		m.Published = at
	}
	return m, nil
}

func number(n uint64) string { return strconv.FormatUint(n, 10) }
