package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/stile-ipc/stile/policy/control"
	"github.com/stile-ipc/stile/queue/internal/redo"
	"github.com/stile-ipc/stile/telemetry"
)

const (
	// A row is looked for after firstLook, then after twice the time, until it is there: nobody tells the relay of a commit, or that there was none.
	firstLook = time.Millisecond
	lastLook  = 100 * time.Millisecond
	// slowLook is for rows of others, and for those of a transaction that took longer.
	slowLook = 5 * time.Second

	relayRows  = 256 // published together
	relayBytes = 4 << 20
	// maxPublished is how many rows may wait to be deleted; then nothing is published.
	maxPublished = 4 * relayRows
)

// relayBackoff is the wait after a failure.
var relayBackoff = control.Backoff{Initial: 100 * time.Millisecond, Max: 5 * time.Second, Multiplier: 2}

// relay publishes the rows of one outbox.
type relay struct {
	q        *Queue
	rows     *outboxTable
	stream   identity
	level    Durability
	subjects []string
	sends    *telemetry.Route // counts messages; nil: nothing does

	ctx     context.Context // of what the relay does
	cancel  context.CancelFunc
	once    sync.Once     // closes closing
	closing chan struct{} // closed: look once more, and end
	wake    chan struct{} // a row is to come
	done    chan struct{} // closed when the relay has ended
	err     error         // why it has, before it was told to; valid after done

	stored  map[int64]answer // to rows that are in the topic, and of which that could not be kept on disk; the relay's own
	dirty   chan struct{}    // there are rows to delete; closed: there will be none
	cleared chan struct{}    // closed when rows are deleted no more

	mu        sync.Mutex
	awaited   map[int64]time.Time // rows that were written and not yet seen, and when
	latest    time.Time           // of them
	swept     time.Time           // awaited, of those that have not come
	published []int64             // rows that are to be deleted
}

func newRelay(q *Queue, rows *outboxTable, stream identity, level Durability, subjects []string) *relay {
	r := &relay{
		q: q, rows: rows, stream: stream, level: level, subjects: subjects, closing: make(chan struct{}), wake: make(chan struct{}, 1),
		done: make(chan struct{}), dirty: make(chan struct{}, 1), cleared: make(chan struct{}), awaited: map[int64]time.Time{}, stored: map[int64]answer{},
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

func (r *relay) closed() bool {
	select {
	case <-r.closing:
		return true
	default:
		return false
	}
}

func (r *relay) close(ctx context.Context) error {
	r.once.Do(func() { close(r.closing) })
	defer r.cancel()
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		r.cancel()
		<-r.done
		return ctx.Err()
	}
}

// await has the relay look for a row.
func (r *relay) await(number int64) {
	r.mu.Lock()
	r.latest = time.Now()
	r.awaited[number] = r.latest
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *relay) seen(rows []outboxRow) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, row := range rows {
		delete(r.awaited, row.number)
	}
}

// patience is how long nothing needs to be looked for.
func (r *relay) patience(now time.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Sub(r.swept) > lastLook {
		r.swept = now
		maps.DeleteFunc(r.awaited, func(_ int64, at time.Time) bool { return now.Sub(at) > slowLook })
	}
	if len(r.awaited) == 0 {
		return slowLook
	}
	return min(max(now.Sub(r.latest), firstLook), lastLook)
}

func (r *relay) run() {
	defer close(r.done)
	go r.clear()
	defer func() {
		close(r.dirty)
		<-r.cleared
	}()
	for failed := 0; ; {
		last := r.closed()
		err := r.all()
		switch {
		case r.ctx.Err() != nil:
			return
		case errors.Is(err, ErrClosed):
			r.err = err
			r.q.log.Warn("queue: an outbox ends, for its queue is closed", "topic", r.rows.topic)
			return
		case err != nil:
			if failed++; failed == 1 {
				r.q.log.Warn("queue: the outbox cannot be emptied; trying again", "topic", r.rows.topic, "error", err)
			}
			pause(r.ctx, relayBackoff.Wait(failed, 0.5+rand.Float64()/2))
		case last:
			return
		default:
			failed = 0
			r.rest()
		}
	}
}

// rest waits until it is worth to look again.
func (r *relay) rest() {
	now := time.Now()
	due := now.Add(r.patience(now))
	t := time.NewTimer(time.Until(due))
	defer t.Stop()
	for {
		select {
		case <-r.wake:
			if soon := time.Now().Add(firstLook); soon.Before(due) {
				due = soon
				t.Reset(firstLook)
			}
		case <-t.C:
			return
		case <-r.closing:
			return
		case <-r.ctx.Done():
			return
		}
	}
}

// all publishes rows until there are none.
func (r *relay) all() error {
	for {
		gone := r.gone()
		for ; len(gone) >= maxPublished && r.ctx.Err() == nil; gone = r.gone() {
			pause(r.ctx, lastLook) // the database is in trouble
		}
		rows, err := r.rows.first(r.ctx, gone, relayRows, relayBytes)
		if err != nil || len(rows) == 0 {
			return err
		}
		r.seen(rows)
		if err := r.some(rows); err != nil {
			return err
		}
	}
}

