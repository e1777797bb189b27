package queue

import (
	"fmt"
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
	headerContentType = "content-type"
)

const contentType = "application/protobuf"

// envelope makes a message of the topic.
func (t *Topic[T]) envelope(m T, p publishing, now time.Time) (*nats.Msg, error) {
	data, err := proto.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("it cannot be marshalled: %w", err)
	}
	if p.id == "" {
		p.id = nuid.Next()
	}
	key := p.id
	h := make(nats.Header, 9)
	h[headerID] = []string{p.id}
	h[headerSpec] = []string{"1.0"}
	h[headerEventID] = []string{p.id}
	h[headerSource] = []string{"stile:topic:" + t.name}
	h[headerType] = []string{t.schema}
	h[headerTime] = []string{now.UTC().Format(time.RFC3339Nano)}
	h[headerContentType] = []string{contentType}
	if t.key != nil {
		key = t.key(m)
		if !printable(key) {
			return nil, fmt.Errorf("the key %q has characters that no header can have", key)
		}
		h[headerKey] = []string{key}
	}
	if p.trace != "" {
		h[headerTrace] = []string{p.trace}
	}
	return &nats.Msg{Subject: subjectOf(t.name, partitionOf(key)), Header: h, Data: data}, nil
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

// appendHeader writes a header as NATS has it on the wire.
func appendHeader(b []byte, h nats.Header) []byte {
	b = append(b, "NATS/1.0\r\n"...)
	for k, values := range h {
		for _, v := range values {
			b = append(append(append(append(b, k...), ": "...), v...), "\r\n"...)
		}
	}
	return append(b, "\r\n"...)
}
