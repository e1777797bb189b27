package queue

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Headers of dead letters, and of messages that were sent again.
const (
	headerGroup        = "Stile-Group" // the only one for which it is
	headerDeadReason   = "Stile-Dead-Reason"
	headerDeadError    = "Stile-Dead-Error"
	headerDeadAttempts = "Stile-Dead-Attempts"
	headerDeadFirst    = "Stile-Dead-First"
	headerDeadTime     = "Stile-Dead-Time"
	headerDeadOrigin   = "Stile-Dead-Sequence"
	headerDeadSubject  = "Stile-Dead-Subject"
	headerDeadSince    = "Stile-Dead-Published"
)

const (
	maxDeadError  = 1024
	deadAge       = 90 * 24 * time.Hour
	deadBytes     = 100 << 20
	deadStreamEnd = "=dead" // no topic's stream ends so
)

// deadStream returns the stream of a topic's dead letters, made if it is not there.
func (q *Queue) deadStream(ctx context.Context, topic string) (identity, error) {
	s, err := q.createStream(ctx, jetstream.StreamConfig{
		Name: streamName(topic) + deadStreamEnd, Subjects: []string{deadSubject(streamName(topic), "*")}, Description: "dead letters of the stile topic " + topic,
		Storage: jetstream.FileStorage, Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardNew,
		MaxBytes: deadBytes, MaxAge: deadAge, Duplicates: idWindow,
	})
	if err != nil {
		return identity{}, explained(err)
	}
	return identityOf(s.CachedInfo()), q.settle(ctx)
}

func deadSubject(stream, group string) string { return "dead." + stream + "." + group }

// bury puts a message among the dead letters, on disk.
func (q *Queue) bury(ctx context.Context, dead identity, topic, group string, d delivery, o outcome) error {
	ctx, cancel := context.WithTimeout(ctx, q.publishLimit())
	defer cancel()
	h, seq := d.copyHeader(), d.seq
	h[headerID] = []string{fmt.Sprintf("%s %s %d", group, d.stored.UTC().Format(time.RFC3339Nano), seq)}
	h[headerGroup] = []string{group}
	h[headerDeadReason] = []string{headerText(o.why)}
	h[headerDeadError] = []string{headerText(o.cause.Error())}
	h[headerDeadAttempts] = []string{strconv.Itoa(o.tries)}
	now, first := time.Now(), d.tries.First
	if first.IsZero() {
		first = now
	}
	h[headerDeadFirst], h[headerDeadTime] = []string{first.UTC().Format(time.RFC3339Nano)}, []string{now.UTC().Format(time.RFC3339Nano)}
	origin, since := d.origin()
	h[headerDeadSince] = []string{since.UTC().Format(time.RFC3339Nano)}
	h[headerDeadOrigin] = []string{number(origin)}
	h[headerDeadSubject] = []string{string(d.Subject)}
	msg := &nats.Msg{Subject: deadSubject(streamName(topic), group), Header: h, Data: d.Data}
	_, err := q.publish(ctx, topic, dead, Synced, msg, false)
	return err
}

// headerText makes a text fit for a header.
func headerText(s string) string {
	s = strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s))
	if len(s) > maxDeadError {
		s = strings.ToValidUTF8(s[:maxDeadError], "")
	}
	return s
}

// countDead counts a group's dead letters. The server looks first which sequence is the last, of all groups, so that all of the group's up to it are counted.
func (q *Queue) countDead(ctx context.Context, stream, group string) (n, last uint64, err error) {
	s, err := q.js.Stream(ctx, stream+deadStreamEnd)
	if err != nil {
		return 0, 0, err
	}
	subject := deadSubject(stream, group)
	info, err := s.Info(ctx, jetstream.WithSubjectFilter(subject))
	if err != nil {
		return 0, 0, err
	}
	return info.State.Subjects[subject], info.State.LastSeq, nil
}

// DeadLetters are the messages of a topic that a group could not handle.
type DeadLetters struct {
	q      *Queue
	topic  string
	origin identity
	group  string
}

// DeadLetter is one of them.
type DeadLetter struct {
	Sequence  uint64      `json:"sequence"` // among the dead letters
	ID        string      `json:"id"`
	Type      string      `json:"type"`
	Key       string      `json:"key,omitempty"`
	Reason    string      `json:"reason"` // attempts, unreadable, crashed, or what Reject was given
	Error     string      `json:"error"`
	Attempts  int         `json:"attempts"`
	Published time.Time   `json:"published"`
	First     time.Time   `json:"first"` // when its first attempt ended
	Died      time.Time   `json:"died"`
	Origin    uint64      `json:"origin"` // its sequence in the topic's stream
	Header    nats.Header `json:"-"`
	Data      []byte      `json:"-"` // as it was published
	subject   string
}

// DeadLetters returns a group's dead letters.
func (t *Topic[T]) DeadLetters(group string) *DeadLetters {
	return &DeadLetters{q: t.q, topic: t.name, origin: t.stream, group: group}
}

// Count returns how many dead letters the group has, and the last sequence that any group's had before they were counted: each that dies later has a higher one.
func (d *DeadLetters) Count(ctx context.Context) (n, last uint64, err error) {
	if err = d.check(); err == nil {
		n, last, err = d.q.countDead(ctx, d.origin.name, d.group)
	}
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return 0, 0, nil // nobody has subscribed yet
	}
	return n, last, d.failed(err)
}

