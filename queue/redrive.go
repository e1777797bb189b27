package queue

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Redrive publishes dead letters that keep wants, all for nil, to their topic again, for their group alone, and takes them away. It returns how many it
// has. One that was interrupted, within the last two days, goes on where it was when it is called again.
func (d *DeadLetters) Redrive(ctx context.Context, keep func(*DeadLetter) bool) (int, error) {
	n := 0
	err := d.each(ctx, keep, func(s jetstream.Stream, l *DeadLetter) (bool, error) {
		if err := d.again(ctx, l); err != nil {
			return false, err
		}
		n++
		return true, d.remove(ctx, s, l)
	})
	return n, err
}

// again publishes a dead letter to its topic, unless somebody has who did not come to taking it away. The topic knows that for two minutes; for
// later there is a note among its messages' attempts, written before, and then the topic's messages from that time on are looked through.
func (d *DeadLetters) again(ctx context.Context, l *DeadLetter) error {
	died := l.Died.UTC().Format(time.RFC3339Nano)
	id := fmt.Sprintf("again %s %d %s", d.group, l.Sequence, died)
	note := &nats.Msg{Subject: "tries." + d.origin.name + "." + d.group + ".again-" + number(l.Sequence), Data: []byte(died)}
	begun, err := d.q.noteOf(ctx, d.origin.name, note)
	if err != nil {
		return err
	}
	if begun.IsZero() {
		err = d.q.keepTries(ctx, d.origin.name, note)
	} else {
		var there bool
		if there, err = d.q.has(ctx, d.origin.name, l.subject, id, begun); there {
			return nil
		}
	}
	if err != nil {
		return err
	}
	h := nats.Header{}
	for k, v := range l.Header {
		if !strings.HasPrefix(k, "Stile-Dead-") && k != headerAttempts && k != headerFirst {
			h[k] = v
		}
	}
	h[headerID] = []string{id}
	h[headerGroup] = []string{d.group}
	setOrigin(h, l.Origin, l.Published)
	msg := &nats.Msg{Subject: l.subject, Header: h, Data: l.Data}
	_, err = d.q.publish(ctx, d.topic, d.origin, Synced, msg, false)
	return err
}

// noteOf returns when a note was written that is like this one; zero: there is none.
func (q *Queue) noteOf(ctx context.Context, stream string, note *nats.Msg) (time.Time, error) {
	s, err := q.js.Stream(ctx, stream+triesStreamEnd)
	if err == nil {
		var m *jetstream.RawStreamMsg
		if m, err = s.GetLastMsgForSubject(ctx, note.Subject); err == nil && string(m.Data) == string(note.Data) {
			return m.Time, nil
		}
	}
	if errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, jetstream.ErrMsgNotFound) {
		err = nil
	}
	return time.Time{}, err
}
