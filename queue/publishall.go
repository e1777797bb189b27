package queue

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/stile-ipc/stile/queue/internal/redo"
)

// Headers by which a server takes messages together (ADR-50 of NATS).
const (
	headerBatchID  = "Nats-Batch-Id"
	headerBatchSeq = "Nats-Batch-Sequence"
	headerCommit   = "Nats-Batch-Commit"
)

// copyHeader returns a message's headers for another one.
func (d delivery) copyHeader() nats.Header {
	h := d.Header.Map()
	withoutBatch(h)
	return h
}

// withoutBatch takes away what would make a message part of a batch again.
func withoutBatch(h nats.Header) {
	delete(h, headerBatchID)
	delete(h, headerBatchSeq)
	delete(h, headerCommit)
}

const (
	maxTogether      = 1000    // messages; the server takes no more
	maxTogetherBytes = 8 << 20 // of them; half of what the log can write together
	maxBatches       = 8       // on their way at once: a stream takes 50, of all publishers, and more of them are not faster
)

// Codes of JetStream for batches.
const (
	codeBatchDuplicate  = 10201 // an ID is there already
	codeBatchIncomplete = 10176 // the leader changed meanwhile, or the batch could not begin
	codeBatches         = 10210 // too many are under way
)

// PublishAll stores messages, all or none, and returns when they are kept: at most 1,000, of 8 MiB. With [ID] they are called ID-0, ID-1 and so
// on. If some of them are there already, those that are not are stored one by one. They cannot have a [Delay].
func (t *Topic[T]) PublishAll(ctx context.Context, ms []T, opts ...PublishOption) ([]Receipt, error) {
	rs, err := t.publishAll(ctx, ms, publishingOf(ctx, opts))
	if err != nil {
		return nil, fmt.Errorf("queue: topic %q: %d messages together: %w", t.name, len(ms), err)
	}
	return rs, nil
}

func (t *Topic[T]) publishAll(ctx context.Context, ms []T, p publishing) ([]Receipt, error) {
	if len(ms) == 0 {
		return nil, nil
	}
	if len(ms) > maxTogether {
		return nil, fmt.Errorf("%w: %d at most", ErrTooLarge, maxTogether)
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	if !p.due.IsZero() {
		return nil, errors.New("they cannot be delayed")
	}
	msgs, size, now := make([]*nats.Msg, len(ms)), 0, time.Now()
	for i, m := range ms {
		one := p
		if p.id != "" {
			one.id = p.id + "-" + strconv.Itoa(i)
		}
		msg, err := t.envelope(m, one, now)
		if err != nil {
			return nil, fmt.Errorf("message %d: %w", i, err)
		}
		if err := t.fits(msg); err != nil {
			return nil, fmt.Errorf("message %d: %w", i, err)
		}
		msgs[i] = msg
		size += wireSize(msg)
	}
	if size > maxTogetherBytes {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, size, maxTogetherBytes)
	}
	began := time.Now()
	rs, err := t.storeAll(ctx, msgs, p.block)
	if err == nil {
		err = explained(t.q.keepAll(ctx, t.stream, t.set.durability, rs, msgs))
	}
	sent(t.sends, began, err, dataSizes(msgs)...)
	if err != nil {
		return nil, err
	}
	return rs, nil
}

func dataSizes(msgs []*nats.Msg) []int {
	sizes := make([]int, len(msgs))
	for i, m := range msgs {
		sizes[i] = len(m.Data)
	}
	return sizes
}

// wireSize is what a message takes in the log, and a little more.
func wireSize(m *nats.Msg) int {
	size := len(m.Subject) + len(m.Data) + perMessage
	for k, vs := range m.Header {
		for _, v := range vs {
			size += len(k) + len(v) + len(": \r\n")
		}
	}
	return size
}

// perMessage is more than the log adds to a message.
const perMessage = 256

// storeAll has the server take the messages.
func (t *Topic[T]) storeAll(ctx context.Context, msgs []*nats.Msg, block bool) ([]Receipt, error) {
	rs := make([]Receipt, len(msgs))
	put := func(i int, seq uint64, twice bool) {
		rs[i] = Receipt{Topic: t.name, ID: msgs[i].Header[headerID][0], Sequence: seq, Duplicate: twice}
	}
	ack, err := t.q.untilAnswered(ctx, msgs[0].Subject, len(msgs), block, func() (answer, error) { return t.q.askAll(ctx, msgs) })
	var api *jetstream.APIError
	if errors.As(err, &api) && api.ErrorCode == codeBatchDuplicate {
		for i, m := range msgs {
			ack, err := t.q.store(ctx, m, block)
			if err != nil {
				return nil, fmt.Errorf("some were there already, and now the first %d are: %w", i, err)
			}
			put(i, ack.Sequence, ack.Duplicate)
		}
		return rs, nil
	}
	if err != nil {
		return nil, err
	}
	for i := range msgs {
		put(i, ack.Sequence-uint64(len(msgs)-1-i), false)
	}
	return rs, nil
}

// askAll asks the server once. The answer is to the last message.
func (q *Queue) askAll(ctx context.Context, msgs []*nats.Msg) (answer, error) {
	select {
	case q.batches <- struct{}{}:
		defer func() { <-q.batches }()
	case <-ctx.Done():
		return answer{}, fmt.Errorf("%w: %w", nats.ErrTimeout, ctx.Err())
	}
	batch := nuid.Next()
	for i, m := range msgs {
		h := maps.Clone(m.Header) // what is kept has no batch
		h[headerBatchID], h[headerBatchSeq] = []string{batch}, []string{strconv.Itoa(i + 1)}
		one := &nats.Msg{Subject: m.Subject, Header: h, Data: m.Data}
		if i == len(msgs)-1 {
			h[headerCommit] = []string{"1"}
			return q.asker.ask(ctx, one)
		}
		if err := q.nc.PublishMsg(one); err != nil {
			return answer{}, err
		}
	}
	return answer{}, errors.New("nothing to publish")
}

// keepAll is keep for messages that were stored together.
func (q *Queue) keepAll(ctx context.Context, s identity, d Durability, rs []Receipt, msgs []*nats.Msg) error {
	if !q.logs(d) {
		return nil
	}
	records := make([]redo.Record, 0, len(msgs))
	for i, m := range msgs {
		if rs[i].Duplicate {
			if err := q.keepFirst(ctx, s, d, rs[i].Sequence); err != nil {
				return err
			}
			continue
		}
		records = append(records, s.record(rs[i].Sequence, m))
	}
	if len(records) == 0 {
		return nil
	}
	return q.redo.append(ctx, d, records...)
}
