package tracefile

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/stile-ipc/stile/routemap"
)

// Reasons for which spans are left out, as Counts has them.
const (
	NoTrace  = "no trace ID"
	NoSpanID = "no span ID"
	NoTime   = "no time"
	NotASpan = "not a span"
	WrongID  = "an ID of the wrong length"
	NoHex    = "an ID that is no hex"
	LongID   = "a trace ID of more than 128 bytes"
)

// Counts tells what was read.
type Counts struct {
	Spans   uint64            `json:"spans"`
	LeftOut map[string]uint64 `json:"leftOut,omitempty"` // spans, by reason
}

// maxElement bounds a trace of Jaeger's, a span of Zipkin's, or the spans of one resource, in bytes of JSON.
const maxElement = 256 << 20

// ErrUnknown: the file has none of the formats.
var ErrUnknown = errors.New("these are no traces that can be read: OTLP JSON, Jaeger JSON or Zipkin JSON v2 is needed")

// Read calls take for each span of r, until it returns an error. What was read before an error counts.
func Read(r io.Reader, take func(routemap.Span) error) (Counts, error) {
	rd := newReader(take)
	err := rd.read(r)
	return rd.counts, err
}

type reader struct {
	take   func(routemap.Span) error
	counts Counts
	in     *bounded
	dec    *json.Decoder
	known  bool // something was one of the formats
	strict bool // IDs are as OTLP has them: of a file, which other tools may have written, they are taken as they are
}

// bounded is a reader that ends with an error when one value takes too much.
type bounded struct {
	r    io.Reader
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("one value has more than %d MiB", maxElement>>20)
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

func (r *reader) read(in io.Reader) error {
	buffered := bufio.NewReaderSize(in, 1<<16)
	if head, _ := buffered.Peek(2); len(head) == 2 && head[0] == 0x1f && head[1] == 0x8b {
		z, err := gzip.NewReader(buffered)
		if err != nil {
			return err
		}
		defer z.Close()
		buffered = bufio.NewReaderSize(z, 1<<16)
	}
	r.in = &bounded{buffered, maxElement}
	r.dec = json.NewDecoder(r.in)
	for n := 0; ; n++ {
		r.in.left = maxElement
		if err := r.value(0); errors.Is(err, io.EOF) && n > 0 {
			break
		} else if errors.Is(err, io.EOF) {
			return ErrUnknown
		} else if err != nil {
			return explained(err, r.dec.InputOffset())
		}
	}
	if !r.known {
		return ErrUnknown
	}
	return nil
}

// explained says where a file is wrong.
func explained(err error, at int64) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("it ends in the middle of a value, behind byte %d: it was cut off", at)
	}
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return fmt.Errorf("near byte %d: %w", at, err)
	}
	return err
}

// maxNesting is how deep lists may be within each other: Zipkin's traces are two.
const maxNesting = 3

// value reads a value that may be larger than memory: what is in lists is read one by one, and so is what objects have in theirs.
func (r *reader) value(nested int) error {
	t, err := r.dec.Token()
	if err != nil {
		return err
	}
	switch t {
	case json.Delim('['):
		return r.list(nested)
	case json.Delim('{'):
		return r.object(nested)
	}
	r.counts.LeftOut[NotASpan]++
	return nil
}

// list reads what is left of a list.
func (r *reader) list(nested int) error {
	if nested == maxNesting {
		return errors.New("lists are nested too deeply")
	}
	for r.dec.More() {
		r.in.left = maxElement
		if err := r.element(nested + 1); err != nil {
			return err
		}
	}
	_, err := r.dec.Token()
	return unexpected(err)
}

// element reads a value of a list, which fits into memory unless it is a list.
func (r *reader) element(nested int) error {
	var raw json.RawMessage
	if err := r.dec.Decode(&raw); err != nil {
		return unexpected(err)
	}
	if raw[0] == '[' { // a trace of Zipkin's
		var spans []json.RawMessage
		if err := json.Unmarshal(raw, &spans); err != nil {
			return err
		}
		for _, s := range spans {
			if err := r.one(s); err != nil {
				return err
			}
		}
		return nil
	}
	return r.one(raw)
}

// unexpected is an end where there should be none.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// object reads what is left of an object: envelopes of lists as they come, anything else whole.
func (r *reader) object(nested int) error {
	rest := map[string]json.RawMessage{}
	for r.dec.More() {
		t, err := r.dec.Token()
		if err != nil {
			return unexpected(err)
		}
		name, _ := t.(string)
		switch name {
		case "resourceSpans", "data", "result", "batches":
			r.known = true
			if err := r.value(nested); err != nil {
				return unexpected(err)
			}
		default:
			var raw json.RawMessage
			if err := r.dec.Decode(&raw); err != nil {
				return unexpected(err)
			}
			if len(rest) < maxFields {
				rest[name] = raw
			}
		}
	}
	if _, err := r.dec.Token(); err != nil {
		return unexpected(err)
	}
	if rest["traceId"] == nil && rest["traceID"] == nil && !isList(rest["spans"]) {
		return nil
	}
	whole, err := json.Marshal(rest)
	if err != nil {
		return err
	}
	return r.one(whole)
}

func isList(raw json.RawMessage) bool { return len(raw) > 0 && raw[0] == '[' }

// maxFields is how many fields of an object that is none of ours are kept.
const maxFields = 1000

// element is a value of any of the formats.
type element struct {
	otlpResource
	jaegerTrace
	zipkinSpan
	ResourceSpans []otlpResource `json:"resourceSpans"`
}

// one reads a value of one of the formats.
func (r *reader) one(raw json.RawMessage) error {
	var e element
	if err := json.Unmarshal(raw, &e); err != nil {
		r.counts.LeftOut[NotASpan]++
		return nil
	}
	r.known = r.known || e.has()
	switch {
	case e.ScopeSpans != nil || e.LibrarySpans != nil:
		return r.otlp(&e.otlpResource)
	case e.Spans != nil:
		return r.jaeger(&e.jaegerTrace)
	case e.ResourceSpans != nil:
		for i := range e.ResourceSpans {
			if err := r.otlp(&e.ResourceSpans[i]); err != nil {
				return err
			}
		}
		return nil
	case e.TraceID != nil:
		return r.zipkin(&e.zipkinSpan)
	}
	r.counts.LeftOut[NotASpan]++
	return nil
}

// has tells whether a value has one of the formats.
func (e *element) has() bool {
	return e.ScopeSpans != nil || e.LibrarySpans != nil || e.Spans != nil || e.ResourceSpans != nil || e.TraceID != nil
}

const (
	maxTraceID = 128
	maxName    = 256
)

// clip bounds a name that others choose. It keeps nothing of a longer one.
func clip(name string) string {
	if len(name) > maxName {
		return strings.Clone(strings.ToValidUTF8(name[:maxName], ""))
	}
	return name
}

// give hands a span on, if it is one.
func (r *reader) give(s routemap.Span, why string) error {
	switch {
	case why != "":
	case s.Trace == "":
		why = NoTrace
	case len(s.Trace) > maxTraceID:
		why = LongID
	case s.ID == 0:
		why = NoSpanID
	case s.Start <= 0 && s.End <= 0:
		why = NoTime
	}
	if why != "" {
		r.counts.LeftOut[why]++
		return nil
	}
	r.counts.Spans++
	for _, name := range []*string{&s.Service, &s.Host, &s.Name, &s.Operation, &s.Peer, &s.Destination} {
		*name = clip(*name)
	}
	if s.Service == "" {
		s.Service = "unknown_service" // as OpenTelemetry calls it
	}
	return r.take(s)
}
