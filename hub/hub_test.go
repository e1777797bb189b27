package hub

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/stile-ipc/stile/routemap"
)

const loopback = "127.0.0.1:0"

func openHub(t testing.TB, cfg Config) *Hub {
	t.Helper()
	cfg.OTLPGRPC, cfg.OTLPHTTP, cfg.HTTP = loopback, loopback, loopback
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	h, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func closeHub(t testing.TB, h *Hub) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := h.Close(ctx); err != nil {
		t.Error(err)
	}
}

func attribute(key, value string) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: key, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: value}}}
}

// id is one that is not zero.
func id(n uint64, size int) []byte {
	b := make([]byte, size)
	b[0] = 1
	for i := range 7 {
		b[size-1-i] = byte(n >> (8 * i))
	}
	return b
}

// callSpans is what front and the service to send of n calls, from the first number on, one trace each, of 10 ms.
func callSpans(first, n int, to string) *tracepb.TracesData {
	begin := uint64(time.Now().UnixNano())
	of := map[string]*tracepb.ScopeSpans{"front": {}, to: {}}
	for i := range n {
		trace := id(uint64(first+i), 16)
		of["front"].Spans = append(of["front"].Spans, &tracepb.Span{TraceId: trace, SpanId: id(1, 8), Kind: tracepb.Span_SPAN_KIND_CLIENT, Name: "Get",
			StartTimeUnixNano: begin, EndTimeUnixNano: begin + 10e6, Attributes: []*commonpb.KeyValue{attribute("rpc.service", "shop.Catalog"), attribute("rpc.method", "Get")}})
		of[to].Spans = append(of[to].Spans, &tracepb.Span{TraceId: trace, SpanId: id(2, 8), ParentSpanId: id(1, 8), Kind: tracepb.Span_SPAN_KIND_SERVER, Name: "Get",
			StartTimeUnixNano: begin + 1e6, EndTimeUnixNano: begin + 9e6, Attributes: []*commonpb.KeyValue{attribute("rpc.service", "shop.Catalog"), attribute("rpc.method", "Get")}})
	}
	data := new(tracepb.TracesData)
	for service, spans := range of {
		data.ResourceSpans = append(data.ResourceSpans, &tracepb.ResourceSpans{
			Resource: &resourcepb.Resource{Attributes: []*commonpb.KeyValue{attribute("service.name", service)}}, ScopeSpans: []*tracepb.ScopeSpans{spans},
		})
	}
	return data
}

const exportMethod = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"

func dial(t testing.TB, h *Hub) *grpc.ClientConn {
	t.Helper()
	cc, err := grpc.NewClient(h.Addrs()[forOTLPGRPC], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	return cc
}

// partial reads what a response says of spans that were left out.
func partial(t testing.TB, response []byte) (rejected uint64, why string) {
	t.Helper()
	if len(response) == 0 {
		return 0, ""
	}
	_, _, n := protowire.ConsumeTag(response)
	inner, _ := protowire.ConsumeBytes(response[n:])
	for len(inner) > 0 {
		number, kind, n := protowire.ConsumeTag(inner)
		inner = inner[n:]
		switch {
		case number == 1 && kind == protowire.VarintType:
			rejected, n = protowire.ConsumeVarint(inner)
		case number == 2 && kind == protowire.BytesType:
			var text []byte
			text, n = protowire.ConsumeBytes(inner)
			why = string(text)
		default:
			t.Fatalf("field %d", number)
		}
		inner = inner[n:]
	}
	return rejected, why
}

type reply struct {
	code   int
	header http.Header
	body   []byte
}

func post(t testing.TB, h *Hub, body []byte, headers ...string) reply {
	t.Helper()
	return request(t, http.MethodPost, "http://"+h.Addrs()[forOTLPHTTP]+"/v1/traces", body, headers...)
}

func get(t testing.TB, h *Hub, path string, headers ...string) reply {
	t.Helper()
	return request(t, http.MethodGet, "http://"+h.Addrs()[forAPI]+path, nil, headers...)
}

func request(t testing.TB, method, url string, body []byte, headers ...string) reply {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			r.Host = headers[i+1]
			continue
		}
		r.Header.Set(headers[i], headers[i+1])
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true}}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, out}
}

