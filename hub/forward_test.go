package hub

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/stile-ipc/stile/hub/hubpb"
	"github.com/stile-ipc/stile/routemap"
	"github.com/stile-ipc/stile/telemetry"
)

// collector is one that does as told, over HTTP.
type collector struct {
	*httptest.Server
	mu     sync.Mutex
	bodies [][]byte
	heads  []http.Header
	got    chan struct{}                           // one for each request that was taken
	answer func(n int, w http.ResponseWriter) bool // false: it was not taken
	n      atomic.Int64
}

func newCollector(t *testing.T, answer func(n int, w http.ResponseWriter) bool) *collector {
	c := &collector{got: make(chan struct{}, 1000), answer: answer}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || !c.answer(int(c.n.Add(1)), w) {
			return
		}
		c.mu.Lock()
		c.bodies, c.heads = append(c.bodies, body), append(c.heads, r.Header)
		c.mu.Unlock()
		c.got <- struct{}{}
	}))
	t.Cleanup(c.Close)
	return c
}

func within(t *testing.T, what string, ch <-chan struct{}) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(20 * time.Second):
		t.Fatalf("it waits for %s", what)
	}
}

func soon(int) time.Duration { return time.Millisecond }

// TestForward: traces and metrics that come, each way, are another hub's, too, as they came, over HTTP and gRPC.
func TestForward(t *testing.T) {
	secret := strings.Repeat("w", 32)
	for _, way := range []string{"http", "grpc"} {
		dir := t.TempDir()
		to := openHub(t, Config{Dir: dir, Tokens: []Token{{Role: Write, Secret: secret}, {Role: Read, Secret: secret}}})
		at := to.Addrs()[map[string]string{"http": forOTLPHTTP, "grpc": forOTLPGRPC}[way]]
		from := openHub(t, Config{Forward: &Forward{URL: way + "://" + at, Headers: map[string]string{"authorization": "Bearer " + secret}}})
		if err := dial(t, from).Invoke(t.Context(), exportMethod, callSpans(0, 10, "catalog"), new(emptypb.Empty)); err != nil {
			t.Fatal(err)
		}
		inJSON, err := protojson.Marshal(callMetrics("front", "b", 5))
		if err != nil {
			t.Fatal(err)
		}
		spans := fmt.Sprintf(`{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"%032x","spanId":"0000000000000001","kind":3,"name":"Pay","startTimeUnixNano":"%d","endTimeUnixNano":"%d"}]}]}]}`,
			99, time.Now().UnixNano(), time.Now().UnixNano()+1e6)
		for what, r := range map[string]reply{
			"gzip":          postMetrics(t, from, zipped(t, marshal(t, callMetrics("front", "a", 5))), "Content-Type", typeProtobuf, "Content-Encoding", "gzip"),
			"JSON":          postMetrics(t, from, inJSON, "Content-Type", typeJSON),
			"spans in JSON": post(t, from, []byte(spans), "Content-Type", typeJSON),
		} {
			if r.code != http.StatusOK {
				t.Errorf("%s: %d %s", what, r.code, r.body)
			}
		}
		closeHub(t, from) // which sends what waits
		if s := from.forward.status(); s.Sent != 4 || len(s.Dropped) != 0 || s.Failing != "" || s.Waiting != 0 {
			t.Errorf("%s: %+v", way, s)
		}
		s := decode[Status](t, get(t, to, "/api/v1/status", "Authorization", "Bearer "+secret))
		if s.Intake.Spans != 21 || len(s.Intake.LeftOut) != 0 || s.Metrics.Points != 2 || len(s.Intake.Refused) != 0 {
			t.Errorf("%s: %+v %+v", way, s.Intake, s.Metrics)
		}
		closeHub(t, to)
	}
}