// gone is the rows that are published and may still be there.
func (r *relay) gone() []int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.published)
}

// delete has rows deleted that were published.
func (r *relay) delete(numbers []int64) {
	r.mu.Lock()
	r.published = append(r.published, numbers...)
	r.mu.Unlock()
	select {
	case r.dirty <- struct{}{}:
	default:
	}
}

// clear deletes published rows. It does so beside the relay: in SQLite a writer may have to wait for long.
func (r *relay) clear() {
	defer close(r.cleared)
	failed := 0
	for range r.dirty {
		for gone := r.gone(); len(gone) > 0 && r.ctx.Err() == nil; gone = r.gone() {
			if err := r.rows.remove(r.ctx, gone); err != nil {
				if failed++; failed == 1 && r.ctx.Err() == nil {
					r.q.log.Warn("queue: what was published cannot be deleted from the outbox; trying again", "topic", r.rows.topic, "error", err)
				}
				pause(r.ctx, relayBackoff.Wait(failed, 0.5+rand.Float64()/2))
				continue
			}
			failed = 0
			r.mu.Lock()
			r.published = r.published[len(gone):]
			r.mu.Unlock()
		}
	}
}

// sending is a row on its way.
type sending struct {
	number int64
	msg    *nats.Msg
	ack    answer // with a sequence: the server has it
	err    error
}

// some publishes rows together and has them deleted. Those that are refused for good are marked.
func (r *relay) some(rows []outboxRow) error {
	all := make([]sending, len(rows))
	chains := map[string][]*sending{} // by key
	for i, row := range rows {
		s := &all[i]
		s.number = row.number
		if s.msg, s.err = r.message(row); s.err != nil {
			continue
		}
		if s.ack = r.stored[row.number]; s.ack.Sequence != 0 {
			continue // sent again, it could be there twice: the topic forgets its ID
		}
		chain := "id " + s.msg.Header.Get(headerID)
		if key, has := s.msg.Header[headerKey]; has {
			chain = "key " + key[0]
		}
		chains[chain] = append(chains[chain], s)
	}
	r.send(chains)
	var kept []int64
	var records []redo.Record
	var errs []error
	for i := range all {
		switch s := &all[i]; {
		case s.ack.Sequence != 0:
			kept = append(kept, s.number)
			r.stored[s.number] = s.ack
			if r.q.logs(r.level) {
				records = append(records, r.stream.record(s.ack.Sequence, s.msg))
			}
		case refused(s.err):
			errs = append(errs, r.refuse(s))
		case s.err != nil:
			errs = append(errs, s.err)
		}
	}
	if len(records) > 0 {
		if err := r.q.redo.append(r.ctx, r.level, records...); err != nil {
			return explained(err)
		}
	}
	for _, number := range kept {
		delete(r.stored, number)
	}
	r.delete(kept)
	return cmp.Or(errs...)
}

// send has the server take messages: those of a chain one after the other, up to one that it does not take now.
func (r *relay) send(chains map[string][]*sending) {
	var all sync.WaitGroup
	for _, chain := range chains {
		all.Go(func() {
			for _, s := range chain {
				began := time.Now()
				s.ack, s.err = r.q.store(r.ctx, s.msg, false)
				sent(r.sends, began, s.err, len(s.msg.Data))
				if s.err != nil && !refused(s.err) {
					return
				}
			}
		})
	}
	all.Wait()
}

// errBadRow is a row that no outbox of this topic has written.
var errBadRow = errors.New("the row is none of this topic")

// message is the message of a row.
func (r *relay) message(row outboxRow) (*nats.Msg, error) {
	if !slices.Contains(r.subjects, row.subject) {
		return nil, fmt.Errorf("%w: its subject is %q", errBadRow, row.subject)
	}
	h, err := nats.DecodeHeadersMsg(row.header)
	if err != nil {
		return nil, fmt.Errorf("%w: its header: %w", errBadRow, err)
	}
	if h.Get(headerID) == "" {
		return nil, fmt.Errorf("%w: its header has no %s", errBadRow, headerID)
	}
	m := &nats.Msg{Subject: row.subject, Header: h, Data: row.data}
	return m, r.q.fits(m)
}

// refused tells whether a message can never be published.
func refused(err error) bool {
	var api *jetstream.APIError
	return errors.Is(err, errBadRow) || errors.Is(err, ErrTooLarge) || errors.As(err, &api) && api.Code == http.StatusBadRequest && !errors.Is(err, ErrFull)
}

func (r *relay) refuse(s *sending) error {
	r.q.log.Error("queue: a row of the outbox is refused and stays there", "topic", r.rows.topic, "row", s.number, "error", s.err)
	return r.rows.refuse(r.ctx, s.number, s.err)
}
