package tracefile

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/stile-ipc/stile/routemap"
)

// hexIDs are IDs as OTLP's JSON has them, which protobuf's has in base64.
var hexIDs = regexp.MustCompile(`"(traceId|spanId|parentSpanId)":\s*"([0-9a-fA-F]*)"`)

// fromJSON makes of an OTLP file what its exporter would send.
func fromJSON(t testing.TB, text []byte) *tracepb.TracesData {
	t.Helper()
	text = hexIDs.ReplaceAllFunc(text, func(m []byte) []byte {
		part := hexIDs.FindSubmatch(m)
		id, err := hex.DecodeString(string(part[2]))
		if err != nil {
			t.Fatal(err)
		}
		in64, err := json.Marshal(id)
		if err != nil {
			t.Fatal(err)
		}
		return []byte(`"` + string(part[1]) + `":` + string(in64))
	})
	data := new(tracepb.TracesData)
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(text, data); err != nil {
		t.Fatal(err)
	}
	return data
}

// otlpFiles are the real traces in OTLP's JSON, by name.
func otlpFiles(t testing.TB) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob("testdata/*/*.json")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]byte{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var is struct {
			ResourceSpans []json.RawMessage `json:"resourceSpans"`
		}
		if json.Unmarshal(text, &is) == nil && is.ResourceSpans != nil {
			all[file] = text
		}
	}
	if len(all) < 3 {
		t.Fatalf("there are only %d files", len(all))
	}
	return all
}

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	body, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func collect(all *[]routemap.Span) func(routemap.Span) error {
	return func(s routemap.Span) error { *all = append(*all, s); return nil }
}

// TestOTLPBothWays: protobuf and JSON say the same, of real traces.
func TestOTLPBothWays(t *testing.T) {
	for file, text := range otlpFiles(t) {
		var inJSON, inProto []routemap.Span
		a, err := OTLPJSON(text, collect(&inJSON))
		if err != nil {
			t.Fatal(file, err)
		}
		b, err := OTLP(marshal(t, fromJSON(t, text)), collect(&inProto))
		if err != nil {
			t.Fatal(file, err)
		}
		if len(inJSON) == 0 || !reflect.DeepEqual(inJSON, inProto) || !reflect.DeepEqual(a, b) {
			t.Errorf("%s: JSON has %d spans (%v), protobuf %d (%v)", file, len(inJSON), a, len(inProto), b)
		}
	}
}

// hostileSpan is one that tells what a case changes of it.
func hostileSpan(change func(*tracepb.Span)) *tracepb.TracesData {
	s := &tracepb.Span{TraceId: bytes.Repeat([]byte{1}, 16), SpanId: bytes.Repeat([]byte{2}, 8), Name: "op", StartTimeUnixNano: 1e18, EndTimeUnixNano: 1e18 + 1}
	change(s)
	return &tracepb.TracesData{ResourceSpans: []*tracepb.ResourceSpans{{
		Resource:   &resourcepb.Resource{Attributes: []*commonpb.KeyValue{attribute("service.name", "front")}},
		ScopeSpans: []*tracepb.ScopeSpans{{Spans: []*tracepb.Span{s, nil}}, nil},
	}, nil}}
}

func attribute(key, value string) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: key, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: value}}}
}

