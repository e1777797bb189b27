package queue

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"maps"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// lookAgain is how often a process looks whether another one has begun to delay messages of a topic.
	lookAgain = 30 * time.Second
	// longestSleep is how late a message is at most when the clock jumps.
	longestSleep = time.Second
	// moveAgain is the wait after a message could not be handed over.
	moveAgain = time.Second
	// takenFor is when one that was taken by another process is handed over all the same: that process may be dead.
	takenFor = 5 * time.Second
	moving   = 64 // messages at once
)

// mover hands a topic's delayed messages over to it when they are due. Every process that has the topic open has one, and each message is taken by one
// of them; that another one hands it over again, after a crash, the message's ID hides.
type mover struct {
	q        *Queue
	topic    string // its stream
	target   atomic.Pointer[identity]
	name     string // of the delay stream
	maxBytes int64
	by       string
	now      func() time.Time
	began    time.Time
	cancel   context.CancelFunc
	done     chan struct{}
	woken    chan struct{} // the stream was made
	made     atomic.Pointer[jetstream.Stream]
	paused   atomic.Int64 // until when nothing more is taken, ns since 1970
}

// mover returns a topic's mover, begun if it is not there.
func (q *Queue) mover(target identity, maxBytes int64) *mover {
	q.mu.Lock()
	defer q.mu.Unlock()
	stream := target.name
	if m := q.movers[stream]; m != nil {
		m.target.Store(&target)
		return m
	}
	ctx, cancel := context.WithCancel(context.Background())
	m := &mover{
		q: q, topic: stream, name: stream + laterStreamEnd, maxBytes: maxBytes, by: newBy(), now: q.now, began: time.Now(),
		cancel: cancel, done: make(chan struct{}), woken: make(chan struct{}, 1),
	}
	m.target.Store(&target)
	if q.movers == nil {
		q.movers = map[string]*mover{}
	}
	q.movers[stream] = m
	go m.run(ctx)
	return m
}

// stopMovers returns when no message is being handed over.
func (q *Queue) stopMovers() {
	q.mu.Lock()
	movers := q.movers
	q.movers = nil
	q.mu.Unlock()
	for _, m := range movers {
		m.cancel()
	}
	for _, m := range movers {
		<-m.done
	}
}

// newBy returns a value of headerBy, which is short: what is taken has to be smaller than what waited.
func newBy() string {
	var b [6]byte
	rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// wake has the mover look for the stream.
func (m *mover) wake() {
	select {
	case m.woken <- struct{}{}:
	default:
	}
}

func (m *mover) run(ctx context.Context) {
	defer close(m.done)
	told := false
	for ctx.Err() == nil {
		wait := lookAgain
		s, err := m.find(ctx)
		if s != nil {
			err, wait = m.serve(ctx, s), moveAgain
		}
		if err != nil && ctx.Err() == nil {
			wait = moveAgain
			if !told {
				m.q.log.Warn("queue: delayed messages cannot be read now", "stream", m.name, "error", err)
			}
		}
		told = err != nil && s == nil // one that could be found was read for a while
		m.sleep(ctx, wait)
	}
}

func (m *mover) sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-m.woken:
	case <-ctx.Done():
	}
}

// find returns the stream; nil: it is not there.
func (m *mover) find(ctx context.Context) (jetstream.Stream, error) {
	s, err := m.q.js.Stream(ctx, m.name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		m.made.Store(nil)
		return nil, nil
	}
	if err != nil {
		return nil, explained(err)
	}
	m.made.Store(&s)
	return s, nil
}

// serve hands over what is due, until that fails or ctx ends.
func (m *mover) serve(ctx context.Context, s jetstream.Stream) error {
	cons, err := s.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{HeadersOnly: true})
	if err != nil {
		return explained(err)
	}
	list, failed := newAgenda(), make(chan error, 1)
	reading, err := cons.Consume(func(msg jetstream.Msg) { m.see(list, msg) }, jetstream.ConsumeErrHandler(func(_ jetstream.ConsumeContext, err error) {
		select {
		case failed <- err:
		default:
		}
	}))
	if err != nil {
		return explained(err)
	}
	defer reading.Stop()
	var moves sync.WaitGroup
	defer moves.Wait()
	room := make(chan struct{}, moving)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if seq, wait, ok := m.next(list); ok {
			select {
			case room <- struct{}{}:
			case <-ctx.Done():
				return nil
			}
			moves.Go(func() {
				m.one(ctx, s, list, seq)
				<-room
			})
			continue
		} else {
			timer.Reset(wait)
		}
		select {
		case <-timer.C:
		case <-list.sooner:
		case err := <-failed:
			return explained(err)
		case <-ctx.Done():
			return nil
		}
	}
}

