package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"
)

// MD is call metadata: lower-case keys, any number of values each. Values of keys
// that end in "-bin" are raw bytes.
type MD map[string][]string

// Call is the section that opens a call.
type Call struct {
	Method         string        // "/package.Service/Method"
	Timeout        time.Duration // until the deadline as the client sent it; 0: no deadline
	Authority      string
	UserAgent      string
	ContentSubtype string // "" means proto
	Encoding       string // compressor of the request messages, "" or "identity": none
	AcceptEncoding string // comma-separated compressors the client can read
	MD             MD
	Trace          *Trace // nil: the call is in none; for a server that has said that it reads them
}

// Trace says which trace a call belongs to, and which span of it has made the call.
type Trace struct {
	ID   [16]byte
	Span uint64
}

// traceSize is what a trace takes: its ID, and the span's.
const traceSize = 16 + 8

// Head is the section with the response header.
type Head struct {
	ContentSubtype string
	Encoding       string // compressor of the response messages
	MD             MD
}

// Trailer is the section that ends a call.
type Trailer struct {
	Code    uint32
	Message string
	MD      MD
	Times   Times // for a client that has said that it reads them
}

// Times tells where a call was at its server. The zero value: it is not said.
type Times struct {
	Known   bool
	Queue   time.Duration // from when the call was received until its handler began
	Handler time.Duration // from then until its answer was encoded
}

// Reset is the payload of a TypeReset frame.
type Reset struct {
	Code    uint32 // gRPC status code, or ResetRefused
	Message string
}

// ResetRefused is the code of a Reset for a call that the server did not look at,
// so that the client may make it again elsewhere.
const ResetRefused = 1<<32 - 1

// sectionPrefix is the size of a section's length.
const sectionPrefix = 4

// BeginSection appends room for a section's length. What is appended after it,
// until EndSection, is the section.
func BeginSection(b []byte) []byte { return append(b, 0, 0, 0, 0) }

// EndSection fills in the length of the section that BeginSection began when b
// was at bytes long.
func EndSection(b []byte, at int) []byte {
	binary.LittleEndian.PutUint32(b[at:], uint32(len(b)-at-sectionPrefix))
	return b
}

// CutSection splits a length-prefixed section off the front of b.
func CutSection(b []byte) (section, rest []byte, err error) {
	if len(b) < sectionPrefix {
		return nil, nil, fmt.Errorf("%w: section length in %d bytes", ErrMalformed, len(b))
	}
	n := binary.LittleEndian.Uint32(b)
	b = b[sectionPrefix:]
	if uint64(n) > uint64(len(b)) {
		return nil, nil, fmt.Errorf("%w: section of %d bytes in %d", ErrMalformed, n, len(b))
	}
	return b[:n], b[n:], nil
}

// AppendCall appends c without a length.
func AppendCall(b []byte, c *Call) []byte {
	b = appendString(b, c.Method)
	b = binary.AppendUvarint(b, uint64(max(c.Timeout, 0)))
	b = appendString(b, c.Authority)
	b = appendString(b, c.UserAgent)
	b = appendString(b, c.ContentSubtype)
	b = appendString(b, c.Encoding)
	b = appendString(b, c.AcceptEncoding)
	b = appendMD(b, c.MD)
	if t := c.Trace; t != nil {
		b = binary.LittleEndian.AppendUint64(append(b, t.ID[:]...), t.Span)
	}
	return b
}

// ParseCall decodes what AppendCall wrote. The result does not alias b. limit
// bounds the metadata, see [ErrHeaderList].
func ParseCall(b []byte, limit int) (Call, error) {
	r := reader{s: string(b)}
	c := Call{Method: r.str()}
	timeout := r.uvarint()
	c.Authority, c.UserAgent, c.ContentSubtype = r.str(), r.str(), r.str()
	c.Encoding, c.AcceptEncoding = r.str(), r.str()
	c.MD = r.md(limit)
	c.Trace = r.trace()
	if timeout > uint64(1<<63-1) {
		r.fail("timeout")
	}
	c.Timeout = time.Duration(timeout)
	return c, r.end("call")
}

// AppendHead appends h without a length.
func AppendHead(b []byte, h *Head) []byte {
	b = appendString(b, h.ContentSubtype)
	b = appendString(b, h.Encoding)
	return appendMD(b, h.MD)
}

// ParseHead decodes what AppendHead wrote, with limit as in [ParseCall]. The
// result does not alias b.
func ParseHead(b []byte, limit int) (Head, error) {
	if isZero(b) {
		return Head{}, nil
	}
	r := reader{s: string(b)}
	h := Head{ContentSubtype: r.str(), Encoding: r.str(), MD: r.md(limit)}
	return h, r.end("header")
}

// AppendTrailer appends t without a length.
func AppendTrailer(b []byte, t *Trailer) []byte {
	b = binary.AppendUvarint(b, uint64(t.Code))
	b = appendString(b, t.Message)
	b = appendMD(b, t.MD)
	if t.Times.Known {
		b = binary.AppendUvarint(b, uint64(max(t.Times.Queue, 0)))
		b = binary.AppendUvarint(b, uint64(max(t.Times.Handler, 0)))
	}
	return b
}

