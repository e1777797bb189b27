package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// For tools, which know of a topic by its name alone.

// TopicInfo is what there is of a topic.
type TopicInfo struct {
	Name     string        `json:"name"`
	Type     string        `json:"type"` // full name of its messages'
	Messages uint64        `json:"messages"`
	Bytes    uint64        `json:"bytes"`
	Delayed  uint64        `json:"delayed"` // messages that are not due yet, and none of those
	MaxBytes int64         `json:"maxBytes"`
	MaxAge   time.Duration `json:"maxAge"` // ns
	First    uint64        `json:"first"`  // sequence of the oldest message
	Last     uint64        `json:"last"`   // that of the newest there was
	Oldest   time.Time     `json:"oldest"`
	Newest   time.Time     `json:"newest"`
	Groups   []string      `json:"groups"`
	Created  time.Time     `json:"created"` // on its server: with its name, which one it is
}

// RawMsg is a message whose Go type is not known.
type RawMsg struct {
	ID        string      `json:"id"`
	Type      string      `json:"type"` // full name
	Key       string      `json:"key,omitempty"`
	Sequence  uint64      `json:"sequence"`
	Published time.Time   `json:"published"`
	Header    nats.Header `json:"header,omitempty"`
	Data      []byte      `json:"data"`
}

// What is asked for by name may not be there.
var (
	ErrNoTopic = errors.New("there is no such topic")
	ErrNoGroup = errors.New("nobody has subscribed as that group")
)

// schemaKey is where a stream says what its messages are.
const schemaKey = "stile-schema"

// Topics returns all topics that the server has, by name.
func (q *Queue) Topics(ctx context.Context) ([]TopicInfo, error) {
	all := []TopicInfo{}
	list := q.js.ListStreams(ctx)
	for info := range list.Info() {
		if info.Config.Metadata[schemaKey] == "" {
			continue // its dead letters, and what is not ours
		}
		t, err := q.topicInfo(ctx, info)
		if err != nil {
			return nil, fmt.Errorf("queue: %w", err)
		}
		all = append(all, t)
	}
	if err := list.Err(); err != nil {
		return nil, fmt.Errorf("queue: topics: %w", explained(err))
	}
	slices.SortFunc(all, func(a, b TopicInfo) int { return cmp.Compare(a.Name, b.Name) })
	return all, nil
}

// Topic returns what there is of one topic, or [ErrNoTopic].
func (q *Queue) Topic(ctx context.Context, name string) (TopicInfo, error) {
	_, info, err := q.stream(ctx, name)
	if err == nil {
		var t TopicInfo
		if t, err = q.topicInfo(ctx, info); err == nil {
			return t, nil
		}
	}
	return TopicInfo{}, fmt.Errorf("queue: topic %q: %w", name, err)
}

func (q *Queue) topicInfo(ctx context.Context, info *jetstream.StreamInfo) (TopicInfo, error) {
	s, c := &info.State, &info.Config
	t := TopicInfo{
		Name: strings.ReplaceAll(c.Name, "~", "."), Type: c.Metadata[schemaKey], Messages: s.Msgs, Bytes: s.Bytes, MaxBytes: c.MaxBytes, MaxAge: c.MaxAge,
		First: s.FirstSeq, Last: s.LastSeq, Oldest: s.FirstTime, Newest: s.LastTime, Groups: []string{}, Created: info.Created,
	}
	later, err := q.js.Stream(ctx, c.Name+laterStreamEnd)
	switch {
	case err == nil:
		t.Delayed = later.CachedInfo().State.Msgs
	case !errors.Is(err, jetstream.ErrStreamNotFound):
		return t, explained(err)
	}
	stream, err := q.js.Stream(ctx, c.Name)
	if err != nil {
		return t, explained(err)
	}
	names := stream.ConsumerNames(ctx)
	for n := range names.Name() {
		group, _, _ := strings.Cut(n, "=") // that of a partition
		t.Groups = append(t.Groups, group)
	}
	slices.Sort(t.Groups)
	t.Groups = slices.Compact(t.Groups)
	return t, explained(names.Err())
}

