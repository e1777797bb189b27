package tracefile

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/stile-ipc/stile/routemap"
	"github.com/stile-ipc/stile/routemap/semconv"
)

// maxLinks is how many links of a span are read, as many as OpenTelemetry's SDKs send.
const maxLinks = 128

// leastObject is how many bytes of JSON an object has on average, at least, in what is no attack: what it is decoded to has hundreds.
const leastObject = 16

// OTLPJSON calls take for each span of a request to export, in JSON. IDs have to be hex digits, as many as OTLP says.
func OTLPJSON(body []byte, take func(routemap.Span) error) (Counts, error) {
	r := newReader(take)
	r.strict = true
	if n := bytes.Count(body, []byte("{")) + bytes.Count(body, []byte("null")); n > 1000+len(body)/leastObject {
		return r.counts, fmt.Errorf("%d objects in %d bytes", n, len(body))
	}
	var request struct {
		ResourceSpans []otlpResource `json:"resourceSpans"`
	}
	if err := json.Unmarshal(body, &request); err != nil {
		return r.counts, fmt.Errorf("no ExportTraceServiceRequest: %w", misplaced(err))
	}
	for i := range request.ResourceSpans {
		if err := r.otlp(&request.ResourceSpans[i]); err != nil {
			return r.counts, err
		}
	}
	return r.counts, nil
}

// misplaced says what is wrong with JSON, and where, in words of JSON.
func misplaced(err error) error {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return fmt.Errorf("near byte %d: %w", syntax.Offset, err)
	case errors.As(err, &kind) && kind.Field != "":
		return fmt.Errorf("near byte %d: %s is not to be of kind %s", kind.Offset, kind.Field, kind.Value)
	case errors.As(err, &kind):
		return fmt.Errorf("near byte %d: it is not to be of kind %s", kind.Offset, kind.Value)
	}
	return err
}

func newReader(take func(routemap.Span) error) *reader {
	return &reader{take: take, counts: Counts{LeftOut: map[string]uint64{}}}
}

// Fields of opentelemetry/proto/trace/v1/trace.proto and of what it has in it.
const (
	tracesResourceSpans protowire.Number = 1

	resourceSpansResource protowire.Number = 1
	resourceSpansScopes   protowire.Number = 2

	resourceAttributes protowire.Number = 1

	scopeSpansScope protowire.Number = 1
	scopeSpansSpans protowire.Number = 2

	spanTraceID    protowire.Number = 1
	spanSpanID     protowire.Number = 2
	spanParentID   protowire.Number = 4
	spanName       protowire.Number = 5
	spanKind       protowire.Number = 6
	spanStart      protowire.Number = 7
	spanEnd        protowire.Number = 8
	spanAttributes protowire.Number = 9
	spanLinks      protowire.Number = 13
	spanStatus     protowire.Number = 15

	linkTraceID protowire.Number = 1
	linkSpanID  protowire.Number = 2

	statusCode protowire.Number = 3

	keyValueKey   protowire.Number = 1
	keyValueValue protowire.Number = 2

	anyString protowire.Number = 1
	anyBool   protowire.Number = 2
	anyInt    protowire.Number = 3
	anyDouble protowire.Number = 4
	anyArray  protowire.Number = 5
	anyBytes  protowire.Number = 7
)

// statusError is STATUS_CODE_ERROR.
const statusError = 2

// OTLP calls take for each span of a request to export, in protobuf. It reads what tells something of calls, and passes over the rest.
func OTLP(body []byte, take func(routemap.Span) error) (Counts, error) {
	r := &protobuf{reader: newReader(take), texts: map[string]string{}, ids: map[string]string{}}
	err := fields(body, func(n protowire.Number, f field) error {
		if n == tracesResourceSpans && f.kind == protowire.BytesType {
			return r.resourceSpans(f.bytes)
		}
		return nil
	})
	return r.counts, err
}

// field is a value of a message: bytes, or a number.
type field struct {
	kind   protowire.Type
	bytes  []byte
	number uint64
}