func decode[T any](t testing.TB, r reply) (v T) {
	t.Helper()
	if err := json.Unmarshal(r.body, &v); err != nil || r.code != http.StatusOK {
		t.Fatalf("%d %s: %v", r.code, r.body, err)
	}
	return v
}

func zipped(t testing.TB, body []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(body); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	body, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// TestExport: spans that come each way are on the map, also after the hub was closed and opened again.
func TestExport(t *testing.T) {
	dir := t.TempDir()
	h := openHub(t, Config{Dir: dir})
	cc := dial(t, h)
	for _, opts := range [][]grpc.CallOption{nil, {grpc.UseCompressor("gzip")}} {
		if err := cc.Invoke(t.Context(), exportMethod, callSpans(len(opts)*10, 10, "catalog"), new(emptypb.Empty), opts...); err != nil {
			t.Fatal(err)
		}
	}
	body := marshal(t, callSpans(20, 10, "catalog"))
	for i, headers := range [][]string{{"Content-Type", typeProtobuf}, {"Content-Type", typeProtobuf, "Content-Encoding", "gzip"}} {
		body := body
		if i == 1 {
			body = zipped(t, marshal(t, callSpans(30, 10, "catalog")))
		}
		if r := post(t, h, body, headers...); r.code != http.StatusOK || len(r.body) != 0 || r.header.Get("Content-Type") != typeProtobuf {
			t.Errorf("%v: %d %q", headers, r.code, r.body)
		}
	}
	text := fmt.Sprintf(`{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"front"}}]},"scopeSpans":[{"spans":[
		{"traceId":"%032x","spanId":"0000000000000001","kind":3,"name":"Pay","startTimeUnixNano":"%d","endTimeUnixNano":"%d","attributes":[{"key":"peer.service","value":{"stringValue":"bank"}}]}]}]}]}`,
		99, time.Now().UnixNano(), time.Now().UnixNano()+1e6)
	if r := post(t, h, []byte(text), "Content-Type", "application/json; charset=utf-8"); r.code != http.StatusOK || string(r.body) != "{}" {
		t.Errorf("JSON: %d %s", r.code, r.body)
	}
	if s := decode[Status](t, get(t, h, "/api/v1/status")); s.Intake.Requests != 5 || s.Intake.Spans != 81 || s.Intake.Held != 81 || len(s.Intake.LeftOut) != 0 || s.Addrs[forAPI] == "" {
		t.Errorf("%+v", s)
	}
	if _, err := Open(t.Context(), Config{Dir: dir, OTLPGRPC: Off, OTLPHTTP: Off, HTTP: Off}); !errors.Is(err, ErrInUse) {
		t.Errorf("a second one: %v", err)
	}
	closeHub(t, h)
	h = openHub(t, Config{Dir: dir})
	defer closeHub(t, h)
	m := decode[Map](t, get(t, h, "/api/v1/map"))
	got := map[string]uint64{}
	for _, r := range m.Routes {
		got[r.String()] = r.Calls
	}
	if len(got) != 2 || got["front → catalog shop.Catalog/Get"] != 40 || got["front → external bank Pay"] != 1 || m.Spans != 81 || m.Windows < 1 {
		t.Errorf("%v, %d spans of %d windows", got, m.Spans, m.Windows)
	}
	if w := decode[Windows](t, get(t, h, "/api/v1/windows?from=1h")); len(w.Windows) != m.Windows {
		t.Errorf("%d windows, %d merged", len(w.Windows), m.Windows)
	}
	if m := decode[Map](t, get(t, h, "/api/v1/map?from=2h&to=1h")); m.Spans != 0 || m.Windows != 0 || m.Routes == nil {
		t.Errorf("an hour ago: %+v", m.Report)
	}
	if terms := decode[[]routemap.Term](t, get(t, h, "/api/v1/terms")); len(terms) < 5 {
		t.Errorf("%d terms", len(terms))
	}
	for _, query := range []string{"from=yesterday", "to=5", "from=1m&to=2m", "since=5m", "from=-"} {
		if r := get(t, h, "/api/v1/map?"+query); r.code != http.StatusBadRequest || !strings.Contains(string(r.body), `"error"`) {
			t.Errorf("%s: %d %s", query, r.code, r.body)
		}
	}
	for _, query := range []string{"", "target=all", "target=1", "target=0.9&slower=5", "target=0.9&from=5m"} {
		if r := get(t, h, "/api/v1/burn?"+query); r.code != http.StatusBadRequest || !strings.Contains(string(r.body), `"error"`) {
			t.Errorf("%s: %d %s", query, r.code, r.body)
		}
	}
	burns := decode[Burns](t, get(t, h, "/api/v1/burn?target=0.9&slower=5ms"))
	if len(burns.Routes) != 2 || burns.Routes[0].Alert != routemap.Page || burns.Routes[0].Times[0].Bad != 40 || burns.Routes[0].Times[0].Burn < 9.9 || burns.Routes[1].Times[0].Bad != 0 {
		t.Errorf("%+v", burns)
	}
	if r := get(t, h, "/healthz"); r.code != http.StatusOK {
		t.Errorf("healthz: %d", r.code)
	}
}

// TestRefused: what is no request to export is refused, is told why, and counted; what is wrong with spans is told to who sent them.
func TestRefused(t *testing.T) {
	h := openHub(t, Config{})
	defer closeHub(t, h)
	cc := dial(t, h)
	const none = codes.Code(99)
	good := callSpans(0, 1, "catalog")
	large := callSpans(0, 1, "catalog")
	large.ResourceSpans[0].ScopeSpans[0].Spans[0].Name = strings.Repeat("x", maxBody)
	for name, c := range map[string]struct {
		body    []byte
		headers []string
		code    int
		grpc    codes.Code
	}{
		"no content-type":         {nil, nil, 415, none},
		"an unknown one":          {nil, []string{"Content-Type", "text/html"}, 415, none},
		"an unknown encoding":     {nil, []string{"Content-Type", typeProtobuf, "Content-Encoding", "br"}, 415, codes.InvalidArgument},
		"not protobuf":            {[]byte("\xff\xff"), []string{"Content-Type", typeProtobuf}, 400, codes.InvalidArgument},
		"not gzip":                {[]byte("hello"), []string{"Content-Type", typeProtobuf, "Content-Encoding", "gzip"}, 400, codes.InvalidArgument},
		"cut gzip":                {zipped(t, marshal(t, good))[:30], []string{"Content-Type", typeProtobuf, "Content-Encoding", "gzip"}, 400, codes.InvalidArgument},
		"not UTF-8":               {bytes.ReplaceAll(marshal(t, good), []byte("shop.Catalog"), []byte("shop.Ca\xff\xffog")), []string{"Content-Type", typeProtobuf}, 400, codes.InvalidArgument},
		"not JSON":                {[]byte("{"), []string{"Content-Type", typeJSON}, 400, codes.InvalidArgument},
		"JSON of another kind":    {[]byte(`[1]`), []string{"Content-Type", typeJSON}, 400, codes.InvalidArgument},
		"too large":               {marshal(t, large), []string{"Content-Type", typeProtobuf}, 413, codes.InvalidArgument},
		"too large when unzipped": {zipped(t, marshal(t, large)), []string{"Content-Type", typeProtobuf, "Content-Encoding", "gzip"}, 413, codes.InvalidArgument},
	} {
		r := post(t, h, c.body, c.headers...)
		if r.code != c.code {
			t.Errorf("%s: %d %s, want %d", name, r.code, r.body, c.code)
		}
		if c.grpc == none {
			continue
		}
		p := new(statuspb.Status)
		unmarshal := proto.Unmarshal
		if c.headers[1] == typeJSON {
			unmarshal = protojson.Unmarshal
		}
		if err := unmarshal(r.body, p); err != nil || codes.Code(p.GetCode()) != c.grpc || p.GetMessage() == "" {
			t.Errorf("%s: %v, %v", name, p, err)
		}
	}
	err := cc.Invoke(t.Context(), exportMethod, large, new(emptypb.Empty))
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("too large, gRPC: %v", err)
	}
	err = cc.Invoke(t.Context(), exportMethod, large, new(emptypb.Empty), grpc.UseCompressor("gzip"))
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("too large when unzipped, gRPC: %v", err)
	}
	if err = cc.Invoke(t.Context(), "/opentelemetry.proto.collector.logs.v1.LogsService/Export", good, new(emptypb.Empty)); status.Code(err) != codes.Unimplemented {
		t.Errorf("logs: %v", err)
	}
	mixed := callSpans(0, 4, "catalog")
	spans := mixed.ResourceSpans[0].ScopeSpans[0].Spans
	spans[0].TraceId = nil
	spans[1].EndTimeUnixNano = 1 << 63
	spans[2].StartTimeUnixNano = 1
	spans[3].EndTimeUnixNano, spans[3].StartTimeUnixNano = spans[3].StartTimeUnixNano, spans[3].StartTimeUnixNano-uint64(25*time.Hour)
	answer := new(emptypb.Empty)
	if err := cc.Invoke(t.Context(), exportMethod, mixed, answer); err != nil {
		t.Fatal(err)
	}
	said := "left out: 2 " + FarOff + "; 1 " + TooLong + "; 1 no trace ID"
	if n, why := partial(t, answer.ProtoReflect().GetUnknown()); n != 4 || why != said {
		t.Errorf("of spans that cannot be: %d, %s", n, why)
	}
	s := whenRefused(t, h, 13)
	want := map[string]uint64{refusedKind: 3, refusedBody: 6, refusedLarge: 4}
	if fmt.Sprint(s.Refused) != fmt.Sprint(want) {
		t.Errorf("refused: %v, want %v", s.Refused, want)
	}
	if s.Spans != 4 || s.LeftOut[FarOff] != 2 || s.LeftOut[TooLong] != 1 {
		t.Errorf("%+v", s)
	}
}