// List returns up to most dead letters that keep wants, all for nil, the oldest first.
func (d *DeadLetters) List(ctx context.Context, most int, keep func(*DeadLetter) bool) ([]DeadLetter, error) {
	if most <= 0 {
		return nil, nil
	}
	var all []DeadLetter
	err := d.each(ctx, keep, func(_ jetstream.Stream, l *DeadLetter) (bool, error) {
		all = append(all, *l)
		return len(all) < most, nil
	})
	return all, err
}

// Peek returns the dead letter of a sequence, or [ErrNoLetter].
func (d *DeadLetters) Peek(ctx context.Context, sequence uint64) (DeadLetter, error) {
	s, err := d.q.js.Stream(ctx, d.origin.name+deadStreamEnd)
	if err == nil {
		var m *jetstream.RawStreamMsg
		if m, err = s.GetMsg(ctx, sequence); err == nil && m.Subject == deadSubject(d.origin.name, d.group) {
			return deadLetter(m), nil
		}
	}
	if err == nil || errors.Is(err, jetstream.ErrMsgNotFound) || errors.Is(err, jetstream.ErrStreamNotFound) {
		err = ErrNoLetter
	}
	return DeadLetter{}, fmt.Errorf("queue: dead letter %d of topic %q, group %q: %w", sequence, d.topic, d.group, explained(err))
}

// ErrNoLetter: the group has no dead letter of that sequence.
var ErrNoLetter = errors.New("there is none")

// Discard takes dead letters that keep wants, all for nil, away for ever. It returns how many it has.
func (d *DeadLetters) Discard(ctx context.Context, keep func(*DeadLetter) bool) (int, error) {
	n := 0
	err := d.each(ctx, keep, func(s jetstream.Stream, l *DeadLetter) (bool, error) {
		if err := d.remove(ctx, s, l); err != nil {
			return false, err
		}
		n++
		return true, nil
	})
	return n, err
}

// each calls f for each dead letter that keep wants, until it returns false.
func (d *DeadLetters) each(ctx context.Context, keep func(*DeadLetter) bool, f func(jetstream.Stream, *DeadLetter) (bool, error)) error {
	return d.failed(d.walk(ctx, keep, f))
}

func (d *DeadLetters) failed(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("queue: dead letters of topic %q, group %q: %w", d.topic, d.group, explained(err))
}

func (d *DeadLetters) check() error {
	if !groupName.MatchString(d.group) {
		return errors.New("no group has that name")
	}
	return nil
}

func (d *DeadLetters) walk(ctx context.Context, keep func(*DeadLetter) bool, f func(jetstream.Stream, *DeadLetter) (bool, error)) error {
	if err := d.check(); err != nil {
		return err
	}
	s, err := d.q.js.Stream(ctx, d.origin.name+deadStreamEnd)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil // nobody has subscribed yet
	}
	if err != nil {
		return err
	}
	// Those that die meanwhile, again perhaps, are left for the next time.
	for seq, last := uint64(1), s.CachedInfo().State.LastSeq; ; {
		m, err := s.GetMsg(ctx, seq, jetstream.WithGetMsgSubject(deadSubject(d.origin.name, d.group)))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if m.Sequence > last {
			return nil
		}
		seq = m.Sequence + 1
		l := deadLetter(m)
		if keep != nil && !keep(&l) {
			continue
		}
		if more, err := f(s, &l); err != nil || !more {
			return err
		}
	}
}

func deadLetter(m *jetstream.RawStreamMsg) DeadLetter {
	l := DeadLetter{
		Sequence: m.Sequence, ID: m.Header.Get(headerEventID), Type: m.Header.Get(headerType), Key: m.Header.Get(headerKey), Reason: m.Header.Get(headerDeadReason),
		Error: m.Header.Get(headerDeadError), Header: m.Header, Data: m.Data, Died: m.Time, subject: m.Header.Get(headerDeadSubject),
	}
	_, _ = fmt.Sscan(m.Header.Get(headerDeadAttempts), &l.Attempts) // zero says that somebody else wrote it
	_, _ = fmt.Sscan(m.Header.Get(headerDeadOrigin), &l.Origin)
	l.First, _ = time.Parse(time.RFC3339Nano, m.Header.Get(headerDeadFirst))
	l.Published, _ = time.Parse(time.RFC3339Nano, m.Header.Get(headerDeadSince))
	return l
}

// remove deletes a dead letter, first from the log: a power cut would bring it back.
func (d *DeadLetters) remove(ctx context.Context, s jetstream.Stream, l *DeadLetter) error {
	if d.q.redo != nil {
		rec := identityOf(s.CachedInfo()).deleted(l.Sequence, deadSubject(d.origin.name, d.group), l.Header.Get(headerID))
		if err := d.q.redo.append(ctx, Synced, rec); err != nil {
			return explained(err)
		}
	}
	return removeMsg(ctx, s, l.Sequence)
}

// removeMsg deletes a message that may have been deleted already.
func removeMsg(ctx context.Context, s jetstream.Stream, seq uint64) error {
	err := s.DeleteMsg(ctx, seq)
	if err == nil {
		return nil
	}
	if _, gone := s.GetMsg(ctx, seq); errors.Is(gone, jetstream.ErrMsgNotFound) {
		return nil
	}
	return fmt.Errorf("message %d is not taken away: %w", seq, explained(err))
}
