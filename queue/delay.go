package queue

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/stile-ipc/stile/queue/internal/redo"
)

// A message that is delayed is in a stream beside its topic's, whose subjects have one message each: that of an ID. It is either
//
//	waiting    with headerDue and headerToken
//	taken      with headerBy and headerToken: a mover hands it over
//	cancelled  with headerBy alone, for a moment
//
// and goes from waiting to taken or to cancelled by a message that replaces it, which the server stores if the one before is still the last of the
// subject. So one of the two happens, whoever asks for them. Either is smaller than what it replaces, and has room in a stream that is full.
const (
	headerPrefix   = "Stile-Later-"
	headerDue      = headerPrefix + "Due"   // ns since 1970
	headerToken    = headerPrefix + "Token" // tells the message from others of its ID
	headerTo       = headerPrefix + "To"    // its subject in the topic
	headerAs       = headerPrefix + "As"    // its headerID there
	headerBy       = headerPrefix + "By"    // who took or cancelled it
	headerExpected = "Nats-Expected-Last-Subject-Sequence"
)

const (
	// MaxDelay is the longest delay of a message.
	MaxDelay = 366 * 24 * time.Hour

	laterStreamEnd = "=later"  // no topic's stream ends so
	maxLater       = 1_000_000 // messages of a topic
	codeWrongLast  = 10071     // the subject's last message is another one
)

// Delay has the message handed to subscribers after d, [MaxDelay] at most; 0 or less: at once. See [At].
func Delay(d time.Duration) PublishOption { return At(time.Now().Add(d)) }

// At has the message handed to subscribers at a moment, [MaxDelay] from now at most; one that has passed: at once. Until then it is none of the
// topic's messages: [Keep] counts from that moment, and so do the two minutes of its [ID]; while it waits, another one that is delayed with that ID is a
// duplicate, and one that is not delayed is another message. A topic has a
// million such messages at most, and as many bytes of them as it may keep of others. Some process must have the topic open when
// the message is due, or it comes when one opens it.
func At(due time.Time) PublishOption { return func(p *publishing) { p.due = due } }

// publishLater keeps a message until it is due.
func (t *Topic[T]) publishLater(ctx context.Context, msg *nats.Msg, p publishing) (Receipt, error) {
	if time.Until(p.due) > MaxDelay {
		return Receipt{}, fmt.Errorf("it is due at %s: %s from now at most", p.due.Format(time.RFC3339), MaxDelay)
	}
	id := msg.Header[headerID][0]
	duplicate, err := t.mover.put(ctx, t.set.durability, laterSubject(t.stream.name, allGroups, id), msg, p.due, p.block)
	if err != nil {
		return Receipt{}, err
	}
	return Receipt{Topic: t.name, ID: id, Duplicate: duplicate}, nil
}

// Cancel takes a message back that was published with a delay, if it is not due yet. It reports whether it did: nobody has
// the message then, also after a power cut, if the topic is not [Buffered]. An error leaves it open, and Cancel can be called again: that it then
// returns false says that the message is handed over, or was cancelled.
func (t *Topic[T]) Cancel(ctx context.Context, id string) (bool, error) {
	done, err := t.mover.cancelled(ctx, t.set.durability, id)
	if err != nil {
		return false, fmt.Errorf("queue: topic %q: cancelling %q: %w", t.name, id, err)
	}
	return done, nil
}

// laterSubject is that of an ID, which may have characters that no subject can, among those of a group, or of allGroups.
func laterSubject(stream, group, id string) string {
	sum := sha256.Sum256([]byte(id))
	return "later." + stream + "." + group + "." + hex.EncodeToString(sum[:16])
}

// allGroups stands for messages that no group has had yet. No group has that name.
const allGroups = "="

// make returns the delay stream, made if it is not there.
func (m *mover) make(ctx context.Context) (jetstream.Stream, error) {
	if s := m.made.Load(); s != nil {
		return *s, nil
	}
	maxBytes, maxMsgs := m.maxBytes, int64(maxLater)
	if m.q.redo == nil { // with several servers, what is to take a message's place needs room beside it
		maxBytes, maxMsgs = maxBytes+maxBytes/4+m.q.nc.MaxPayload(), maxMsgs+maxMsgs/4
	}
	s, err := m.q.createStream(ctx, jetstream.StreamConfig{
		Name: m.name, Subjects: []string{"later." + m.topic + ".*.*"}, Description: "messages of the stile topic's stream " + m.topic + " that are not due yet",
		Storage: jetstream.FileStorage, Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardNew,
		MaxBytes: maxBytes, MaxMsgs: maxMsgs, MaxMsgsPerSubject: 1,
	})
	if err != nil {
		return nil, fmt.Errorf("delayed messages: %w", explained(err))
	}
	if err := m.q.settle(ctx); err != nil {
		return nil, err
	}
	m.made.Store(&s)
	m.wake()
	return s, nil
}

