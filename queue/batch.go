package queue

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/stile-ipc/stile/policy/control"
)

// BatchHandler handles messages together. When it returns nil they are done with; after an error all are tried again, but for those that [Failed] does
// not name. It is called from as many goroutines at once as there are [Workers]. ctx ends with the subscription.
type BatchHandler[T proto.Message] func(ctx context.Context, ms []*Msg[T]) error

// Latency lets a batch wait up to d after its first message to become larger, if more than one message comes in that time; the default is 0: what is there when
// the handler is free is handled. It is for SubscribeBatch, and an hour at most.
func Latency(d time.Duration) SubscribeOption { return func(s *subscribing) { s.latency = d } }

// BatchSize bounds batches; the default is 500 messages and 1 MiB. One that is larger than bytes is a batch. It is for SubscribeBatch, and has
// 5,000 messages at most.
func BatchSize(messages, bytes int) SubscribeOption {
	return func(s *subscribing) { s.most, s.mostBytes = messages, bytes }
}

const (
	defaultBatch      = 500
	defaultBatchBytes = 1 << 20
	maxBatch          = maxUnderWay / 2
	maxLatency        = time.Hour
	// togetherTries is how often a message is tried with others: it may be another one that fails.
	togetherTries = 2
)

// partly is an error of some messages of a batch.
type partly struct{ errs map[int]error }

func (p *partly) Error() string {
	i := slices.Min(slices.Collect(maps.Keys(p.errs)))
	return fmt.Sprintf("%d messages of the batch failed; message %d: %v", len(p.errs), i, p.errs[i])
}

func (p *partly) Unwrap() []error { return slices.Collect(maps.Values(p.errs)) }

// Failed is what a [BatchHandler] returns when some messages failed, by their places in the batch, from 0; the others are done with. Each error
// can be one of [Reject] or [After]. Without any error it is nil.
func Failed(errs map[int]error) error {
	p := &partly{map[int]error{}}
	for i, err := range errs {
		if err != nil {
			p.errs[i] = err
		}
	}
	if len(p.errs) == 0 {
		return nil
	}
	return p
}

// SubscribeBatch is [Topic.Subscribe] for a handler of many messages at once. A message that comes alone is handled at once; while a batch is handled the
// next one gathers. By default there is one batch at a time ([Workers]).
//
// A batch that fails as a whole has its messages tried again, by the rules of [Retry]. A message is tried with others twice, and then alone; also when it would
// be dead otherwise: so only the messages that cannot be handled go to the dead letters. [Ordered] and [Once] are not for batches.
func (t *Topic[T]) SubscribeBatch(ctx context.Context, group string, handle BatchHandler[T], opts ...SubscribeOption) (*Subscription, error) {
	s := subscribing{
		workers: 1, attempts: defaultAttempts, backoff: control.Backoff{Initial: time.Second, Max: time.Hour, Multiplier: 2},
		most: defaultBatch, mostBytes: defaultBatchBytes,
	}
	for _, o := range opts {
		if o != nil {
			o(&s)
		}
	}
	sub, err := t.subscribeBatch(ctx, group, handle, s)
	if err != nil {
		return nil, fmt.Errorf("queue: topic %q, group %q: %w", t.name, group, err)
	}
	return sub, nil
}

func (t *Topic[T]) subscribeBatch(ctx context.Context, group string, handle BatchHandler[T], s subscribing) (*Subscription, error) {
	switch {
	case s.ordered || s.inbox != nil:
		return nil, errors.New("batches have no Ordered and no Once: use Subscribe")
	case s.most < 1 || s.most > maxBatch || s.mostBytes < 1:
		return nil, fmt.Errorf("batches of %d messages and %d bytes: there must be 1 to %d messages, and a byte", s.most, s.mostBytes, maxBatch)
	case s.latency < 0 || s.latency > maxLatency:
		return nil, fmt.Errorf("a latency of %s: 0 to %s can be had", s.latency, maxLatency)
	}
	return t.subscribe(ctx, group, nil, handle, s)
}

// said is what a handler of batches says of a message. With shared the error is the whole batch's.
type said struct {
	err    error
	shared bool
}