// stream returns a topic's stream.
func (q *Queue) stream(ctx context.Context, topic string) (jetstream.Stream, *jetstream.StreamInfo, error) {
	if !topicName.MatchString(topic) {
		return nil, nil, ErrNoTopic
	}
	s, err := q.js.Stream(ctx, streamName(topic))
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return nil, nil, ErrNoTopic
	case err != nil:
		return nil, nil, explained(err)
	case s.CachedInfo().Config.Metadata[schemaKey] == "":
		return nil, nil, fmt.Errorf("%w: the stream is not one of ours", ErrNoTopic)
	}
	return s, s.CachedInfo(), nil
}

// GroupStats is how a group of a topic is doing. Handlers' times are known to their own process alone: [Subscription.Stats].
func (q *Queue) GroupStats(ctx context.Context, topic, group string) (Stats, error) {
	s, _, err := q.stream(ctx, topic)
	if err == nil {
		var st Stats
		if st, err = q.groupStats(ctx, s, group); err == nil {
			return st, nil
		}
	}
	return Stats{}, fmt.Errorf("queue: topic %q, group %q: %w", topic, group, err)
}

// Peek returns up to most messages of a topic from a sequence on, and takes none away.
func (q *Queue) Peek(ctx context.Context, topic string, from uint64, most int) ([]RawMsg, error) {
	all, err := q.peek(ctx, topic, from, most)
	if err != nil {
		return nil, fmt.Errorf("queue: topic %q: %w", topic, err)
	}
	return all, nil
}

func (q *Queue) peek(ctx context.Context, topic string, from uint64, most int) ([]RawMsg, error) {
	s, _, err := q.stream(ctx, topic)
	if err != nil {
		return nil, err
	}
	all := []RawMsg{}
	for from = max(from, 1); len(all) < most; from++ {
		m, err := s.GetMsg(ctx, from, jetstream.WithGetMsgSubject(">"))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return all, nil
		}
		if err != nil {
			return nil, explained(err)
		}
		from = m.Sequence
		one := RawMsg{ID: m.Header.Get(headerEventID), Type: m.Header.Get(headerType), Key: m.Header.Get(headerKey), Sequence: m.Sequence, Published: m.Time, Header: m.Header, Data: m.Data}
		if at, err := time.Parse(time.RFC3339Nano, m.Header.Get(headerTime)); err == nil {
			one.Published = at
		}
		all = append(all, one)
	}
	return all, nil
}

// PublishRaw publishes a message of which ID, Type, Key and Data are set; an empty Type is the topic's. The receipt says that it is on
// disk, where that can be had: [Synced].
func (q *Queue) PublishRaw(ctx context.Context, topic string, m RawMsg, opts ...PublishOption) (Receipt, error) {
	r, err := q.publishRaw(ctx, topic, m, publishingOf(ctx, opts))
	if err != nil {
		return Receipt{}, fmt.Errorf("queue: topic %q: %w", topic, err)
	}
	return r, nil
}

func (q *Queue) publishRaw(ctx context.Context, topic string, m RawMsg, p publishing) (Receipt, error) {
	_, info, err := q.stream(ctx, topic)
	if err != nil {
		return Receipt{}, err
	}
	if m.ID != "" {
		p.id = m.ID
	}
	if !p.due.IsZero() {
		return Receipt{}, errors.New("it cannot be delayed")
	}
	schema := info.Config.Metadata[schemaKey]
	if m.Type != "" && m.Type != schema {
		return Receipt{}, fmt.Errorf("its messages are %s, not %s", schema, m.Type)
	}
	if err := p.check(); err != nil {
		return Receipt{}, err
	}
	to := addressOf(topic, schema, "")
	msg, err := to.envelope(m.Key, m.Key != "", m.Data, p, time.Now())
	if err != nil {
		return Receipt{}, err
	}
	if err := q.fits(msg); err != nil {
		return Receipt{}, err
	}
	return q.publish(ctx, topic, identityOf(info), Synced, msg, p.block)
}

// DeadLetters returns a group's dead letters of a topic.
func (q *Queue) DeadLetters(ctx context.Context, topic, group string) (*DeadLetters, error) {
	_, info, err := q.stream(ctx, topic)
	if err != nil {
		return nil, fmt.Errorf("queue: topic %q: %w", topic, err)
	}
	return &DeadLetters{q: q, topic: topic, origin: identityOf(info), group: group}, nil
}