// whenRefused returns what was taken in when so many requests are counted as refused. That may be after their clients know: gRPC tells them of a message that is too
// large before the hub knows of it.
func whenRefused(t *testing.T, h *Hub, requests uint64) Intake {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		s := decode[Status](t, get(t, h, "/api/v1/status")).Intake
		n := uint64(0)
		for _, of := range s.Refused {
			n += of
		}
		if n >= requests || time.Now().After(end) {
			return s
		}
	}
}

// comesLater sees that a hub tells who exports, by gRPC and HTTP, when to come again, and returns the body.
func comesLater(t *testing.T, h *Hub) (body []byte) {
	t.Helper()
	err := dial(t, h).Invoke(t.Context(), exportMethod, callSpans(0, 1, "catalog"), new(emptypb.Empty))
	details := status.Convert(err).Details()
	if status.Code(err) != codes.ResourceExhausted || len(details) != 1 || details[0].(*errdetails.RetryInfo).GetRetryDelay().AsDuration() != comeAgain {
		t.Errorf("%v, %v", err, details)
	}
	body = marshal(t, callSpans(0, 1, "catalog"))
	if r := post(t, h, body, "Content-Type", typeProtobuf); r.code != http.StatusTooManyRequests || r.header.Get("Retry-After") != "1" {
		t.Errorf("%d %v", r.code, r.header)
	}
	return body
}

