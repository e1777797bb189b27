package queue

import (
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
	"google.golang.org/protobuf/proto"
)

// Headers of a message: CloudEvents' in binary mode, and NATS's for the identity.
const (
	headerID          = "Nats-Msg-Id"
	headerSpec        = "ce-specversion"
	headerEventID     = "ce-id"
	headerSource      = "ce-source"
	headerType        = "ce-type"
	headerTime        = "ce-time"
	headerKey         = "ce-partitionkey"
	headerTrace       = "traceparent"
	headerTraceState  = "tracestate"
	headerContentType = "content-type"
	headerPolicy      = "stile-policy"
)

// address is what the envelopes of a topic's messages have in common.
type address struct {
	schema   string             // full name of the messages' type
	content  string             // content-type
	subjects [partitions]string // of the messages
	// Values of headers, which all messages share: nobody changes them.
	schemaValue, contentValue, sourceValue []string
}

var specValue = []string{"1.0"}

// addressOf makes a topic's address; hash is the type's, or empty.
func addressOf(topic, schema, hash string) address {
	a := address{schema: schema, schemaValue: []string{schema}, sourceValue: []string{"stile:topic:" + topic}, content: contentType}
	if hash != "" {
		a.content += schemaParam + hash
	}
	a.contentValue = []string{a.content}
	for i := range a.subjects {
		a.subjects[i] = subjectOf(topic, strconv.Itoa(i))
	}
	return a
}

// envelope makes a message of the topic.
func (t *Topic[T]) envelope(m T, p publishing, now time.Time) (*nats.Msg, error) {
	data, err := proto.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("it cannot be marshalled: %w", err)
	}
	key := ""
	if t.key != nil {
		key = t.key(m)
	}
	if t.q != nil && t.q.policy != nil {
		p.policy = headerText(t.q.policy())
	}
	return t.address.envelope(key, t.key != nil, data, p, now)
}

// envelope makes a message; without a key it goes where its ID has it.
func (a *address) envelope(key string, keyed bool, data []byte, p publishing, now time.Time) (*nats.Msg, error) {
	if p.id == "" {
		p.id = nuid.Next()
	}
	h := make(nats.Header, 8)
	values := make([]string, 0, 6) // of this message's own headers, in one piece
	set := func(name, value string) {
		values = append(values, value)
		h[name] = values[len(values)-1 : len(values) : len(values)]
	}
	h[headerSpec], h[headerSource], h[headerType], h[headerContentType] = specValue, a.sourceValue, a.schemaValue, a.contentValue
	set(headerID, p.id)
	h[headerEventID] = h[headerID]
	set(headerTime, now.UTC().Format(time.RFC3339Nano))
	if keyed {
		if !printable(key) {
			return nil, fmt.Errorf("the key %q has characters that no header can have", key)
		}
		set(headerKey, key)
	} else {
		key = p.id
	}
	if p.trace.parent != "" {
		set(headerTrace, p.trace.parent)
	}
	if p.trace.state != "" {
		set(headerTraceState, p.trace.state)
	}
	if p.policy != "" {
		set(headerPolicy, p.policy)
	}
	return &nats.Msg{Subject: a.subjects[partitionOf(key)], Header: h, Data: data}, nil
}

// room is what a message may grow by, in bytes: dead letters have more headers, and so have messages that were forwarded.
const room = 8 << 10

// fits returns [ErrTooLarge] if a message has no room to grow, or if even an empty topic has none for it.
func (t *Topic[T]) fits(m *nats.Msg) error {
	if size := int64(wireSize(m)); size > t.set.maxBytes {
		return fmt.Errorf("%w: %d bytes with its headers, and the topic keeps %d of all messages", ErrTooLarge, size, t.set.maxBytes)
	}
	return t.q.fits(m)
}

// fits returns [ErrTooLarge] if a message has no room to grow.
func (q *Queue) fits(m *nats.Msg) error {
	size := len(m.Data)
	for k, values := range m.Header {
		for _, v := range values {
			size += len(k) + len(v) + len(": \r\n")
		}
	}
	if most := int(q.nc.MaxPayload()) - room; size > most {
		return fmt.Errorf("%w: %d bytes with its headers, at most %d", ErrTooLarge, size, most)
	}
	return nil
}

// printable reports whether s can be a header's value and come back as it was.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] == 0x7f {
			return false
		}
	}
	return s == "" || s[0] != ' ' && s[len(s)-1] != ' '
}

// wireHeader is a header as NATS has it on the wire.
func wireHeader(h nats.Header) []byte { return appendHeader(make([]byte, 0, 512), h) }

func appendHeader(b []byte, h nats.Header) []byte {
	b = append(b, "NATS/1.0\r\n"...)
	for k, values := range h {
		for _, v := range values {
			b = append(append(append(append(b, k...), ": "...), v...), "\r\n"...)
		}
	}
	return append(b, "\r\n"...)
}
