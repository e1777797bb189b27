package queue

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/stile-ipc/stile/queue/internal/redo"
)

// Receipt is what Publish returns when the message is kept.
type Receipt struct {
	Topic     string `json:"topic"`
	ID        string `json:"id"`
	Sequence  uint64 `json:"sequence"`            // in the stream; 0: it is not due yet
	Duplicate bool   `json:"duplicate,omitempty"` // a message with this ID was there already
}

// publishing is what the options of one Publish say.
type publishing struct {
	id     string
	trace  tracing
	policy string // version
	block  bool
	due    time.Time // zero: at once
}

// PublishOption says how one message is published.
type PublishOption func(*publishing)

// maxID is how many bytes an ID may have.
const maxID = 512

// ID names the message: another one with the same ID within two minutes is not stored, and its receipt says so. It has 512 bytes at most. The default
// is a random ID. Who may have to publish a message again, after an error or a crash, gives it one.
func ID(id string) PublishOption { return func(p *publishing) { p.id = id } }

// WhenFullWait makes Publish wait for room in a full topic until ctx ends, or 10 s, on servers elsewhere 30, instead of returning [ErrFull] at once.
func WhenFullWait() PublishOption { return func(p *publishing) { p.block = true } }

// againAfter is when a server that is full or does not answer is asked again; it doubles until againLater.
const (
	againAfter = 50 * time.Millisecond
	againLater = 500 * time.Millisecond
)

// Publish stores a message and returns when it is kept as the topic's [Durability] has it. A server that does not answer is asked again,
// with the same ID, until ctx ends, 100 s at most, or without a deadline 10 s, on servers elsewhere 30; if Publish then returns [ErrNoAnswer] the message may be there or not.
func (t *Topic[T]) Publish(ctx context.Context, m T, opts ...PublishOption) (Receipt, error) {
	r, err := t.publish(ctx, m, publishingOf(ctx, opts))
	if err != nil {
		return Receipt{}, fmt.Errorf("queue: topic %q: %w", t.name, err)
	}
	return r, nil
}

func (t *Topic[T]) publish(ctx context.Context, m T, p publishing) (Receipt, error) {
	if err := p.check(); err != nil {
		return Receipt{}, err
	}
	msg, err := t.envelope(m, p, time.Now())
	if err != nil {
		return Receipt{}, err
	}
	if err := t.fits(msg); err != nil {
		return Receipt{}, err
	}
	if p.due.After(time.Now()) {
		return t.publishLater(ctx, msg, p)
	}
	began := time.Now()
	r, err := t.q.publish(ctx, t.name, t.stream, t.set.durability, msg, p.block)
	sent(t.sends, began, err, len(msg.Data))
	return r, err
}

// publish stores a message of a topic and keeps it as a level has it.
func (q *Queue) publish(ctx context.Context, topic string, s identity, d Durability, msg *nats.Msg, block bool) (Receipt, error) {
	ack, err := q.store(ctx, msg, block)
	if err != nil {
		return Receipt{}, err
	}
	if ack.Duplicate {
		err = q.keepFirst(ctx, s, d, ack.Sequence)
	} else {
		err = q.keep(ctx, s, d, ack.Sequence, msg)
	}
	if err != nil {
		return Receipt{}, explained(err)
	}
	return Receipt{Topic: topic, ID: msg.Header[headerID][0], Sequence: ack.Sequence, Duplicate: ack.Duplicate}, nil
}

func publishingOf(ctx context.Context, opts []PublishOption) (p publishing) {
	for _, o := range opts {
		if o != nil {
			o(&p)
		}
	}
	p.trace.of(ctx)
	return p
}

func (p *publishing) check() error {
	if len(p.id) > maxID || !utf8.ValidString(p.id) {
		return fmt.Errorf("an ID of %d bytes: %d at most can be had, of UTF-8", len(p.id), maxID)
	}
	if !printable(p.id) || !printable(p.trace.parent) || !printable(p.trace.state) {
		return fmt.Errorf("the ID %q or the trace %q has characters that no header can have", p.id, p.trace.parent)
	}
	return nil
}

// store has the server take a message.
func (q *Queue) store(ctx context.Context, msg *nats.Msg, block bool) (answer, error) {
	return q.untilAnswered(ctx, msg.Subject, 1, block, func() (answer, error) { return q.asker.ask(ctx, msg) })
}