// TestBusy: who has no turn is told when to come again, and is served then.
func TestBusy(t *testing.T) {
	h := openHub(t, Config{})
	defer closeHub(t, h)
	h.decoding.patience = 10 * time.Millisecond
	for range cap(h.decoding.room) {
		h.decoding.room <- struct{}{}
	}
	body := comesLater(t, h)
	for range cap(h.decoding.room) {
		<-h.decoding.room
	}
	if r := post(t, h, body, "Content-Type", typeProtobuf); r.code != http.StatusOK {
		t.Errorf("then: %d %s", r.code, r.body)
	}
	if s := decode[Status](t, get(t, h, "/api/v1/status")); s.Intake.Refused[refusedBusy] != 2 {
		t.Errorf("%+v", s.Intake)
	}
}

// TestIdle: requests that do not come hold up no others, and are ended.
func TestIdle(t *testing.T) {
	h := openHub(t, Config{readWithin: 300 * time.Millisecond})
	defer closeHub(t, h)
	cc := dial(t, h)
	var streams []grpc.ClientStream
	for range 4 * decoding() {
		s, err := cc.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true}, exportMethod)
		if err != nil {
			t.Fatal(err)
		}
		streams = append(streams, s)
	}
	conn, err := net.Dial("tcp", h.Addrs()[forOTLPHTTP])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "POST /v1/traces HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\nContent-Length: 100\r\n\r\nx", typeProtobuf); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := cc.Invoke(t.Context(), exportMethod, callSpans(0, 1, "catalog"), new(emptypb.Empty)); err != nil {
			t.Error(err)
		}
		if r := post(t, h, marshal(t, callSpans(0, 1, "catalog")), "Content-Type", typeProtobuf); r.code != http.StatusOK {
			t.Errorf("%d %s", r.code, r.body)
		}
	}
	for _, s := range streams {
		if err := s.RecvMsg(new(emptypb.Empty)); status.Code(err) != codes.DeadlineExceeded {
			t.Error(err)
		}
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || resp.StatusCode != http.StatusRequestTimeout {
		t.Errorf("%v, %v", resp, err)
	}
	if s := decode[Status](t, get(t, h, "/api/v1/status")); s.Intake.Refused[refusedSlow] != uint64(len(streams)+1) {
		t.Errorf("%+v", s.Intake)
	}
}

