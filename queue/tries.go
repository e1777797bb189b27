package queue

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A server counts how often it has delivered a message, also when nobody began to handle it: what a process held when it ended comes again. So attempts
// are counted here, in a stream beside the topic's that has one message for each of its messages and groups: written after an attempt that is to be
// repeated, and before one of a message that was, or may have been, delivered before, so that it counts although the process may die over it.
// Notes of dead letters that are redriven are there, too.

const (
	triesStreamEnd = "=tries" // no topic's stream ends so
	triesBytes     = 16 << 20 // of a topic; then the oldest are forgotten
	// triesAge is longer than a message waits among those under way.
	triesAge = 48 * time.Hour
)

// tries is what is known of a message's attempts.
type tries struct {
	Ended  int       `json:"ended"`  // attempts whose outcome is known
	Begun  int       `json:"begun"`  // attempts of which nothing was heard
	First  time.Time `json:"first"`  // when the first one ended; zero: none has
	Stored time.Time `json:"stored"` // the message; after a power cut its sequence can be another one's
}

func triesSubject(stream, group string, seq uint64) string {
	return "tries." + stream + "." + group + "." + number(seq)
}

// counts tells whether attempts are counted.
func (s *Subscription) counts() bool { return s.set.attempts != forever }

// learn finds out how often a message was tried before. If nobody can say, it counts as often as it was delivered.
func (s *Subscription) learn(d *delivery) {
	d.doubtful = s.counts() && (d.times > 1 || s.firstAfterCrash())
	if d.doubtful && !s.remembers(d) {
		t, err := s.triesOf(*d)
		if err != nil {
			if s.ctx.Err() == nil {
				s.q.log.Warn("queue: it is not known how often a message was tried before; its deliveries count", "stream", s.stream, "group", s.group, "sequence", d.seq, "error", err)
			}
			t.Ended = d.times - 1
		}
		d.tries = t
	}
	if before := d.Header.Get(headerAttempts); before != "" {
		d.before, _ = strconv.Atoi(before) // nobody else writes it
		if first, err := time.Parse(time.RFC3339Nano, d.Header.Get(headerFirst)); err == nil {
			d.tries.First = first
		}
	}
}

// noted is what this process has noted of a message, and the delivery of which it was.
type noted struct {
	tries
	times int
}

// remembers tells whether the last delivery of a message was this process's: it knows what it has noted then.
func (s *Subscription) remembers(d *delivery) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, known := s.noted[d.seq]
	delete(s.noted, d.seq)
	if !known || n.times != d.times-1 || !n.Stored.Equal(d.stored) {
		return false
	}
	d.tries = n.tries
	return true
}

func (s *Subscription) remember(d delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.noted == nil || len(s.noted) >= maxUnderWay { // others have had them since
		s.noted = map[uint64]noted{}
	}
	s.noted[d.seq] = noted{d.tries, d.times}
}

// triesOf asks for what was noted of a message.
func (s *Subscription) triesOf(d delivery) (t tries, err error) {
	ctx, cancel := context.WithTimeout(s.ctx, answerWithin)
	defer cancel()
	stream, err := s.q.js.Stream(ctx, s.stream+triesStreamEnd)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return t, nil
	}
	if err != nil {
		return t, err
	}
	m, err := stream.GetLastMsgForSubject(ctx, triesSubject(s.stream, s.group, d.seq))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return t, nil
	}
	if err != nil {
		return t, err
	}
	if err := json.Unmarshal(m.Data, &t); err != nil {
		return tries{}, err
	}
	if !t.Stored.Equal(d.stored) {
		return tries{}, nil
	}
	return t, nil
}

// note keeps what is known of a message's attempts now. If that fails, those that are not known are made again.
func (s *Subscription) note(d delivery) {
	if !s.counts() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), answerWithin)
	defer cancel()
	d.tries.Stored = d.stored
	data, err := json.Marshal(d.tries)
	if err == nil {
		err = s.q.keepTries(ctx, s.stream, &nats.Msg{Subject: triesSubject(s.stream, s.group, d.seq), Data: data})
	}
	if err == nil {
		s.remember(d)
	} else {
		s.q.log.Warn("queue: an attempt is not counted", "stream", s.stream, "group", s.group, "sequence", d.seq, "error", err)
	}
}

func (q *Queue) keepTries(ctx context.Context, stream string, msg *nats.Msg) error {
	_, err := q.asker.ask(ctx, msg)
	if !nobodyListens(err) {
		return err
	}
	if _, err := q.createStream(ctx, jetstream.StreamConfig{
		Name: stream + triesStreamEnd, Subjects: []string{"tries." + stream + ".*.*"}, Description: "attempts to handle messages of the stile topic's stream " + stream,
		Storage: jetstream.FileStorage, Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardOld, MaxBytes: triesBytes, MaxAge: triesAge, MaxMsgsPerSubject: 1,
	}); err != nil {
		return err
	}
	_, err = q.asker.ask(ctx, msg)
	return err
}

// doubtfulFirst is how many messages a subscription may be given first that an embedded server had delivered before it crashed, and does not
// know it: it notes deliveries 100 ms late.
const doubtfulFirst = 1000

func (s *Subscription) firstAfterCrash() bool {
	return s.q.server != nil && s.q.server.Crashed() && s.learned.Add(1) <= doubtfulFirst
}

// begin is called before a message is handled.
func (s *Subscription) begin(d delivery) {
	if d.doubtful {
		d.tries.Begun++
		s.note(d)
	}
}

// end is called when it was.
func (s *Subscription) end(d *delivery, what verdict) {
	if (what == retried || what == died) && d.tries.First.IsZero() {
		d.tries.First = time.Now()
	}
	if what == retried {
		d.tries.Ended++
	}
	if what == retried || what == cut && d.doubtful { // then it is as if it had not begun
		s.note(*d)
	}
}
