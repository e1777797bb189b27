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
		line := b
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			line, b = b[:i], b[i+1:]
		} else {
			b = nil
		}
		if i := bytes.IndexByte(line, ':'); i >= 0 {
			return line[:i], trimmed(line[i+1:]), b
		}
	}
	return nil, nil, nil
}

// trimmed is a header's value without what is around it.
func trimmed(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	if len(b) > 0 && b[len(b)-1] == '\r' {
		b = b[:len(b)-1]
	}
	return b
}

// envelope is what a message's headers say of it, as parts of them.
type envelope struct{ kind, content, id, key, time, trace []byte }

// envelope reads them all in one go.
func (h Header) envelope() (e envelope) {
	if h.raw == nil {
		get := func(name string) []byte { return []byte(h.parsed.Get(name)) }
		return envelope{get(headerType), get(headerContentType), get(headerEventID), get(headerKey), get(headerTime), get(headerTrace)}
	}
	for rest := h.raw; ; {
		var name, value []byte
		if name, value, rest = nextHeader(rest); name == nil {
			return e
		}
		switch string(name) {
		case headerType:
			e.kind = value
		case headerContentType:
			e.content = value
		case headerEventID:
			e.id = value
		case headerKey:
			e.key = value
		case headerTime:
			e.time = value
		case headerTrace:
			e.trace = value
		}
	}
}
