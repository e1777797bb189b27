package queue

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
)

// Outbox publishes to a topic what is committed to a database. A message is a row, written in the transaction of the work that it tells of: if
// that is committed the message is published, and never if it is rolled back. Its methods are safe for concurrent use.
//
// A relay in this process publishes the rows in the order of their numbers, and deletes those that are kept as the topic's [Durability] has it. So
// messages of one key, written one transaction after the other, are in order; transactions that overlap have none. A row may be published again,
// after a crash, or by the relay of another process with the same table: the topic knows its ID for two minutes, and
// subscribers with [Once] for as long as they like.
type Outbox[T proto.Message] struct {
	t     *Topic[T]
	relay *relay
}

// NewOutbox returns the outbox of a topic in a table, by default stile_outbox, which is made if it is not there, and starts its relay. Topics may
// share a table; rows of topics that no process has an outbox for stay. ctx is for this call alone.
func NewOutbox[T proto.Message](ctx context.Context, db *sql.DB, dialect Dialect, t *Topic[T], table string) (*Outbox[T], error) {
	if db == nil || t == nil {
		return nil, errors.New("queue: outbox: there is no database, or no topic")
	}
	rows, err := newOutboxTable(ctx, db, dialect, t.name, table)
	if err != nil {
		return nil, fmt.Errorf("queue: outbox: %w", err)
	}
	r := newRelay(t.q, rows, t.stream, t.set.durability, t.subjects[:])
	r.sends = t.sends
	go r.run()
	return &Outbox[T]{t, r}, nil
}

// Publish writes a message to the outbox, in the caller's transaction; it has its ID, key, type, time and trace from now on. tx is one of the
// database that NewOutbox was given. A message too large for the server is refused here, with [ErrTooLarge]. [WhenFullWait] means nothing
// here: the relay always waits.
func (o *Outbox[T]) Publish(ctx context.Context, tx *sql.Tx, m T, opts ...PublishOption) error {
	if err := o.publish(ctx, tx, m, publishingOf(ctx, opts)); err != nil {
		return fmt.Errorf("queue: outbox of topic %q: %w", o.t.name, err)
	}
	return nil
}

func (o *Outbox[T]) publish(ctx context.Context, tx *sql.Tx, m T, p publishing) error {
	if o.relay.closed() {
		return ErrClosed
	}
	if err := p.check(); err != nil {
		return err
	}
	now := time.Now()
	if p.due.After(now) {
		return errors.New("a message of an outbox has no delay: have a handler publish it with one")
	}
	msg, err := o.t.envelope(m, p, now)
	if err != nil {
		return err
	}
	if err := o.t.fits(msg); err != nil {
		return err
	}
	if tx == nil {
		return errors.New("there is no transaction")
	}
	number, err := o.relay.rows.insert(ctx, tx, msg.Subject, wireHeader(msg.Header), msg.Data, now)
	if err != nil {
		return err
	}
	o.relay.await(number)
	return nil
}

// Pending tells how many messages of the topic are committed and not yet published, and the age of the oldest. Those that were refused do not count.
func (o *Outbox[T]) Pending(ctx context.Context) (n int64, oldest time.Duration, err error) {
	n, first, err := o.relay.rows.pending(ctx)
	if err != nil {
		return 0, 0, fmt.Errorf("queue: outbox of topic %q: %w", o.t.name, err)
	}
	if n > 0 {
		oldest = time.Since(time.Unix(0, first))
	}
	return n, oldest, nil
}

// Refusal is a row that the server does not take, whatever is done.
type Refusal struct {
	Row      int64     `json:"row"` // its number in the table
	Written  time.Time `json:"written"`
	Attempts int       `json:"attempts"` // that were refused
	Error    string    `json:"error"`    // of the last
}

// Refused lists up to limit rows of the topic that were refused, the oldest first. They hold up no others, and stay in the table: a row whose column
// error is emptied is tried again within 5 s; one that is not wanted may be deleted.
func (o *Outbox[T]) Refused(ctx context.Context, limit int) ([]Refusal, error) {
	all, err := o.relay.rows.refusals(ctx, limit)
	if err != nil {
		return nil, fmt.Errorf("queue: outbox of topic %q: %w", o.t.name, err)
	}
	return all, nil
}

// Close publishes what is committed and stops the relay. When ctx ends before that, the rest stays in the table for the next Outbox. It is
// to be called before the queue and the database are closed, when no more transactions are under way: what is committed later stays, too.
func (o *Outbox[T]) Close(ctx context.Context) error {
	if err := o.relay.close(ctx); err != nil {
		return fmt.Errorf("queue: outbox of topic %q: %w", o.t.name, err)
	}
	return nil
}