// together has messages handled, those that can be read.
func (t *Topic[T]) together(handle BatchHandler[T]) func(ctx context.Context, ds []delivery) []said {
	return func(ctx context.Context, ds []delivery) []said {
		all := make([]said, len(ds))
		var ms []*Msg[T]
		var places []int // of ms in ds
		for i, d := range ds {
			m, err := t.read(d, d.attempt())
			if err != nil {
				all[i].err = Reject(err, "unreadable")
				continue
			}
			ms, places = append(ms, m), append(places, i)
		}
		if len(ms) == 0 {
			return all
		}
		err := t.recovered(ctx, ms, handle)
		var some *partly
		if errors.As(err, &some) {
			for i, one := range some.errs {
				if i < 0 || i >= len(ms) {
					err, some = fmt.Errorf("queue: of a batch of %d, message %d is said to have failed: %w", len(ms), i, one), nil
					break
				}
			}
		}
		for i, place := range places {
			if all[place] = (said{err, len(ms) > 1}); some != nil {
				all[place] = said{err: some.errs[i]}
			}
		}
		return all
	}
}

// recovered calls the handler; a panic is an error.
func (t *Topic[T]) recovered(ctx context.Context, ms []*Msg[T], handle BatchHandler[T]) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v", v)
			t.q.log.Error("queue: a handler panicked", "stream", t.stream.name, "messages", len(ms), "first", ms[0].Sequence, "panic", v, "stack", string(debug.Stack()))
		}
	}()
	return handle(ctx, ms)
}

// batcher is a worker that handles batches.
func (s *Subscription) batcher() {
	g := gatherer{s: s}
	for batch := g.next(); batch != nil; batch = g.next() {
		var many []delivery
		for _, d := range batch {
			s.learn(&d)
			if d.attempt() <= togetherTries {
				many = append(many, d)
			} else {
				s.handleTogether([]delivery{d})
			}
		}
		if len(many) > 0 {
			s.handleTogether(many)
		}
	}
}

// handleTogether handles messages and tells the server what has become of each.
func (s *Subscription) handleTogether(ds []delivery) {
	if s.ctx.Err() != nil {
		for _, d := range ds {
			s.settle(d, outcome{what: cut})
		}
		return
	}
	left := ds[:0:0]
	for _, d := range ds {
		if o, over := s.unhandledOutcome(d); over {
			s.settle(d, o)
		} else {
			left = append(left, d)
			s.begin(d)
		}
	}
	if len(left) == 0 {
		return
	}
	begin := time.Now()
	all := s.batch(s.ctx, left)
	took := time.Since(begin)
	s.mu.Lock()
	s.tookLocked(took)
	s.mu.Unlock()
	for i, d := range left {
		s.handled(&d, begin, took, all[i].err)
		o := s.outcomeOf(all[i].err, d.attempt())
		if o.what == died && all[i].shared { // by another's fault, perhaps
			s.handleTogether([]delivery{d})
			continue
		}
		s.end(&d, o.what)
		s.settle(d, o)
	}
}

// gatherer makes batches of what was fetched. It is one worker's.
type gatherer struct {
	s     *Subscription
	left  *delivery // it had no room in the last batch
	since time.Time // the last batch was complete
}

// next returns the next batch; nil: there is none any more.
func (g *gatherer) next() []delivery {
	first, ok := g.first()
	if !ok {
		return nil
	}
	batch, bytes := []delivery{first}, len(first.Data)
	var until time.Time // zero: nothing was waited for
	for len(batch) < g.s.set.most {
		d, ok := g.s.workNow()
		if !ok {
			if until.IsZero() {
				until = time.Now().Add(g.hold(len(batch)))
			}
			if d, ok = g.s.workUntil(until); !ok {
				break
			}
		}
		if bytes += len(d.Data); bytes > g.s.set.mostBytes {
			g.left = &d
			break
		}
		batch = append(batch, d)
	}
	g.since = time.Now()
	return batch
}

// first waits for a batch's first message.
func (g *gatherer) first() (d delivery, ok bool) {
	if g.left != nil {
		d, g.left = *g.left, nil
		return d, true
	}
	return g.s.nextWork()
}

// hold is how long a batch may wait that has n messages, which have come since the last one was complete: the first of them at that moment, perhaps.
func (g *gatherer) hold(n int) time.Duration {
	passed := time.Since(g.since)
	if passed/time.Duration(n) >= g.s.set.latency {
		return 0
	}
	return g.s.set.latency - passed
}
