package tracefile

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stile-ipc/stile/routemap"
)

// all reads a file's spans.
func all(t testing.TB, r io.Reader) ([]routemap.Span, Counts, error) {
	t.Helper()
	var spans []routemap.Span
	counts, err := Read(r, func(s routemap.Span) error { spans = append(spans, s); return nil })
	return spans, counts, err
}

func TestFormats(t *testing.T) {
	otlp := `{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}},{"key":"host.name","value":{"stringValue":"h"}}]},"scopeSpans":[{"spans":[
		{"traceId":"AB","spanId":"0a","parentSpanId":"0000000000000000","name":"x","kind":3,"startTimeUnixNano":"1000","endTimeUnixNano":2000,"status":{"code":2},
		 "links":[{"traceId":"cd","spanId":"0b"}],"attributes":[{"key":"rpc.service","value":{"stringValue":"s.S"}},{"key":"rpc.method","value":{"stringValue":"Get"}},{"key":"rpc.grpc.status_code","value":{"intValue":"4"}},
		 {"key":"server.address","value":{"stringValue":"127.0.0.1"}},{"key":"server.port","value":{"intValue":80}}]}]}]}`
	jaeger := `{"traceID":"ab","spans":[{"traceID":"ab","spanID":"a","operationName":"x","references":[{"refType":"FOLLOWS_FROM","spanID":"c"},{"refType":"CHILD_OF","spanID":"b"}],
		"startTime":1,"duration":1,"processID":"p","tags":[{"key":"span.kind","value":"server"},{"key":"http.status_code","value":503},{"key":"error","value":true}]}],"processes":{"p":{"serviceName":"shop","tags":[{"key":"hostname","value":"h"}]}}}`
	zipkin := `{"traceId":"ab","id":"a","parentId":"b","kind":"CLIENT","name":"x","timestamp":1,"duration":1,"localEndpoint":{"serviceName":"shop","ipv4":"10.0.0.1"},"remoteEndpoint":{"serviceName":"db"},"tags":{"error":""}}`
	o := routemap.Span{Trace: "ab", ID: 10, Kind: routemap.Client, Service: "shop", Host: "h", Name: "x", Start: 1000, End: 2000, Operation: "s.S/Get", Peer: "127.0.0.1:80", PeerKind: routemap.External,
		Transport: routemap.TCPLoopback, Class: routemap.ClassTimeout, Request: -1, Response: -1, Links: []routemap.Link{{Trace: "cd", ID: 11}}}
	j := routemap.Span{Trace: "ab", ID: 10, Parent: 11, Kind: routemap.Server, Service: "shop", Host: "h", Name: "x", Start: 1000, End: 2000, Class: "http 503", Request: -1, Response: -1}
	z := routemap.Span{Trace: "ab", ID: 10, Parent: 11, Kind: routemap.Client, Service: "shop", Host: "10.0.0.1", Name: "x", Start: 1000, End: 2000, Peer: "db", PeerKind: routemap.External,
		Class: routemap.ClassError, Request: -1, Response: -1}
	for name, c := range map[string]struct {
		text string
		want []routemap.Span
	}{
		"OTLP": {`{"resourceSpans":[` + otlp + `]}`, []routemap.Span{o}}, "OTLP, a line each": {`{"resourceSpans":[` + otlp + "]}\n" + `{"resourceSpans":[` + otlp + "]}\n", []routemap.Span{o, o}},
		"of Jaeger's API": {`{"result":{"resourceSpans":[` + otlp + `]}}`, []routemap.Span{o}}, "of Tempo": {`{"batches":[` + otlp + `]}`, []routemap.Span{o}}, "a list of OTLP": {`[{"resourceSpans":[` + otlp + `]}]`, []routemap.Span{o}},
		"Jaeger": {`{"data":[` + jaeger + `,` + jaeger + `],"total":0}`, []routemap.Span{j, j}}, "one trace of Jaeger's": {jaeger, []routemap.Span{j}}, "a list of Jaeger's": {`[` + jaeger + `]`, []routemap.Span{j}},
		"Zipkin": {`[` + zipkin + `]`, []routemap.Span{z}}, "Zipkin's traces": {`[[` + zipkin + `],[` + zipkin + `]]`, []routemap.Span{z, z}}, "a line of Zipkin's": {zipkin + "\n" + zipkin, []routemap.Span{z, z}},
	} {
		got, counts, err := all(t, strings.NewReader(c.text))
		if err != nil || fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", c.want) || counts.Spans != uint64(len(c.want)) || len(counts.LeftOut) > 0 {
			t.Errorf("%s: %+v, want %+v; %+v, %v", name, got, c.want, counts, err)
		}
		var zipped bytes.Buffer
		w := gzip.NewWriter(&zipped)
		if _, err := w.Write([]byte(c.text)); err != nil || w.Close() != nil {
			t.Fatal(err)
		}
		if got, _, err := all(t, &zipped); err != nil || len(got) != len(c.want) {
			t.Errorf("%s, zipped: %+v, %v", name, got, err)
		}
	}
}

