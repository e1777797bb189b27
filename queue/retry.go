package queue

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// headerAttempts is how often a message was tried before it was delayed.
const headerAttempts = "Stile-Attempts"

// longWait is how long a message waits for its next attempt among those under way, of which a group has few. Longer it waits as a delayed message, for
// its group alone.
const longWait = time.Minute

// attempt is the number of the attempt to handle a message for which it was delivered, from 1.
func (d delivery) attempt() int {
	before, _ := strconv.Atoi(d.Header.Get(headerAttempts)) // nobody else writes it
	return before + d.times
}

// retry has a message come again after a wait.
func (s *Subscription) retry(d delivery, wait time.Duration) error {
	if wait <= longWait || s.set.ordered {
		return s.nak(d, wait)
	}
	if err := s.delay(d, wait); err != nil {
		s.q.log.Warn("queue: a message cannot be delayed and waits among those under way", "stream", s.stream, "group", s.group, "sequence", d.seq, "error", err)
		return s.nak(d, wait)
	}
	return s.ack(d)
}

// delay puts a message among the delayed ones, on disk.
func (s *Subscription) delay(d delivery, wait time.Duration) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), s.q.publishLimit())
	defer cancel()
	h := nats.Header{}
	for k, v := range d.copyHeader() {
		if !strings.HasPrefix(k, headerPrefix) {
			h[k] = v
		}
	}
	n := d.attempt()
	// If the server is not told and delivers the message again, it is delayed under the same ID.
	id := fmt.Sprintf("retry %s %d %s", s.group, d.seq, d.stored.UTC().Format(time.RFC3339Nano))
	h[headerID], h[headerGroup], h[headerAttempts] = []string{id}, []string{s.group}, []string{strconv.Itoa(n)}
	_, err := s.mover.put(ctx, Synced, id, &nats.Msg{Subject: string(d.Subject), Header: h, Data: d.Data}, s.mover.now().Add(wait), false)
	return err
}
