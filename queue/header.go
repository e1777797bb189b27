package queue

import (
	"bytes"

	"github.com/nats-io/nats.go"
)

// Header is a message's headers. Its zero value has none.
type Header struct {
	raw    []byte      // as they came
	parsed nats.Header // instead of raw
}

// Get returns a header's first value, or an empty string.
func (h Header) Get(name string) string {
	if h.raw == nil {
		return h.parsed.Get(name)
	}
	rest := h.raw
	for {
		var key, value []byte
		if key, value, rest = nextHeader(rest); key == nil {
			return ""
		}
		if string(key) == name {
			return string(value)
		}
	}
}

// Map returns all headers, as a copy that is the caller's.
func (h Header) Map() nats.Header {
	all := nats.Header{}
	for name, values := range h.parsed {
		all[name] = append([]string(nil), values...)
	}
	rest := h.raw
	for {
		var key, value []byte
		if key, value, rest = nextHeader(rest); key == nil {
			return all
		}
		all.Add(string(key), string(value))
	}
}

// nextHeader reads a line NAME: VALUE; name is nil if there is none. The first line of all headers, with the protocol's version, has no colon.
func nextHeader(b []byte) (name, value, rest []byte) {
	for len(b) > 0 {
		line, after, _ := bytes.Cut(b, []byte("\r\n"))
		if name, value, ok := bytes.Cut(line, []byte(":")); ok {
			return name, bytes.TrimSpace(value), after
		}
		b = after
	}
	return nil, nil, nil
}