// TestBadFiles: what is wrong is counted or told, and what is right before it is read.
func TestBadFiles(t *testing.T) {
	good := `{"traceId":"1","id":"2","timestamp":3}`
	for name, c := range map[string]struct {
		text  string
		spans uint64
		why   string // counted
		err   string
	}{
		"empty":             {"", 0, "", "are no traces"},
		"not JSON":          {"hello", 0, "", "byte"},
		"other JSON":        {`{"a":1}`, 0, "", "are no traces"},
		"a list of numbers": {`[1,2]`, 0, NotASpan, "are no traces"},
		"cut off":           {`[` + good + `,{"traceId":"1`, 1, "", "cut off"},
		"an error behind":   {`[` + good + `,]`, 1, "", "byte"},
		"no ID":             {`[` + good + `,{"traceId":"1","timestamp":3}]`, 1, NoSpanID, ""},
		"no trace":          {`[` + good + `,{"traceId":"","id":"1","timestamp":3}]`, 1, NoTrace, ""},
		"no time":           {`[` + good + `,{"traceId":"1","id":"1"}]`, 1, NoTime, ""},
		"a wrong type":      {`[` + good + `,{"traceId":{},"id":"1","timestamp":3}]`, 1, NotASpan, ""},
		"metrics":           {`{"resourceMetrics":[]}`, 0, "", "are no traces"},
		"too deep":          {strings.Repeat(`{"data":`, 3) + `[[[[` + good, 0, "", ""},
	} {
		_, counts, err := all(t, strings.NewReader(c.text))
		if counts.Spans != c.spans || c.why != "" && counts.LeftOut[c.why] == 0 || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) || c.err == "" && c.why != "" && err != nil {
			t.Errorf("%s: %+v, %v", name, counts, err)
		}
	}
	stop := errors.New("enough")
	if n, err := Read(strings.NewReader(`[`+good+`,`+good+`]`), func(routemap.Span) error { return stop }); !errors.Is(err, stop) || n.Spans != 1 {
		t.Errorf("%+v, %v", n, err)
	}
}

// TestSamples reads real traces, all their spans, and finds each path to be a partition.
func TestSamples(t *testing.T) {
	files, err := filepath.Glob("testdata/*/*")
	if err != nil || len(files) < 40 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "manifest.json") || strings.HasSuffix(file, "README.md") {
			continue
		}
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		spans, counts, err := all(t, f)
		f.Close()
		noTraces := slices.Contains([]string{"events.json", "logs.json", "metrics.json"}, filepath.Base(file))
		timeless := counts.LeftOut[NoTime] == 1 && len(counts.LeftOut) == 1 && strings.HasPrefix(file, "testdata/jaeger/")
		if noTraces != errors.Is(err, ErrUnknown) || !noTraces && (err != nil || len(spans) == 0 && !timeless) {
			t.Errorf("%s: %d spans, %+v, %v", file, len(spans), counts, err)
		}
		byTrace := map[string][]routemap.Span{}
		for _, s := range spans {
			byTrace[s.Trace] = append(byTrace[s.Trace], s)
		}
		for _, of := range byTrace {
			tr := routemap.NewTrace(of)
			for _, root := range tr.Roots() {
				at, end := tr.Extent(root)
				for _, s := range tr.CriticalPath(root) {
					if start, end := tr.Extent(s.Span); s.Start != at || s.End <= s.Start || s.Start < start || s.End > end {
						t.Errorf("%s: %+v follows %d", file, s, at)
					}
					at = s.End
				}
				if at != end {
					t.Errorf("%s: a path ends at %d, its root at %d", file, at, end)
				}
			}
		}
		t.Logf("%s: %d spans of %d traces, left out: %v", file, len(spans), len(byTrace), counts.LeftOut)
	}
}

// TestNPlusOne: a labelled capture of a driver service that asks Redis for one driver after the other.
func TestNPlusOne(t *testing.T) {
	f, err := os.Open("testdata/jaeger-skills/n_plus_one_positive.json")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	spans, _, err := all(t, f)
	if err != nil {
		t.Fatal(err)
	}
	m := routemap.New()
	m.Add(routemap.NewTrace(spans))
	found := m.Report().Findings
	if len(found) != 1 || found[0].Kind != routemap.PlusOne || found[0].To.Name != "redis-manual" || found[0].Operation != "GetDriver" || found[0].Values["calls"] != 13 || found[0].Evidence[0].Span != 0xbe56eec6f3678130 {
		t.Errorf("%+v", found)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"1","spanId":"2"}]}]}]}`))
	f.Add([]byte(`{"data":[{"traceID":"1","spans":[{"traceID":"1","spanID":"2"}]}]}`))
	f.Add([]byte(`[[{"traceId":"1","id":"2","timestamp":"3"}]]`))
	f.Fuzz(func(_ *testing.T, text []byte) {
		_, _ = Read(bytes.NewReader(text), func(routemap.Span) error { return nil })
	})
}