// untilAnswered asks for so many messages again and again, as long as there is no answer; and, if block is set, as long as the topic is full.
func (q *Queue) untilAnswered(ctx context.Context, subject string, messages int, block bool, ask func() (answer, error)) (_ answer, failed error) {
	if err := ctx.Err(); err != nil {
		return answer{}, err // nothing was sent
	}
	var began time.Time
	var blocked *senders // that this one is among
	defer func() {
		gaveUp := blocked != nil && ctx.Err() != nil && errors.Is(failed, ctx.Err())
		if gaveUp || errors.Is(failed, ErrFull) {
			q.full.of(subject).refuse(messages)
		}
		blocked.leave()
	}()
	for wait := againAfter; ; wait = min(2*wait, againLater) {
		ack, err := ask()
		if err == nil {
			return ack, nil
		}
		if began.IsZero() {
			began = time.Now().Add(-answerWithin)
		}
		_, has := ctx.Deadline()
		goesOn := ctx.Err() == nil && time.Since(began) < askWithin && (has || time.Since(began) < q.publishLimit())
		switch {
		case unanswered(err) && goesOn:
			if sick := q.health(); sick != nil {
				return answer{}, fmt.Errorf("%w: %w; mend that and start the program again", ErrNoAnswer, sick)
			}
			err = q.noAnswer(err)
		case unanswered(err):
			return answer{}, q.noAnswer(err)
		default:
			err = explained(err)
			if !errors.Is(err, ErrFull) {
				return answer{}, err
			}
			if !block || !goesOn {
				return answer{}, err
			}
			if blocked == nil {
				blocked = q.full.of(subject)
				blocked.enter()
			}
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return answer{}, fmt.Errorf("%w; %w", err, ctx.Err())
		}
	}
}

// noAnswer says what to do.
func (q *Queue) noAnswer(err error) error {
	switch {
	case q.server != nil:
		return fmt.Errorf("%w: %w", ErrNoAnswer, err)
	case q.redo != nil:
		return fmt.Errorf("%w: %w: see that the process that has the folder runs, and publish again with the same ID", ErrNoAnswer, err)
	}
	where := "none is connected"
	if q.nc.IsConnected() {
		where = "connected is " + withoutPasswords(q.nc.ConnectedUrl())
	}
	return fmt.Errorf("%w: %w: see that the servers are up, more than half of those that have the topic (%s), and publish again with the same ID", ErrNoAnswer, err, where)
}

// keep has the log take a message that the server has acknowledged.
func (q *Queue) keep(ctx context.Context, s identity, d Durability, seq uint64, msg *nats.Msg) error {
	if !q.logs(d) {
		return nil
	}
	rec := redo.Record{Stream: s.name, Created: s.created, Seq: seq, Subject: msg.Subject, Data: msg.Data}
	buf := headers.Get().(*[]byte)
	defer headers.Put(buf)
	*buf = appendHeader((*buf)[:0], msg.Header)
	rec.Header = *buf
	return q.redo.append(ctx, d, rec) // which keeps nothing of it
}

// headers are buffers for those of one message.
var headers = sync.Pool{New: func() any { return new([]byte) }}

// keepFirst is keep for a message that was there before: what the server has counts, not what was published again with its ID.
func (q *Queue) keepFirst(ctx context.Context, s identity, d Durability, seq uint64) error {
	if !q.logs(d) {
		return nil
	}
	stream, err := q.js.Stream(ctx, s.name)
	if err != nil {
		return err
	}
	m, err := stream.GetMsg(ctx, seq)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil // it has been taken away
	}
	if err != nil {
		return err
	}
	return q.keep(ctx, s, d, seq, storedMsg(m))
}

// storedMsg is a message that a stream has, as one that is published alone.
func storedMsg(m *jetstream.RawStreamMsg) *nats.Msg {
	withoutBatch(m.Header)
	return &nats.Msg{Subject: m.Subject, Header: m.Header, Data: m.Data}
}

// logs tells whether the log takes messages of a level.
func (q *Queue) logs(d Durability) bool { return q.redo != nil && d != Buffered }

// record is a message as the log has it.
func (s identity) record(seq uint64, m *nats.Msg) redo.Record {
	return redo.Record{Stream: s.name, Created: s.created, Seq: seq, Subject: m.Subject, Header: wireHeader(m.Header), Data: m.Data}
}

// deleted is the record of a message that was deleted; id is what tells it from others that may have its sequence after a power cut.
func (s identity) deleted(seq uint64, subject, id string) redo.Record {
	return redo.Record{Stream: s.name, Created: s.created, Seq: seq, Deleted: true, Subject: subject, Data: []byte(id)}
}