// TestSmallBombs: requests that are small, and large when they are decoded, are refused, or cost no more than they are long.
func TestSmallBombs(t *testing.T) {
	h := openHub(t, Config{})
	defer closeHub(t, h)
	links := &tracepb.Span{TraceId: id(1, 16), SpanId: id(1, 8), StartTimeUnixNano: uint64(time.Now().UnixNano()), EndTimeUnixNano: uint64(time.Now().UnixNano())}
	many := append(marshal(t, links), bytes.Repeat([]byte{0x6a, 0}, 4<<20)...)
	inMany := func(body []byte) []byte { // of ScopeSpans, ResourceSpans and TracesData
		for _, n := range []protowire.Number{2, 2, 1} {
			body = protowire.AppendBytes(protowire.AppendTag(nil, n, protowire.BytesType), body)
		}
		return body
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	if r := post(t, h, zipped(t, inMany(many)), "Content-Type", typeProtobuf, "Content-Encoding", "gzip"); r.code != http.StatusOK {
		t.Errorf("links: %d %s", r.code, r.body)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 8<<20 {
		t.Errorf("of links %d bytes are held", grown)
	}
	for _, text := range []string{`{"resourceSpans":[` + strings.Repeat("{},", 1<<20) + `{}]}`, `{"resourceSpans":[{"scopeSpans":[{"spans":[` + strings.Repeat("null,", 1<<19) + `{}]}]}]}`} {
		if r := post(t, h, zipped(t, []byte(text)), "Content-Type", typeJSON, "Content-Encoding", "gzip"); r.code != http.StatusBadRequest {
			t.Errorf("%d %s", r.code, r.body)
		}
	}
	if r := post(t, h, []byte(`"`+strings.Repeat("x", maxJSON)), "Content-Type", typeJSON); r.code != http.StatusRequestEntityTooLarge {
		t.Errorf("%d %s", r.code, r.body)
	}
	value := protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), nil)
	key := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "rpc.method")
	attribute := protowire.AppendBytes(protowire.AppendTag(nil, 9, protowire.BytesType), append(key, bytes.Repeat(value, 4<<20)...))
	if r := post(t, h, inMany(append(marshal(t, links), attribute...)), "Content-Type", typeProtobuf); r.code != http.StatusOK {
		t.Errorf("values: %d %s", r.code, r.body)
	}
}