// fields calls f for each field of a message.
func fields(b []byte, f func(protowire.Number, field) error) error {
	for len(b) > 0 {
		num, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		v := field{kind: kind}
		switch kind {
		case protowire.VarintType:
			v.number, n = protowire.ConsumeVarint(b)
		case protowire.Fixed64Type:
			v.number, n = protowire.ConsumeFixed64(b)
		case protowire.BytesType:
			v.bytes, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(num, kind, b)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if err := f(num, v); err != nil {
			return err
		}
	}
	return nil
}

// protobuf reads one request.
type protobuf struct {
	*reader
	texts map[string]string // what was said before: most spans say the same
	ids   map[string]string // of traces, in hex
}

// maxTexts is how many texts of a request are looked for to be the same.
const maxTexts = 8192

// maxText is how much of a text is read, in bytes.
const maxText = 8 << 10

// text is a text of its own, whatever the body is used for then.
func (r *protobuf) text(b []byte) string {
	b = b[:min(len(b), maxText)]
	if s, known := r.texts[string(b)]; known {
		return s
	}
	s := strings.ToValidUTF8(string(b), "�")
	if len(r.texts) < maxTexts && len(b) <= maxName {
		r.texts[string(b)] = s
	}
	return s
}

func (r *protobuf) resourceSpans(b []byte) error {
	var of semconv.Facts
	err := fields(b, func(n protowire.Number, f field) error { // it may come last
		if n != resourceSpansResource || f.kind != protowire.BytesType {
			return nil
		}
		return fields(f.bytes, func(n protowire.Number, f field) error {
			if n == resourceAttributes && f.kind == protowire.BytesType {
				return r.attribute(&of, f.bytes)
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	return fields(b, func(n protowire.Number, f field) error {
		if n != resourceSpansScopes || f.kind != protowire.BytesType {
			return nil
		}
		byHub := false
		if err := each(f.bytes, scopeSpansScope, func(scope []byte) error {
			return each(scope, scopeName, func(name []byte) error { byHub = string(name) == HubScope; return nil })
		}); err != nil {
			return err
		}
		return each(f.bytes, scopeSpansSpans, func(span []byte) error { return r.span(of, span, byHub) })
	})
}

func (r *protobuf) span(facts semconv.Facts, b []byte, byHub bool) error {
	out := routemap.Span{Counted: byHub}
	var trace, id, parent, name []byte
	failed := uint64(0)
	err := fields(b, func(n protowire.Number, f field) error {
		switch {
		case n == spanTraceID && f.kind == protowire.BytesType:
			trace = f.bytes
		case n == spanSpanID && f.kind == protowire.BytesType:
			id = f.bytes
		case n == spanParentID && f.kind == protowire.BytesType:
			parent = f.bytes
		case n == spanName && f.kind == protowire.BytesType:
			name = f.bytes
		case n == spanKind && f.kind == protowire.VarintType:
			out.Kind = otlpKind(int32(f.number))
		case n == spanStart && f.kind == protowire.Fixed64Type:
			out.Start = int64(min(f.number, math.MaxInt64))
		case n == spanEnd && f.kind == protowire.Fixed64Type:
			out.End = int64(min(f.number, math.MaxInt64))
		case n == spanAttributes && f.kind == protowire.BytesType:
			return r.attribute(&facts, f.bytes)
		case n == spanLinks && f.kind == protowire.BytesType && len(out.Links) < maxLinks:
			link, err := r.link(f.bytes)
			out.Links = append(out.Links, link)
			return err
		case n == spanStatus && f.kind == protowire.BytesType:
			return fields(f.bytes, func(n protowire.Number, f field) error {
				if n == statusCode && f.kind == protowire.VarintType {
					failed = f.number
				}
				return nil
			})
		}
		return nil
	})
	if err != nil {
		return err
	}
	if why := wrongIDs(trace, id, parent); why != "" {
		return r.give(out, why)
	}
	out.Trace, out.ID, out.Parent, out.Name = r.traceID(trace), spanID(id), spanID(parent), r.text(name)
	if int32(failed) == statusError {
		out.Class = routemap.ClassError
	}
	facts.Apply(&out)
	return r.give(out, "")
}

// wrongIDs says what is wrong with IDs that are there and cannot be right.
func wrongIDs(trace, span, parent []byte) string {
	if wrongLength(trace, 16) || wrongLength(span, 8) || wrongLength(parent, 8) {
		return WrongID
	}
	return ""
}

func wrongLength[T string | []byte](id T, want int) bool { return len(id) != 0 && len(id) != want }

func (r *protobuf) link(b []byte) (l routemap.Link, err error) {
	err = fields(b, func(n protowire.Number, f field) error {
		switch {
		case n == linkTraceID && f.kind == protowire.BytesType:
			l.Trace = r.traceID(f.bytes)
		case n == linkSpanID && f.kind == protowire.BytesType:
			l.ID = spanID(f.bytes)
		}
		return nil
	})
	return l, err
}

// attribute takes in one that tells something.
func (r *protobuf) attribute(f *semconv.Facts, b []byte) error {
	var key []byte
	err := fields(b, func(n protowire.Number, of field) error {
		if n == keyValueKey && of.kind == protowire.BytesType {
			key = of.bytes
		}
		return nil
	})
	if err != nil || !f.Wants(key) {
		return err
	}
	text := ""
	err = fields(b, func(n protowire.Number, of field) error {
		if n != keyValueValue || of.kind != protowire.BytesType {
			return nil
		}
		return fields(of.bytes, func(n protowire.Number, of field) error { // the last one counts, also of several values
			r.scalar(&text, n, of)
			return nil
		})
	})
	f.Set(r.text(key), text)
	return err
}

// scalar is what a field of an AnyValue says, if it is one of its fields.
func (r *protobuf) scalar(text *string, n protowire.Number, of field) {
	switch {
	case n == anyString && of.kind == protowire.BytesType:
		*text = r.text(of.bytes)
	case n == anyBool && of.kind == protowire.VarintType:
		*text = strconv.FormatBool(of.number != 0)
	case n == anyInt && of.kind == protowire.VarintType:
		*text = strconv.FormatInt(int64(of.number), 10)
	case n == anyDouble && of.kind == protowire.Fixed64Type:
		*text = strconv.FormatFloat(math.Float64frombits(of.number), 'g', -1, 64)
	case n >= anyArray && n <= anyBytes && of.kind == protowire.BytesType: // which tell nothing
		*text = ""
	}
}

// traceID is a trace's ID in hex; one of zeros is none.
func (r *protobuf) traceID(id []byte) string {
	id = id[:min(len(id), 16)]
	if s, known := r.ids[string(id)]; known {
		return s
	}
	s := ""
	for _, b := range id {
		if b != 0 {
			s = hex.EncodeToString(id)
			break
		}
	}
	r.ids[string(id)] = s
	return s
}

func spanID(id []byte) (n uint64) {
	for _, b := range id[:min(len(id), 8)] {
		n = n<<8 | uint64(b)
	}
	return n
}

// otlpKind is OTLP's SpanKind, which counts as routemap's Kind does.
func otlpKind(n int32) routemap.Kind {
	if n < 0 || n > int32(routemap.Consumer) {
		return routemap.Unknown
	}
	return routemap.Kind(n)
}