// TestOTLPHostile: what cannot be a span is left out by reason, and nothing of what is kept is large.
func TestOTLPHostile(t *testing.T) {
	long := strings.Repeat("é", 1<<20)
	for name, c := range map[string]struct {
		change func(*tracepb.Span)
		why    string // "": it is taken
	}{
		"as it should be":       {func(*tracepb.Span) {}, ""},
		"no trace ID":           {func(s *tracepb.Span) { s.TraceId = nil }, NoTrace},
		"a trace ID of zeros":   {func(s *tracepb.Span) { s.TraceId = make([]byte, 16) }, NoTrace},
		"a short trace ID":      {func(s *tracepb.Span) { s.TraceId = s.TraceId[:15] }, WrongID},
		"a long trace ID":       {func(s *tracepb.Span) { s.TraceId = make([]byte, 1<<20); s.TraceId[0] = 1 }, WrongID},
		"no span ID":            {func(s *tracepb.Span) { s.SpanId = nil }, NoSpanID},
		"a long span ID":        {func(s *tracepb.Span) { s.SpanId = bytes.Repeat([]byte{1}, 9) }, WrongID},
		"a short parent's ID":   {func(s *tracepb.Span) { s.ParentSpanId = []byte{1} }, WrongID},
		"no time":               {func(s *tracepb.Span) { s.StartTimeUnixNano, s.EndTimeUnixNano = 0, 0 }, NoTime},
		"the end of time":       {func(s *tracepb.Span) { s.EndTimeUnixNano = 1<<64 - 1 }, ""},
		"ends before it begins": {func(s *tracepb.Span) { s.EndTimeUnixNano = 1 }, ""},
		"its own parent":        {func(s *tracepb.Span) { s.ParentSpanId = s.SpanId }, ""},
		"a long name":           {func(s *tracepb.Span) { s.Name = long }, ""},
		"an attribute of no use": {func(s *tracepb.Span) {
			s.Attributes = []*commonpb.KeyValue{nil, {}, {Key: "rpc.method"}, attribute("x", long)}
		}, ""},
		"long attributes": {func(s *tracepb.Span) {
			for _, name := range []string{"rpc.method", "rpc.service", "host.name", "peer.service", "messaging.destination.name", "error.type", "http.url", "db.statement"} {
				s.Attributes = append(s.Attributes, attribute(name, long))
			}
			s.Status = &tracepb.Status{Code: tracepb.Status_STATUS_CODE_ERROR}
		}, ""},
		"many attributes": {func(s *tracepb.Span) {
			for range 100_000 {
				s.Attributes = append(s.Attributes, attribute("rpc.method", "Get"))
			}
		}, ""},
	} {
		var got []routemap.Span
		counts, err := OTLP(marshal(t, hostileSpan(c.change)), collect(&got))
		if err != nil {
			t.Fatal(name, err)
		}
		if want := map[string]uint64{c.why: 1}; c.why != "" && (len(got) != 0 || counts.LeftOut[c.why] == 0) {
			t.Errorf("%s: %v and %d spans, want %v", name, counts.LeftOut, len(got), want)
		}
		if c.why != "" {
			continue
		}
		if len(got) != 1 || counts.Spans != 1 || got[0].Service != "front" {
			t.Errorf("%s: %+v, %v", name, got, counts)
			continue
		}
		for _, s := range []string{got[0].Trace, got[0].Service, got[0].Host, got[0].Name, got[0].Operation, got[0].Peer, got[0].Destination, got[0].Class} {
			if len(s) > maxName {
				t.Errorf("%s: a name of %d bytes is kept", name, len(s))
			}
		}
	}
}

// TestOTLPJSONIDs: a request has IDs as OTLP says, or its spans are left out, as those of protobuf are; in a file they may be as other tools have them.
func TestOTLPJSONIDs(t *testing.T) {
	const trace, span = "5b8efff798038103d269b633813fc60c", "eee19b7ec3c1b174"
	for name, c := range map[string]struct {
		trace, span, parent string
		why                 string // "": it is taken
		file                bool   // of a file it is taken
	}{
		"as they should be":  {trace, span, span, "", true},
		"upper case":         {strings.ToUpper(trace), strings.ToUpper(span), "", "", true},
		"a parent of zeros":  {trace, span, strings.Repeat("0", 16), "", true},
		"no trace":           {"", span, "", NoTrace, false},
		"a trace of zeros":   {strings.Repeat("0", 32), span, "", NoTrace, false},
		"no span":            {trace, "", "", NoSpanID, false},
		"a short trace":      {"ab", span, "", WrongID, true},
		"an odd one":         {"abc", span, "", WrongID, true},
		"of 64 bits":         {trace[:16], span, "", WrongID, true},
		"a long trace":       {trace + span[:8], span, "", WrongID, true},
		"base64":             {"W47/95gDgQPSabYzgT/GDA==", "7uGbfsPBsXQ=", "", WrongID, true},
		"no hex":             {strings.Repeat("z", 32), span, "", NoHex, true},
		"a long span":        {trace, span + "0", "", WrongID, true},
		"a span of no hex":   {trace, "eee19b7ec3c1b17g", "", NoHex, true},
		"a short parent":     {trace, span, "b174", WrongID, true},
		"a parent of no hex": {trace, span, strings.Repeat("-", 16), NoHex, true},
	} {
		text := `{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"` + c.trace + `","spanId":"` + c.span + `","parentSpanId":"` + c.parent + `","endTimeUnixNano":"1"}]}]}]}`
		var got []routemap.Span
		counts, err := OTLPJSON([]byte(text), collect(&got))
		if err != nil || (len(got) == 1) != (c.why == "") || c.why != "" && counts.LeftOut[c.why] != 1 {
			t.Errorf("%s: %+v, %+v, %v, want %q", name, got, counts, err, c.why)
		}
		if len(got) == 1 && got[0].Trace != trace {
			t.Errorf("%s: the trace is %s", name, got[0].Trace)
		}
		if _, counts, err := all(t, strings.NewReader(text)); err != nil || (counts.Spans == 1) != c.file {
			t.Errorf("%s, of a file: %+v, %v", name, counts, err)
		}
	}
}

