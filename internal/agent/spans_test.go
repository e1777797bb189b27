package agent

import (
	"crypto/rand"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/stile-ipc/stile/hub/hubpb"
	"github.com/stile-ipc/stile/internal/spans"
	"github.com/stile-ipc/stile/internal/values"
	"github.com/stile-ipc/stile/telemetry"
)

// startTracing starts an agent that takes spans, and returns what hands in so many traced calls.
func startTracing(t *testing.T, h *fakeHub) (a *Agent, call func(n int)) {
	t.Helper()
	r, b := telemetry.NewRecorder(), spans.New()
	r.Enable()
	b.Start()
	l := r.Link(telemetry.Client, "shm", telemetry.Peer{Process: telemetry.Identity{9}, Address: "/run/s"})
	name := telemetry.RouteName{Method: "/s/" + strings.Repeat("M", 200)}
	route := l.Route(name)
	a = Start(Config{Hub: h, Recorder: r, Spans: b, Process: Self(telemetry.Identity{1}), Listens: func() []string { return nil }, Logger: slog.New(slog.DiscardHandler)})
	return a, func(n int) {
		for range n {
			var trace spans.TraceID
			_, _ = rand.Read(trace[:])
			s := b.Child(trace, 0) // whatever number of traces there may be
			s.Weight = 1
			s.Link, s.Name, s.Begun = l, name, telemetry.Now()
			s.Sent, s.Over, s.Waited, s.Far, s.Queued, s.Worked = s.Begun+10, s.Begun+100, 5, true, 20, 30
			s.Code, s.Ended, s.Try, s.Request, s.Response = 4, spans.Expired, 2, 64, -1
			b.Add(0, s)
			route.Record(0, &telemetry.Call{Duration: time.Millisecond})
		}
	}
}

// TestSpans: spans are told as they are, by the clock of the wall.
func TestSpans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &fakeHub{name: 1}
		a, call := startTracing(t, h)
		synctest.Wait()
		before := time.Now()
		call(1)
		time.Sleep(3 * time.Second)
		a.Close(t.Context())
		// What the fake hub has is what was sent; the agent has let go of it since.
		if len(h.spans) != 1 || len(a.held) != 1 || a.held[0].report.Spans != nil || a.held[0].bytes != held(proto.Size(a.held[0].report)) || a.bytes != a.held[0].bytes {
			t.Fatalf("%d spans, held %+v", len(h.spans), a.held)
		}
		s := h.spans[0]
		if s.BegunUnixNano != uint64(before.UnixNano()) || s.Sent != 10 || s.Over != 100 || s.Handling != 0 || s.Handled != 0 {
			t.Errorf("%d, want %d; %+v", s.BegunUnixNano, before.UnixNano(), s)
		}
		if w := s.Waits; w.ClientQueue != 5 || !w.Far || w.ServerQueue != 20 || w.Handler != 30 {
			t.Errorf("%+v", w)
		}
		if s.Side != hubpb.Side_SIDE_CLIENT || len(s.Method) != 203 || s.Transport != "shm" || s.Peer[0] != 9 || s.Address != "/run/s" || s.Code != 4 || s.End != hubpb.SpanEnd_SPAN_END_EXPIRED || s.Try != 2 || s.Weight != 1 || s.Request != 64 || s.Response != -1 || len(s.Trace) != 16 || s.Id == 0 || s.Parent != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// TestSpansGoFirst: while the hub is away, spans are lost before a window of counts is, and counted.
func TestSpansGoFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &fakeHub{name: 1, away: true}
		a, call := startTracing(t, h)
		time.Sleep(Window / 2)
		const windows, each = 40, 1_500
		for range windows {
			call(each)
			time.Sleep(Window)
		}
		h.mu.Lock()
		h.away = false
		h.mu.Unlock()
		time.Sleep(Window)
		synctest.Wait()
		a.Close(t.Context())
		lost := uint64(0)
		for _, r := range h.got {
			lost += r.SpansLost
		}
		if h.calls() != windows*each || uint64(len(h.spans))+lost != windows*each || lost == 0 || len(h.spans) == 0 {
			t.Errorf("%d of %d calls are told, with %d spans, %d lost", h.calls(), windows*each, len(h.spans), lost)
		}
	})
}

// TestSpansFit: of too many spans whole traces are left out.
func TestSpansFit(t *testing.T) {
	r := &hubpb.ReportRequest{}
	const traces, each = 20_000, 3
	for i := range traces {
		for range each {
			r.Spans = append(r.Spans, &hubpb.Span{Trace: []byte{byte(i >> 8), 15: byte(i)}, Method: strings.Repeat("m", maxName)})
		}
	}
	fit(r)
	got := map[string]int{}
	for _, s := range r.Spans {
		got[string(s.Trace)]++
	}
	if n := proto.Size(r); n > maxReport || n < maxReport/4 || int(r.SpansLost)+len(r.Spans) != traces*each {
		t.Errorf("%d bytes, %d spans, %d lost", n, len(r.Spans), r.SpansLost)
	}
	for id, n := range got {
		if n%each != 0 {
			t.Errorf("of trace %x %d spans are left", id, n)
		}
	}
}

// TestBodies: what was seen of bodies is told as it is, of spans and in notes.
func TestBodies(t *testing.T) {
	seen := &spans.Bodies{
		Request: []values.Blob{{Hash: [16]byte{1, 2}, Size: 2000}}, Response: []values.Blob{{Hash: [16]byte{3}, Size: 1 << 30}, {Hash: [16]byte{4}, Size: 1024}},
		Told: []values.Told{{Span: 7, Looked: true, Uses: []uint64{5, 6}}, {Span: 8, Used: true}},
	}
	r := telemetry.NewRecorder()
	r.Enable()
	own := &spans.Span{Trace: spans.TraceID{1}, ID: 3, Link: r.Link(telemetry.Client, "shm", telemetry.Peer{}), Bodies: seen}
	note := &spans.Span{Trace: spans.TraceID{2}, ID: 9, Bodies: seen, Note: true}
	for _, s := range spansOf([]*spans.Span{own, note}, time.Now()) {
		b := s.Bodies
		if len(b.Request) != 1 || len(b.Response) != 2 || b.Request[0].Hash[1] != 2 || b.Request[0].Size != 2000 || b.Response[0].Size != 1<<30 || b.Response[1].Hash[0] != 4 ||
			len(b.Asked) != 2 || b.Asked[0].Span != 7 || !b.Asked[0].Looked || b.Asked[0].Used || !slices.Equal(b.Asked[0].Uses, []uint64{5, 6}) || !b.Asked[1].Used {
			t.Errorf("%+v", b)
		}
		if s.Note != (s.Id == 9) || len(s.Trace) != 16 || s.Trace[0] == 0 || s.Note && s.BegunUnixNano != 0 {
			t.Errorf("%+v", s)
		}
	}
}

// TestSpanBounds: no call has a span that a hub does not believe.
func TestSpanBounds(t *testing.T) {
	link := telemetry.NewRecorder()
	link.Enable()
	s := span(&spans.Span{Trace: spans.TraceID{1}, ID: 1, Link: link.Link(telemetry.Client, "shm", telemetry.Peer{}), Begun: 1, Sent: 2, Over: 1 + 300*time.Hour, Waited: -1, Far: true, Queued: 1 << 62, Worked: 1 << 62}, 0)
	if w := s.GetWaits(); s.GetSent() != 1 || s.GetOver() != uint64(longest) || w.GetClientQueue() != 0 || w.GetServerQueue() != uint64(longest) || w.GetHandler() != uint64(longest) {
		t.Errorf("%v", s)
	}
}