// TestForwardAgain: what a collector cannot take now comes again, and what it refuses does not; what it leaves out is counted.
func TestForwardAgain(t *testing.T) {
	c := newCollector(t, func(n int, w http.ResponseWriter) bool {
		switch n {
		case 1, 2:
			w.WriteHeader(http.StatusServiceUnavailable)
			return false
		case 4:
			w.WriteHeader(http.StatusBadRequest)
			return true
		}
		w.Header().Set("Content-Type", typeProtobuf)
		_, _ = w.Write(told{map[string]uint64{"x": 3}, ""}.partialSuccess())
		return true
	})
	h := openHub(t, Config{Forward: &Forward{URL: c.URL + "/base/", Headers: map[string]string{"x-tenant": "one"}, backoff: soon}})
	body := marshal(t, callSpans(0, 1, "a"))
	for range 2 {
		post(t, h, body, "Content-Type", typeProtobuf)
		within(t, "the collector", c.got)
	}
	closeHub(t, h)
	s := h.forward.status()
	if s.Sent != 1 || s.Rejected != 3 || s.Dropped[dropRefused] != 1 || c.n.Load() != 4 {
		t.Errorf("%+v after %d requests", s, c.n.Load())
	}
	if !slices.ContainsFunc(c.bodies, func(b []byte) bool { return bytes.Equal(b, body) }) || c.heads[0].Get("X-Tenant") != "one" || c.heads[0].Get("Content-Type") != typeProtobuf {
		t.Errorf("%v", c.heads[0])
	}
}

// TestForwardRefused: of what a collector refuses the log is told once, though it takes others in between.
func TestForwardRefused(t *testing.T) {
	c := newCollector(t, func(n int, w http.ResponseWriter) bool {
		if n%2 == 1 {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
		}
		return true
	})
	var log bytes.Buffer
	f, err := newForwarder(&Forward{URL: c.URL, backoff: soon}, [16]byte{1}, nil, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	for range 6 {
		f.offer(parcel{signal: points, body: []byte("x")})
		within(t, "the collector", c.got)
	}
	if err := f.close(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := f.status()
	if said := strings.Count(log.String(), "level=ERROR"); said != 1 || s.Dropped[dropRefused] != 3 || s.Sent != 3 || s.Failing != "" {
		t.Errorf("said %d times: %s %+v", said, log.String(), s)
	}
}

// TestForwardFull: while a collector stands still nobody who sends waits, the oldest is dropped and counted, and the newest arrives at last.
func TestForwardFull(t *testing.T) {
	stands := make(chan struct{})
	c := newCollector(t, func(int, http.ResponseWriter) bool { <-stands; return true })
	f, err := newForwarder(&Forward{URL: c.URL, backoff: soon}, [16]byte{1}, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	const n, size = 60, 1 << 20
	for i := range n {
		f.offer(parcel{signal: points, body: bytes.Repeat([]byte{byte(i)}, size)})
	}
	s := f.status()
	if s.Bytes > maxWaiting || s.Dropped[dropRoom] < n-maxWaiting/size-1 {
		t.Errorf("%+v", s)
	}
	close(stands)
	if err := f.close(t.Context()); err != nil {
		t.Fatal(err)
	}
	s = f.status()
	if int(s.Sent)+int(s.Dropped[dropRoom]) != n || s.Waiting != 0 || s.Bytes != 0 {
		t.Errorf("%+v", s)
	}
	if last := c.bodies[len(c.bodies)-1]; last[0] != n-1 || len(last) != size {
		t.Errorf("the last one is %d, of %d bytes", last[0], len(last))
	}
	if !slices.IsSortedFunc(c.bodies, func(a, b []byte) int { return int(a[0]) - int(b[0]) }) {
		t.Error("metrics are not in order")
	}
}

// TestForwardSmall: what waits is bounded by what it takes, also if it says nothing but where it has been.
func TestForwardSmall(t *testing.T) {
	f := &forwarder{self: strings.Repeat("a", 32), dropped: map[string]uint64{}}
	f.offer(parcel{signal: traces, via: "0123"})
	f.offer(parcel{signal: traces, body: []byte("x"), via: strings.Repeat("0", 30_000)})
	if s := f.status(); s.Waiting != 0 || s.Dropped[dropVia] != 1 {
		t.Errorf("an empty one and one of a long way: %+v", s)
	}
	const each = 1 + 200 + 1 + 32 // a body, and a way to here
	for range 2 * maxWaiting / each {
		f.offer(parcel{signal: traces, body: make([]byte, 1), via: strings.Repeat("0", 200)})
	}
	if s := f.status(); s.Waiting == 0 || s.Waiting > maxWaiting/each || s.Bytes > maxWaiting || s.Bytes < s.Waiting*each {
		t.Errorf("%d wait, of %d bytes", s.Waiting, s.Bytes)
	}
}

// TestForwardAway: a hub whose collector is not there takes all in, says so, and can be closed.
func TestForwardAway(t *testing.T) {
	l, err := net.Listen("tcp", loopback)
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, way := range []string{"http", "grpc"} {
		tried := make(chan struct{}, 100)
		h := openHub(t, Config{Forward: &Forward{URL: way + "://" + at, backoff: func(n int) time.Duration { tried <- struct{}{}; return time.Hour }}})
		post(t, h, marshal(t, callSpans(0, 1, "a")), "Content-Type", typeProtobuf)
		within(t, "the first try", tried)
		if s := decode[Status](t, get(t, h, "/api/v1/status")); s.Forward == nil || s.Forward.Failing == "" || s.Intake.Spans != 2 {
			t.Errorf("%s: %+v", way, s.Forward)
		}
		closeHub(t, h)
		if s := h.forward.status(); s.Dropped[dropClosed] != 1 {
			t.Errorf("%s: %+v", way, s)
		}
	}
}

// TestForwardCircle: what comes around is not taken in again, nor sent on.
func TestForwardCircle(t *testing.T) {
	var h *Hub
	around := make(chan struct{}, 10)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		answer := post(t, h, body, "Content-Type", r.Header.Get("Content-Type"), viaHeader, r.Header.Get(viaHeader))
		w.WriteHeader(answer.code)
		around <- struct{}{}
	}))
	defer proxy.Close()
	h = openHub(t, Config{Forward: &Forward{URL: proxy.URL}})
	post(t, h, marshal(t, callSpans(0, 1, "a")), "Content-Type", typeProtobuf)
	within(t, "the proxy", around)
	many := strings.Repeat("0123,", maxVia)
	post(t, h, marshal(t, callSpans(1, 1, "a")), "Content-Type", typeProtobuf, viaHeader, many)
	s := decode[Status](t, get(t, h, "/api/v1/status"))
	if s.Intake.Spans != 4 || s.Intake.Refused[refusedAround] != 1 || s.Forward.Dropped[dropVia] != 1 {
		t.Errorf("%+v, %+v", s.Intake, s.Forward)
	}
	closeHub(t, h)
}

