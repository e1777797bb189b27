package queue

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	"github.com/stile-ipc/stile/telemetry"
)

// Durability is what a receipt says.
type Durability int

const (
	// Synced: the message is on disk. It is there after a power cut.
	Synced Durability = iota
	// Bounded: it is on disk within 100 ms, on a disk that keeps up. A power cut can take what was published in 100 ms, and no more: while
	// the disk takes longer, Publish waits.
	Bounded
	// Buffered: the server has it. A power cut can take what was published in the last two minutes; the
	// end of the process takes nothing.
	Buffered
)

// String returns the level's name.
func (d Durability) String() string {
	switch d {
	case Synced:
		return "Synced"
	case Bounded:
		return "Bounded"
	case Buffered:
		return "Buffered"
	}
	return "Durability(" + strconv.Itoa(int(d)) + ")"
}

// partitions is how many subjects a topic's messages are spread over, by key. It cannot change while a topic lives.
const partitions = 16

// Topic is where messages of one type are published. Its methods are safe for concurrent use.
type Topic[T proto.Message] struct {
	q      *Queue
	name   string
	stream identity
	address
	key   func(T) string // nil: messages have none
	mover *mover
	set   topicSettings
	sends *telemetry.Route // counts messages; nil: nothing does
}

type topicSettings struct {
	durability Durability
	key        any // nil, or a func(T) string
	maxBytes   int64
	maxAge     time.Duration
	window     time.Duration
}

// TopicOption says how a topic is.
type TopicOption func(*topicSettings)

// KeyBy gives each message a key, which tells what belongs together: messages of one key have the order in which they were published, for those who
// subscribe [Ordered]. A key that most messages have is handled by one handler at a time there, however many there are. A publisher that has no KeyBy
// gives its messages no key, and Ordered takes them for those of one.
func KeyBy[T proto.Message](key func(T) string) TopicOption {
	return func(s *topicSettings) { s.key = key }
}

// Durable sets what a receipt says; the default is [Synced].
func Durable(d Durability) TopicOption {
	return func(s *topicSettings) { s.durability = d }
}

// Keep sets how long a message is kept, delivered or not, and how many bytes all may have; the defaults are 72 hours and 1 GiB. What is older is
// lost for groups that have not had it; when the bytes are reached, Publish returns [ErrFull].
func Keep(maxAge time.Duration, maxBytes int64) TopicOption {
	return func(s *topicSettings) { s.maxAge, s.maxBytes = maxAge, maxBytes }
}

var topicName = regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$`)

const (
	maxTopicName  = 128
	defaultMaxAge = 72 * time.Hour
	defaultBytes  = 1 << 30
	// idWindow is how long a message's ID is known to be a duplicate.
	idWindow = 2 * time.Minute
)

// NewTopic returns the topic of a name, made on the server if it is not there; while the servers cannot make it they are asked again, for 30 s. How long a topic that is
// there keeps how much stays as it is; anything else is an error. [Durable] and [KeyBy] are this publisher's: others of the topic may have theirs.
func NewTopic[T proto.Message](q *Queue, name string, opts ...TopicOption) (*Topic[T], error) {
	if q == nil {
		return nil, fmt.Errorf("queue: topic %q: there is no Queue", name)
	}
	t := &Topic[T]{q: q, name: name, sends: q.counts.route(telemetry.Client, name)}
	t.set = topicSettings{maxAge: defaultMaxAge, maxBytes: defaultBytes, window: idWindow}
	for _, o := range opts {
		if o != nil {
			o(&t.set)
		}
	}
	if err := t.open(); err != nil {
		return nil, fmt.Errorf("queue: topic %q: %w", name, err)
	}
	return t, nil
}

func (t *Topic[T]) open() error {
	if !topicName.MatchString(t.name) || len(t.name) > maxTopicName {
		return fmt.Errorf("a name has letters, digits, - and _, in parts between dots, and %d bytes at most", maxTopicName)
	}
	if t.set.maxAge < t.set.window || t.set.maxBytes <= 0 || t.set.durability < Synced || t.set.durability > Buffered {
		return fmt.Errorf("kept are %d bytes for %s, %s: there must be a byte and %s at least", t.set.maxBytes, t.set.maxAge, t.set.durability, t.set.window)
	}
	if t.q.redo == nil && t.set.durability == Bounded {
		return errors.New("no topic is Bounded but on embedded servers; elsewhere the server's sync_interval holds")
	}
	if t.set.key != nil {
		key, ok := t.set.key.(func(T) string)
		if ok && key == nil {
			return errors.New("KeyBy has no function")
		}
		if !ok {
			return fmt.Errorf("KeyBy has a %T for messages of %T", t.set.key, *new(T))
		}
		t.key = key
	}
	var zero T
	if any(zero) == nil {
		return fmt.Errorf("%T is not the type of one kind of messages: name a generated one", &zero)
	}
	d := zero.ProtoReflect().Descriptor()
	t.address = addressOf(t.name, string(d.FullName()), schemaHash(d))
	ctx := context.Background()
	s, err := t.q.createStream(ctx, jetstream.StreamConfig{
		Name: streamName(t.name), Subjects: []string{subjectOf(t.name, "*")}, Description: "stile topic of " + t.schema,
		Storage: jetstream.FileStorage, Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardNew,
		MaxBytes: t.set.maxBytes, MaxAge: t.set.maxAge, Duplicates: t.set.window, AllowAtomicPublish: true,
		Metadata: map[string]string{schemaKey: t.schema},
	})
	if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		return fmt.Errorf("it is there with other settings, or of another type: %w", err)
	}
	if err != nil {
		return explained(err)
	}
	t.stream = identityOf(s.CachedInfo())
	if err := t.q.settle(ctx); err != nil {
		return err
	}
	t.q.full.open(t.name, t.stream)
	t.mover = t.q.mover(t.stream, t.set.maxBytes)
	return nil
}

// Name returns the topic's name.
func (t *Topic[T]) Name() string { return t.name }

// streamName is the stream of a topic: its name, in which dots are not allowed.
func streamName(topic string) string { return strings.ReplaceAll(topic, ".", "~") }

// subjectOf is a subject of a topic, or all for "*".
func subjectOf(topic, partition string) string { return "q." + streamName(topic) + "." + partition }

// partitionOf is where messages of a key go: their FNV-1a hash, as in NATS's own partitions.
func partitionOf(key string) int {
	h := uint32(2166136261)
	for i := range len(key) {
		h = (h ^ uint32(key[i])) * 16777619
	}
	return int(h % partitions)
}