// put keeps a message of a topic until it is due, under a subject made of its ID. It reports whether another one is kept there already.
func (m *mover) put(ctx context.Context, d Durability, subject string, msg *nats.Msg, due time.Time, block bool) (duplicate bool, err error) {
	s, err := m.make(ctx)
	if err != nil {
		return false, err
	}
	if err := m.fits(ctx, s); err != nil {
		return false, err
	}
	h := maps.Clone(msg.Header)
	token := nuid.Next()
	h[headerDue] = []string{strconv.FormatInt(due.UnixNano(), 10)}
	h[headerToken], h[headerTo], h[headerAs] = []string{token}, []string{msg.Subject}, h[headerID]
	delete(h, headerID) // one that was cancelled may come again
	later := &nats.Msg{Subject: subject, Header: h, Data: msg.Data}
	for expected := uint64(0); ; {
		h[headerExpected] = []string{number(expected)}
		ack, err := m.q.store(ctx, later, block)
		if err == nil {
			return false, m.keep(ctx, s, d, ack.Sequence, later)
		}
		if !replaced(err) {
			return false, err
		}
		last, err := lastOf(ctx, s, later.Subject)
		switch {
		case err != nil:
			return false, err
		case last == nil:
			expected = 0
		case last.Header.Get(headerToken) == "": // cancelled
			expected = last.Sequence
		case last.Header.Get(headerToken) == token: // an answer was lost
			return false, m.keep(ctx, s, d, last.Sequence, later)
		default:
			return true, m.keep(ctx, s, d, last.Sequence, &nats.Msg{Subject: last.Subject, Header: last.Header, Data: last.Data})
		}
	}
}

// fits tells whether one more message may be delayed. An embedded server tells itself.
func (m *mover) fits(ctx context.Context, s jetstream.Stream) error {
	if m.q.redo != nil {
		return nil
	}
	info, err := s.Info(ctx)
	if err != nil {
		return explained(err)
	}
	if int64(info.State.Bytes) >= m.maxBytes || info.State.Msgs >= maxLater {
		return fmt.Errorf("%w: %d messages of %d bytes are not due yet", ErrFull, info.State.Msgs, info.State.Bytes)
	}
	return nil
}

func (m *mover) keep(ctx context.Context, s jetstream.Stream, d Durability, seq uint64, msg *nats.Msg) error {
	return explained(m.q.keep(ctx, identityOf(s.CachedInfo()), d, seq, msg))
}

// cancelled takes back the message of an ID, if it waits.
func (m *mover) cancelled(ctx context.Context, d Durability, id string) (bool, error) {
	s, err := m.find(ctx)
	if s == nil || err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, publishLimit)
	defer cancel()
	by, subject := newBy(), laterSubject(m.topic, allGroups, id)
	for unsure := ""; ; { // the token of what we may have cancelled
		last, err := lastOf(ctx, s, subject)
		if err != nil {
			return false, err
		}
		if last != nil && last.Header.Get(headerBy) == by {
			return true, m.forget(ctx, s, d, last.Sequence, subject, unsure)
		}
		due, waits, token := int64(0), false, ""
		if last != nil {
			due, waits = dueOf(last.Header)
			token = last.Header.Get(headerToken)
		}
		if unsure != "" && unsure != token {
			return false, ErrNoAnswer
		}
		if !waits || due <= m.now().UnixNano() {
			return false, nil
		}
		ack, err := m.q.asker.ask(ctx, &nats.Msg{Subject: subject, Header: nats.Header{headerBy: {by}, headerExpected: {number(last.Sequence)}}})
		switch {
		case err == nil:
			return true, m.forget(ctx, s, d, ack.Sequence, subject, token)
		case unanswered(err) && ctx.Err() == nil:
			unsure = token
		case !replaced(err):
			return false, explained(err)
		}
	}
}

// forget notes that a message was cancelled, which has a sequence now.
func (m *mover) forget(ctx context.Context, s jetstream.Stream, d Durability, seq uint64, subject, token string) error {
	if m.q.logs(d) {
		if err := m.q.redo.append(ctx, Synced, m.gone(s, seq, subject, token)); err != nil {
			return explained(err)
		}
	}
	_ = s.DeleteMsg(ctx, seq) // or a mover does
	return nil
}

// gone is the log's record of a message that waits no more. The token tells it from a later one.
func (m *mover) gone(s jetstream.Stream, seq uint64, subject, token string) redo.Record {
	return identityOf(s.CachedInfo()).deleted(seq, subject, token)
}

// dueOf is when a message is due that waits.
func dueOf(h nats.Header) (ns int64, waits bool) {
	ns, err := strconv.ParseInt(h.Get(headerDue), 10, 64)
	return ns, err == nil
}

// lastOf returns the last message of a subject; nil: there is none.
func lastOf(ctx context.Context, s jetstream.Stream, subject string) (*jetstream.RawStreamMsg, error) {
	m, err := s.GetLastMsgForSubject(ctx, subject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, nil
	}
	return m, explained(err)
}

// replaced tells whether a message was not stored because another one is the subject's last.
func replaced(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && api.ErrorCode == codeWrongLast
}

// isLater tells whether a stream has delayed messages.
func isLater(stream string) bool { return strings.HasSuffix(stream, laterStreamEnd) }