// TestOTLPJSONSaysWhere: what is no request is told of in words of JSON, with the place, and not in Go's.
func TestOTLPJSONSaysWhere(t *testing.T) {
	metrics := func(body []byte, _ func(routemap.Span) error) (Counts, error) {
		_, err := OTLPMetricsJSON(body, func(*Point) {})
		return Counts{}, err
	}
	for _, c := range []struct {
		read       func([]byte, func(routemap.Span) error) (Counts, error)
		body, want string
	}{
		{OTLPJSON, `[]`, "no ExportTraceServiceRequest: near byte 1: it is not to be of kind array"},
		{OTLPJSON, `{"resourceSpans":"x"}`, "no ExportTraceServiceRequest: near byte 20: resourceSpans is not to be of kind string"},
		{OTLPJSON, `{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":5}]}]}]}`, "no ExportTraceServiceRequest: near byte 55: resourceSpans.scopeSpans.spans.traceId is not to be of kind number"},
		{OTLPJSON, `{"resourceSpans":]`, "no ExportTraceServiceRequest: near byte 18: invalid character ']' looking for beginning of value"},
		{OTLPJSON, `{`, "no ExportTraceServiceRequest: near byte 1: unexpected end of JSON input"},
		{metrics, `[]`, "no ExportMetricsServiceRequest: syntax error (line 1:1): unexpected token ["},
		{metrics, `{"resourceMetrics":"x"}`, "no ExportMetricsServiceRequest: syntax error (line 1:20): unexpected token \"x\""},
	} {
		if _, err := c.read([]byte(c.body), func(routemap.Span) error { return nil }); err == nil || err.Error() != c.want {
			t.Errorf("%s: %v, want %s", c.body, err, c.want)
		}
	}
}

// FuzzOTLP: no request, in either form, does harm; what is taken can be a trace, and is what OpenTelemetry's generated types read.
func FuzzOTLP(f *testing.F) {
	for _, text := range otlpFiles(f) {
		if len(text) < 20_000 {
			f.Add(text)
			f.Add(marshal(f, fromJSON(f, text)))
		}
	}
	f.Add([]byte(`{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"01","spanId":"02","endTimeUnixNano":"1e300"}]}]}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var spans []routemap.Span
		_, _ = OTLPJSON(body, collect(&spans)) // an error says so
		data := new(tracepb.TracesData)
		var got, want []routemap.Span
		counts, err := OTLP(body, collect(&got))
		if proto.Unmarshal(body, data) == nil {
			wantCounts, wantErr := generated(data, collect(&want))
			if err != nil || wantErr != nil || !reflect.DeepEqual(got, want) || !reflect.DeepEqual(counts, wantCounts) {
				t.Fatalf("%v, %+v, %+v\nby generated types: %v, %+v, %+v", err, counts, got, wantErr, wantCounts, want)
			}
		}
		spans = append(spans, got...)
		m := routemap.New()
		m.Add(routemap.NewTrace(spans))
		m.Report()
	})
}
