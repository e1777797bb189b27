package wire

import (
	"bytes"
	"encoding/binary"
	"math"
	"time"
)

const (
	callCacheSize  = 8
	callCacheBytes = 1 << 10 // a longer section is not kept
)

// CallCache parses [Call] sections, most of which differ from an earlier one of
// the same connection in their timeout, metadata and trace only. The zero value is
// ready. It keeps at most 8 KiB and is for one goroutine at a time.
type CallCache struct {
	entries [callCacheSize]cachedCall
	next    int // entry to replace
}

// cachedCall is a call without timeout, metadata and trace, and its encoding.
type cachedCall struct {
	method []byte // the first field
	fixed  []byte // all between timeout and metadata
	call   Call
}

// Parse is [ParseCall]. The strings of results may be shared, their metadata is not.
func (c *CallCache) Parse(b []byte, limit int) (Call, error) {
	for i := range c.entries {
		e := &c.entries[i]
		if e.method == nil || !bytes.HasPrefix(b, e.method) {
			continue
		}
		timeout, n := binary.Uvarint(b[len(e.method):])
		if n <= 0 || timeout > math.MaxInt64 {
			continue
		}
		if md, ok := bytes.CutPrefix(b[len(e.method)+n:], e.fixed); ok {
			return e.with(time.Duration(timeout), md, limit)
		}
	}
	call, err := ParseCall(b, limit)
	if err == nil {
		c.keep(call)
	}
	return call, err
}

// with is the call with another timeout, metadata and trace.
func (e *cachedCall) with(timeout time.Duration, md []byte, limit int) (Call, error) {
	call := e.call
	call.Timeout = timeout
	if len(md) == 1 && md[0] == 0 {
		return call, nil
	}
	r := reader{s: string(md)}
	call.MD = r.md(limit)
	call.Trace = r.trace()
	return call, r.end("call")
}

// keep remembers a call. The encoding is made anew, so that one that is unusual
// (a number may be written with more bytes than it takes) is never matched.
func (c *CallCache) keep(call Call) {
	call.Timeout, call.MD, call.Trace = 0, nil, nil
	b := AppendCall(nil, &call)
	if len(b) > callCacheBytes {
		return
	}
	// Made of b alone: the strings of call hold on to the whole section it came in.
	call, err := ParseCall(b, 0)
	if err != nil {
		return
	}
	n := len(appendString(nil, call.Method))
	c.entries[c.next] = cachedCall{method: b[:n:n], fixed: b[n+1 : len(b)-1], call: call}
	c.next = (c.next + 1) % callCacheSize
}