// ParseTrailer decodes what AppendTrailer wrote, with limit as in [ParseCall]. The
// result does not alias b.
func ParseTrailer(b []byte, limit int) (Trailer, error) {
	if isZero(b) {
		return Trailer{}, nil
	}
	if t, ok := timesAlone(b); ok {
		return Trailer{Times: t}, nil
	}
	r := reader{s: string(b)}
	t := Trailer{Code: r.code(), Message: r.str(), MD: r.md(limit)}
	if r.s != "" {
		queue, handler := r.uvarint(), r.uvarint()
		t.Times = Times{true, duration(queue), duration(handler)}
	}
	return t, r.end("trailer")
}

// timesAlone reads a trailer that says OK and where the call was, the usual one.
func timesAlone(b []byte) (Times, bool) {
	if len(b) <= 3 || !isZero(b[:3]) {
		return Times{}, false
	}
	queue, n := binary.Uvarint(b[3:])
	if n <= 0 {
		return Times{}, false
	}
	handler, k := binary.Uvarint(b[3+n:])
	return Times{true, duration(queue), duration(handler)}, k > 0 && 3+n+k == len(b)
}

// duration is that of a number that a peer says, which may be anything.
func duration(ns uint64) time.Duration { return time.Duration(min(ns, math.MaxInt64)) }

// isZero tells the encoding of an empty Head or Trailer, the usual one.
func isZero(b []byte) bool { return len(b) == 3 && b[0]|b[1]|b[2] == 0 }

// AppendReset appends r.
func AppendReset(b []byte, r *Reset) []byte {
	b = binary.AppendUvarint(b, uint64(r.Code))
	return appendString(b, r.Message)
}

// ParseReset decodes what AppendReset wrote.
func ParseReset(b []byte) (Reset, error) {
	r := reader{s: string(b)}
	v := Reset{Code: r.code(), Message: r.str()}
	return v, r.end("reset")
}

// AppendWindow appends the payload of a TypeWindow frame that grants n bytes.
func AppendWindow(b []byte, n uint32) []byte { return binary.LittleEndian.AppendUint32(b, n) }

// ParseWindow decodes the payload of a TypeWindow frame.
func ParseWindow(b []byte) (uint32, error) {
	if len(b) != 4 {
		return 0, fmt.Errorf("%w: window of %d bytes, need 4", ErrMalformed, len(b))
	}
	return binary.LittleEndian.Uint32(b), nil
}

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

func appendMD(b []byte, md MD) []byte {
	n := 0
	for _, vs := range md {
		n += len(vs)
	}
	b = binary.AppendUvarint(b, uint64(n))
	for k, vs := range md {
		for _, v := range vs {
			b = appendString(b, k)
			b = appendString(b, v)
		}
	}
	return b
}

// ErrHeaderList is wrapped when metadata is larger than the limit, counted as
// HTTP/2 counts a header list: name, value and 32 bytes for each pair (RFC 9113,
// section 6.5.2). Nothing else is wrong with the section.
var ErrHeaderList = errors.New("wire: metadata over the limit")

// pairCost is what a pair counts for besides its bytes.
const pairCost = 32

// reader cuts fields off a string; after the first failure it returns zero values.
type reader struct {
	s     string
	bad   string // what could not be read
	large bool   // metadata is over its limit
}

func (r *reader) fail(what string) {
	if r.bad == "" {
		r.bad = what
	}
	r.s = ""
}

func (r *reader) uvarint() uint64 {
	var v uint64
	for i := 0; i < len(r.s) && i < binary.MaxVarintLen64; i++ {
		c := r.s[i]
		if i == binary.MaxVarintLen64-1 && c > 1 {
			break
		}
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			r.s = r.s[i+1:]
			return v
		}
	}
	r.fail("number")
	return 0
}

func (r *reader) code() uint32 {
	v := r.uvarint()
	if v > 1<<32-1 {
		r.fail("status code")
		return 0
	}
	return uint32(v)
}

func (r *reader) str() string {
	n := r.uvarint()
	if n > uint64(len(r.s)) {
		r.fail("string")
		return ""
	}
	s := r.s[:n]
	r.s = r.s[n:]
	return s
}

func (r *reader) md(limit int) MD {
	n := r.uvarint()
	if n > uint64(len(r.s))/2 { // a pair takes two bytes at least
		r.fail("metadata count")
		return nil
	}
	if n == 0 {
		return nil
	}
	md := make(MD, min(n, 64))
	for size := 0; n > 0; n-- {
		k, v := r.str(), r.str()
		if r.bad != "" {
			return nil
		}
		if size += len(k) + len(v) + pairCost; size > limit {
			r.large, r.s = true, ""
			return nil
		}
		md[k] = append(md[k], v)
	}
	return md
}

// trace is what may follow a call's metadata.
func (r *reader) trace() *Trace {
	if len(r.s) != traceSize { // nothing, or what end complains of
		return nil
	}
	t := &Trace{Span: binary.LittleEndian.Uint64([]byte(r.s[16:]))}
	copy(t.ID[:], r.s)
	r.s = ""
	if t.ID == [16]byte{} || t.Span == 0 {
		r.fail("trace")
		return nil
	}
	return t
}

func (r *reader) end(what string) error {
	if r.large {
		return fmt.Errorf("%w: %s", ErrHeaderList, what)
	}
	if r.bad != "" {
		return fmt.Errorf("%w: %s: bad %s", ErrMalformed, what, r.bad)
	}
	if r.s != "" {
		return fmt.Errorf("%w: %s: %d bytes too many", ErrMalformed, what, len(r.s))
	}
	return nil
}