// next takes what is due, or tells how long there is nothing to do.
func (m *mover) next(list *agenda) (seq uint64, wait time.Duration, ok bool) {
	now := m.now().UnixNano()
	if until := m.paused.Load(); until > now {
		return 0, min(time.Duration(until-now), moveAgain), false
	}
	seq, at, ok := list.take(now)
	if ok || at == 0 {
		return seq, lookAgain, ok
	}
	return 0, min(time.Duration(at-now), longestSleep), false
}

// see takes in that there is a message.
func (m *mover) see(list *agenda, msg jetstream.Msg) {
	meta, err := msg.Metadata()
	if err != nil { // not of JetStream
		m.q.log.Error("queue: a delayed message without metadata", "stream", m.name, "error", err)
		return
	}
	seq, h := meta.Sequence.Stream, msg.Headers()
	at, waits := dueOf(h)
	if !waits { // it is looked after, if it is still there then
		if h.Get(headerBy) == m.by {
			return
		}
		if was, err := strconv.ParseUint(h.Get(headerExpected), 10, 64); err == nil {
			list.drop(was)
		}
		if m.q.server == nil || meta.Timestamp.After(m.began) {
			at = m.now().Add(takenFor).UnixNano()
		}
	}
	list.add(appointment{at, seq})
}

// one hands a message over, or puts it on the list again.
func (m *mover) one(ctx context.Context, s jetstream.Stream, list *agenda, seq uint64) {
	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), publishLimit) // what was begun is ended
	defer cancel()
	seq, err := m.move(within, s, seq)
	if err == nil || ctx.Err() != nil {
		return
	}
	now := m.now()
	again := now.Add(moveAgain).UnixNano()
	if m.paused.Swap(again) < now.UnixNano() { // else it was said
		m.q.log.Warn("queue: delayed messages cannot be handed over now", "stream", m.name, "sequence", seq, "error", err)
	}
	list.add(appointment{again, seq})
}

// move hands a message over, if it is still there. It returns what its sequence is now.
func (m *mover) move(ctx context.Context, s jetstream.Stream, seq uint64) (uint64, error) {
	msg, err := s.GetMsg(ctx, seq)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return seq, nil // taken or cancelled
	}
	if err != nil {
		return seq, explained(err)
	}
	token := msg.Header.Get(headerToken)
	if token == "" {
		return seq, removeMsg(ctx, s, seq)
	}
	if _, waits := dueOf(msg.Header); waits {
		taken, err := m.take(ctx, s, msg)
		if err != nil || taken == 0 {
			return seq, err
		}
		seq = taken
	} else if there, err := m.handedOver(ctx, msg); there || err != nil {
		if err != nil {
			return seq, err
		}
		return seq, removeMsg(ctx, s, seq)
	}
	due := dueMessage(msg)
	ack, err := m.q.store(ctx, due, false)
	if err != nil {
		return seq, err
	}
	if m.q.logs(Synced) {
		if err := m.q.redo.append(ctx, Synced, m.target.Load().record(ack.Sequence, due), m.gone(s, seq, msg.Subject, token)); err != nil {
			return seq, explained(err)
		}
	}
	return seq, removeMsg(ctx, s, seq)
}

// handedOver tells whether the topic has a message already that somebody took, who did not come to taking it away. The topic knows its ID itself at first.
func (m *mover) handedOver(ctx context.Context, taken *jetstream.RawStreamMsg) (bool, error) {
	if m.now().Sub(taken.Time) < doubtAfter {
		return false, nil
	}
	return m.q.has(ctx, m.topic, taken.Header.Get(headerTo), taken.Header.Get(headerAs), taken.Time)
}

// take makes a message that waits one that is taken, and returns its sequence; 0: another has taken or cancelled it.
func (m *mover) take(ctx context.Context, s jetstream.Stream, msg *jetstream.RawStreamMsg) (uint64, error) {
	h := maps.Clone(msg.Header)
	delete(h, headerDue)
	h[headerBy], h[headerExpected] = []string{m.by}, []string{number(msg.Sequence)}
	ack, err := m.q.store(ctx, &nats.Msg{Subject: msg.Subject, Header: h, Data: msg.Data}, false)
	if !replaced(err) {
		return ack.Sequence, err
	}
	last, err := lastOf(ctx, s, msg.Subject)
	if err != nil || last == nil || last.Header.Get(headerBy) != m.by || last.Header.Get(headerToken) != msg.Header.Get(headerToken) {
		return 0, err
	}
	return last.Sequence, nil // an answer was lost
}

// dueMessage is a delayed message as the topic has it.
func dueMessage(msg *jetstream.RawStreamMsg) *nats.Msg {
	h := nats.Header{headerID: msg.Header[headerAs]}
	for k, v := range msg.Header {
		if !strings.HasPrefix(k, headerPrefix) && k != headerExpected {
			h[k] = v
		}
	}
	return &nats.Msg{Subject: msg.Header.Get(headerTo), Header: h, Data: msg.Data}
}