// TestForwardTLS: it speaks TLS with whom it is told to trust, and with nobody else.
func TestForwardTLS(t *testing.T) {
	got := make(chan struct{}, 10)
	s := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { got <- struct{}{} }))
	defer s.Close()
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	trusted := x509.NewCertPool()
	trusted.AddCert(s.Certificate())
	for _, trusts := range []bool{true, false} {
		refused := make(chan struct{}, 100)
		forward := &Forward{URL: s.URL, Headers: map[string]string{"a": "secret"}, TLS: &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}, backoff: func(int) time.Duration { refused <- struct{}{}; return time.Hour }}
		if trusts {
			forward.TLS.RootCAs = trusted
		}
		f, err := newForwarder(forward, [16]byte{}, nil, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		f.offer(parcel{body: []byte("x")})
		within(t, fmt.Sprintf("it, trusted: %v", trusts), map[bool]chan struct{}{true: got, false: refused}[trusts])
		if err := f.close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// TestForwardConfig: what cannot work, or would show secrets, is refused.
func TestForwardConfig(t *testing.T) {
	l, err := net.Listen("tcp", loopback)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	secrets := map[string]string{"authorization": "x"}
	for _, f := range []*Forward{
		{URL: ""}, {URL: "localhost:4318"}, {URL: "ftp://localhost"}, {URL: "http://user:password@localhost:4318"}, {URL: "grpc://localhost:4317/path"}, {URL: "http://%"},
		{URL: "http://localhost:4318?api_key=secret"}, {URL: "http://localhost:4318#api_key"}, {URL: "grpc://localhost:4317?api_key=secret"},
		{URL: "http://" + l.Addr().String()}, {URL: "grpc://" + strings.Replace(l.Addr().String(), "127.0.0.1", "localhost", 1)},
		{URL: "http://collector:4318", Headers: secrets}, {URL: "grpc://10.0.0.1:4317", Headers: secrets},
	} {
		if got, err := newForwarder(f, [16]byte{}, map[string]net.Listener{forOTLPHTTP: l}, slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("%+v is taken", f)
			_ = got.close(context.Background())
		} else if strings.Contains(err.Error(), "api_key") || strings.Contains(err.Error(), "password@") {
			t.Error(err)
		}
	}
}

// TestMayAgain: what OTLP lets come again does, when the collector says.
func TestMayAgain(t *testing.T) {
	with := func(c codes.Code, after time.Duration) error {
		s, err := status.New(c, "").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(after)})
		if err != nil {
			t.Fatal(err)
		}
		return s.Err()
	}
	for _, c := range []struct {
		err   error
		again bool
		after time.Duration
	}{
		{status.Error(codes.Unavailable, ""), true, 0}, {with(codes.Unavailable, time.Second), true, time.Second}, {with(codes.Unavailable, -time.Second), true, 0}, {status.Error(codes.ResourceExhausted, ""), false, 0},
		{with(codes.ResourceExhausted, 2*time.Second), true, 2 * time.Second}, {status.Error(codes.InvalidArgument, ""), false, 0}, {status.Error(codes.Unimplemented, ""), false, 0},
		{status.Error(codes.PermissionDenied, ""), false, 0}, {status.Error(codes.DataLoss, ""), true, 0}, {status.Error(codes.DeadlineExceeded, ""), true, 0},
	} {
		var later again
		if is := errors.As(mayAgain(c.err), &later); is != c.again || later.after != c.after {
			t.Errorf("%v: %v, after %s", c.err, is, later.after)
		}
	}
	for text, want := range map[string]time.Duration{"": 0, "3": 3 * time.Second, "-3": 0, "x": 0, "99999999999": forwardTries, "1000000": forwardTries, "Wed, 21 Oct 2015 07:28:00 GMT": 0} {
		if got := retryAfter(text); got != want {
			t.Errorf("%q: %s", text, got)
		}
	}
	if retryAfter(time.Now().Add(time.Minute).UTC().Format(http.TimeFormat)) < 30*time.Second {
		t.Error("a time is not heeded")
	}
	for body, want := range map[string]uint64{`{}`: 0, `{"partialSuccess":{"rejectedSpans":"3"}}`: 3, `{"partialSuccess":{"rejectedDataPoints":4}}`: 4, `x`: 0} {
		if got := rejectedBy([]byte(body), true); got != want {
			t.Errorf("%s: %d", body, got)
		}
	}
	for _, body := range []string{"", "\x0a", "\x0a\x05", "\x0a\x01\x08", "\x12\x00"} {
		if got := rejectedBy([]byte(body), false); got != 0 {
			t.Errorf("%q: %d", body, got)
		}
	}
}

