package tracefile

import (
	"encoding/hex"
	"math"
	"strconv"
	"strings"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/stile-ipc/stile/routemap"
	"github.com/stile-ipc/stile/routemap/semconv"
)

// generated is OTLP by OpenTelemetry's generated types.
func generated(data *tracepb.TracesData, take func(routemap.Span) error) (Counts, error) {
	r := newReader(take)
	for _, rs := range data.GetResourceSpans() {
		var of semconv.Facts
		set(&of, rs.GetResource().GetAttributes())
		for _, scope := range rs.GetScopeSpans() {
			for _, s := range scope.GetSpans() {
				if err := r.generated(&of, s, scope.GetScope().GetName() == HubScope); err != nil {
					return r.counts, err
				}
			}
		}
	}
	return r.counts, nil
}

func (r *reader) generated(resource *semconv.Facts, s *tracepb.Span, byHub bool) error {
	facts := *resource
	set(&facts, s.GetAttributes())
	out := routemap.Span{
		Trace: generatedTraceID(s.GetTraceId()), ID: spanID(s.GetSpanId()), Parent: spanID(s.GetParentSpanId()), Kind: kindOf(s.GetKind()), Name: strings.ToValidUTF8(s.GetName()[:min(len(s.GetName()), maxText)], "�"),
		Start: clamped(s.GetStartTimeUnixNano()), End: clamped(s.GetEndTimeUnixNano()), Counted: byHub,
	}
	for _, l := range s.GetLinks()[:min(len(s.GetLinks()), maxLinks)] {
		out.Links = append(out.Links, routemap.Link{Trace: generatedTraceID(l.GetTraceId()), ID: spanID(l.GetSpanId())})
	}
	if s.GetStatus().GetCode() == tracepb.Status_STATUS_CODE_ERROR {
		out.Class = routemap.ClassError
	}
	facts.Apply(&out)
	why := ""
	switch {
	case len(s.GetTraceId()) != 16 && len(s.GetTraceId()) != 0, len(s.GetSpanId()) != 8 && len(s.GetSpanId()) != 0, len(s.GetParentSpanId()) != 8 && len(s.GetParentSpanId()) != 0:
		why = WrongID
	}
	return r.give(out, why)
}

// set takes in attributes that tell something.
func set(f *semconv.Facts, all []*commonpb.KeyValue) {
	for _, a := range all {
		if f.Wants([]byte(a.GetKey())) {
			f.Set(a.GetKey(), scalar(a.GetValue()))
		}
	}
}

func scalar(v *commonpb.AnyValue) string {
	switch v := v.GetValue().(type) {
	case *commonpb.AnyValue_StringValue:
		return strings.ToValidUTF8(v.StringValue[:min(len(v.StringValue), maxText)], "�")
	case *commonpb.AnyValue_IntValue:
		return strconv.FormatInt(v.IntValue, 10)
	case *commonpb.AnyValue_BoolValue:
		return strconv.FormatBool(v.BoolValue)
	case *commonpb.AnyValue_DoubleValue:
		return strconv.FormatFloat(v.DoubleValue, 'g', -1, 64)
	}
	return ""
}

// traceID is a trace's ID in hex; one of zeros is none.
func generatedTraceID(id []byte) string {
	for _, b := range id {
		if b != 0 {
			return hex.EncodeToString(id[:min(len(id), 16)])
		}
	}
	return ""
}

func kindOf(k tracepb.Span_SpanKind) routemap.Kind {
	switch k {
	case tracepb.Span_SPAN_KIND_INTERNAL:
		return routemap.Internal
	case tracepb.Span_SPAN_KIND_SERVER:
		return routemap.Server
	case tracepb.Span_SPAN_KIND_CLIENT:
		return routemap.Client
	case tracepb.Span_SPAN_KIND_PRODUCER:
		return routemap.Producer
	case tracepb.Span_SPAN_KIND_CONSUMER:
		return routemap.Consumer
	}
	return routemap.Unknown
}

func clamped(ns uint64) int64 { return int64(min(ns, math.MaxInt64)) }
