package queue

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// oldestMessages is when the messages were published that consumers are to be done with first. A server tells it with the whole message alone,
// so it is asked again only when a consumer has come further, or a minute later: the message may have been deleted.
type oldestMessages struct {
	mu  sync.Mutex
	all map[string]oldestMessage // by stream and consumer
}

type oldestMessage struct {
	created   time.Time // the consumer
	subject   string
	floor     uint64 // how far it was
	seq       uint64
	published time.Time
	asked     time.Time
}

const (
	maxOldest   = 2 * maxGroups * partitions
	oldestKnown = time.Minute
)

// age is that of the oldest message that a consumer is not done with; 0: there is none, or ctx has no time left for it.
func (o *oldestMessages) age(ctx context.Context, s jetstream.Stream, info *jetstream.ConsumerInfo) (time.Duration, error) {
	if info.NumPending == 0 && info.NumAckPending == 0 {
		return 0, nil
	}
	ofMessages, cancel := ctx, context.CancelFunc(func() {})
	if deadline, has := ctx.Deadline(); has { // the rest is for numbers
		ofMessages, cancel = context.WithDeadline(ctx, deadline.Add(-lookWithin/2))
	}
	defer cancel()
	m, known := o.get(info, s.CachedInfo().State.FirstSeq)
	if known && (time.Since(m.asked) < oldestKnown || ofMessages.Err() != nil) {
		return time.Since(m.published), nil
	}
	got, err := oldestOf(ofMessages, s, info)
	if err != nil && ofMessages.Err() != nil && ctx.Err() == nil {
		return 0, nil
	}
	if err != nil || got == nil {
		return 0, err
	}
	o.put(info, got)
	return time.Since(got.Time), nil
}

func (o *oldestMessages) get(info *jetstream.ConsumerInfo, first uint64) (m oldestMessage, known bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	m = o.all[info.Stream+" "+info.Name]
	known = m.seq >= max(first, 1) && m.created.Equal(info.Created) && m.subject == info.Config.FilterSubject && m.floor == info.AckFloor.Stream
	return m, known
}

func (o *oldestMessages) put(info *jetstream.ConsumerInfo, got *jetstream.RawStreamMsg) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.all == nil || len(o.all) >= maxOldest {
		o.all = map[string]oldestMessage{}
	}
	o.all[info.Stream+" "+info.Name] = oldestMessage{
		created: info.Created, subject: info.Config.FilterSubject, floor: info.AckFloor.Stream, seq: got.Sequence, published: got.Time, asked: time.Now(),
	}
}

// oldestOf is the oldest message that a consumer is not done with; nil: there is none.
func oldestOf(ctx context.Context, s jetstream.Stream, info *jetstream.ConsumerInfo) (*jetstream.RawStreamMsg, error) {
	if info.NumPending == 0 && info.NumAckPending == 0 {
		return nil, nil
	}
	subject := info.Config.FilterSubject
	if subject == "" {
		subject = ">"
	}
	m, err := s.GetMsg(ctx, info.AckFloor.Stream+1, jetstream.WithGetMsgSubject(subject))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, nil
	}
	return m, err
}