// TestForwardOwn: what processes count is told to who is forwarded to, as OpenTelemetry's exponential histograms: another hub has the same routes with the same calls, and
// not a second time by the services' own metrics.
func TestForwardOwn(t *testing.T) {
	dir := t.TempDir()
	to := openHub(t, Config{Dir: dir})
	from := openHub(t, Config{Forward: &Forward{URL: "grpc://" + to.Addrs()[forOTLPGRPC]}})
	front, back := newReporter(t, agentsOf(t, from), 1, "front"), newReporter(t, agentsOf(t, from), 2, "back")
	front.report(calls(hubpb.Side_SIDE_CLIENT, "/s.S/M", back, "", 20))
	back.report(calls(hubpb.Side_SIDE_SERVER, "/s.S/M", front, "", 20))
	closeHub(t, from)
	sent := map[string]telemetry.Histogram{}
	from.totals.each(func(k routemap.Key, s *total) { sent[k.String()] = s.Client })
	if r := postMetrics(t, to, marshal(t, callMetrics("front", "back", 20)), "Content-Type", typeProtobuf); r.code != http.StatusOK {
		t.Errorf("%d %s", r.code, r.body)
	}
	closeHub(t, to)
	to = openHub(t, Config{Dir: dir})
	defer closeHub(t, to)
	m, err := to.Map(t.Context(), time.Now().Add(-time.Hour), time.Now().Add(time.Minute))
	if err != nil || len(m.Routes) != 1 {
		t.Fatal(err, m.Routes)
	}
	r, was := m.Routes[0], sent["front → back s.S/M"]
	if r.Key.String() != "front → back s.S/M" || r.Transport != "shm" || r.Calls != 20 || r.Client.Count() != 20 || r.Server.Count() != 20 || r.Sources != routemap.FromMetrics {
		t.Errorf("%s %s: %+v", r.Key, r.Transport, r.Stats)
	}
	if off := math.Abs(float64(r.Client.Quantile(0.5))/float64(was.Quantile(0.5)) - 1); off > 0.04 || math.Abs(r.Client.Mean()/was.Mean()-1) > 0.001 {
		t.Errorf("the median is off by %.3f; means %g and %g", off, r.Client.Mean(), was.Mean())
	}
}
