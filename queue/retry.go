package queue

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// Headers of a message that was delayed for its group: how often it was tried before, and when the first attempt ended.
const (
	headerAttempts = "Stile-Attempts"
	headerFirst    = "Stile-First-Attempt"
)

// Headers of a message that is in the topic again: which one it was at first.
const (
	headerOrigin   = "Stile-Origin-Sequence"
	headerOriginAt = "Stile-Origin-Time"
)

// origin is the sequence and the time that a message had at first.
func (d delivery) origin() (seq uint64, at time.Time) {
	seq, err := strconv.ParseUint(d.Header.Get(headerOrigin), 10, 64)
	if err == nil {
		at, err = time.Parse(time.RFC3339Nano, d.Header.Get(headerOriginAt))
	}
	if err != nil {
		return d.seq, d.stored
	}
	return seq, at
}

func setOrigin(h nats.Header, seq uint64, at time.Time) {
	h[headerOrigin], h[headerOriginAt] = []string{number(seq)}, []string{at.UTC().Format(time.RFC3339Nano)}
}

// longWait is how long a message waits for its next attempt among those under way, of which a group has few. Longer it waits as a delayed message, for
// its group alone.
const longWait = time.Minute

// attempt is the number of the next attempt to handle a message, from 1.
func (d delivery) attempt() int {
	return d.before + d.tries.Ended + d.tries.Begun + 1
}

// retry has a message come again after a wait.
func (s *Subscription) retry(d delivery, o outcome) error {
	wait := o.wait
	if wait <= longWait || s.set.ordered {
		return s.nak(d, wait)
	}
	if err := s.delay(d, o); err != nil {
		s.q.log.Warn("queue: a message cannot be delayed and waits among those under way", "stream", s.stream, "group", s.group, "sequence", d.seq, "error", err)
		return s.nak(d, wait)
	}
	return s.ack(d)
}

// delay puts a message among the delayed ones, on disk.
func (s *Subscription) delay(d delivery, o outcome) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), s.q.publishLimit())
	defer cancel()
	h := nats.Header{}
	for k, v := range d.copyHeader() {
		if !strings.HasPrefix(k, headerPrefix) {
			h[k] = v
		}
	}
	// If the server is not told and delivers the message again, it is delayed under the same ID.
	id := fmt.Sprintf("retry %s %d %s", s.group, d.seq, d.stored.UTC().Format(time.RFC3339Nano))
	h[headerID], h[headerGroup], h[headerAttempts] = []string{id}, []string{s.group}, []string{strconv.Itoa(o.tries)}
	if !d.tries.First.IsZero() {
		h[headerFirst] = []string{d.tries.First.UTC().Format(time.RFC3339Nano)}
	}
	origin, since := d.origin()
	setOrigin(h, origin, since)
	_, err := s.mover.put(ctx, Synced, laterSubject(s.stream, s.group, id), &nats.Msg{Subject: string(d.Subject), Header: h, Data: d.Data}, s.mover.now().Add(o.wait), false)
	return err
}