// TestAccess: without tokens this host's loopback is served, and no web page of others; with them, who has one for what it asks.
func TestAccess(t *testing.T) {
	const reads, writes = "a token that reads", "a token that writes"
	body := marshal(t, callSpans(0, 1, "catalog"))
	h := openHub(t, Config{})
	for host, want := range map[string]int{"localhost:4319": 200, "LOCALHOST": 200, "127.0.0.1": 200, "[::1]:80": 200, "evil.example": 403, "evil.example:4319": 403, "127.0.0.1.evil.example": 403, "192.168.1.1": 403} {
		if r := get(t, h, "/api/v1/status", "Host", host); r.code != want {
			t.Errorf("asked for %s: %d, want %d", host, r.code, want)
		}
		if r := get(t, h, "/map", "Host", host); r.code != want || r.header.Get("Content-Security-Policy") == "" {
			t.Errorf("the dashboard, asked for %s: %d, want %d: %v", host, r.code, want, r.header)
		}
	}
	for origin, want := range map[string]int{"http://localhost:4319": 200, "https://evil.example": 403, "null": 403} {
		if r := get(t, h, "/api/v1/status", "Origin", origin); r.code != want {
			t.Errorf("from %s: %d, want %d", origin, r.code, want)
		}
		if r := post(t, h, body, "Content-Type", typeProtobuf, "Origin", origin); r.code != want {
			t.Errorf("sent from %s: %d, want %d", origin, r.code, want)
		}
	}
	closeHub(t, h)

	h = openHub(t, Config{Tokens: []Token{{Role: Read, Secret: reads}, {Role: Write, Secret: writes}}})
	defer closeHub(t, h)
	cc := dial(t, h)
	for authorization, can := range map[string][2]bool{"": {}, "Bearer " + reads: {true, false}, "bearer " + writes: {false, true}, "Basic " + reads: {}, "Bearer": {}, reads: {}, "Bearer wrong": {}} {
		want := map[bool]int{true: 200, false: 401}
		if r := get(t, h, "/api/v1/status", "Authorization", authorization, "Host", "hub.example"); r.code != want[can[0]] {
			t.Errorf("%q asks: %d", authorization, r.code)
		}
		if r := post(t, h, body, "Content-Type", typeProtobuf, "Authorization", authorization); r.code != want[can[1]] {
			t.Errorf("%q sends: %d", authorization, r.code)
		}
		ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", authorization)
		if err := cc.Invoke(ctx, exportMethod, callSpans(0, 1, "catalog"), new(emptypb.Empty)); (err == nil) != can[1] || err != nil && status.Code(err) != codes.Unauthenticated {
			t.Errorf("%q sends, gRPC: %v", authorization, err)
		}
	}
	for path, want := range map[string]int{"/healthz": 200, "/": 200, "/routes": 200, "/api/v1/none": 404, "/api/v1/brief": 401} {
		if r := get(t, h, path); r.code != want {
			t.Errorf("%s without a token: %d, want %d", path, r.code, want)
		}
	}
	for _, cfg := range []Config{{HTTP: "0.0.0.0:0"}, {OTLPGRPC: "[::]:0"}, {OTLPHTTP: "0.0.0.0:0", Tokens: []Token{{Role: Write, Secret: writes}}}, {Tokens: []Token{{Role: Write, Secret: "short"}}}, {Tokens: []Token{{Role: "admin", Secret: writes}}}, {HTTP: "nowhere"}} {
		cfg.Dir = t.TempDir()
		for _, at := range []*string{&cfg.HTTP, &cfg.OTLPGRPC, &cfg.OTLPHTTP} {
			if *at == "" {
				*at = loopback
			}
		}
		if h, err := Open(t.Context(), cfg); err == nil {
			t.Errorf("%+v is opened", cfg)
			closeHub(t, h)
		}
	}
	if _, err := Open(t.Context(), Config{}); err == nil {
		t.Error("without a folder")
	}
}
