package hub

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/stile-ipc/stile/hub/hubpb"
	"github.com/stile-ipc/stile/routemap"
)

// spanAt is a span of a trace, that began a while after a minute ago, and took 1 ms for each number that is below its own.
func spanAt(trace, id, parent uint64, side hubpb.Side, method string, peer *reporter, address string) *hubpb.Span {
	begun := time.Now().Add(-time.Minute + time.Duration(id)*time.Millisecond)
	s := &hubpb.Span{
		Trace: idOf(trace), Id: id, Parent: parent, Side: side, Method: method, Transport: "shm", Address: address, BegunUnixNano: uint64(begun.UnixNano()), Sent: 1000, Over: uint64(100-2*id) * uint64(time.Millisecond),
		Waits: &hubpb.SpanWaits{ClientQueue: 1000, Far: true, ServerQueue: 2000, Handler: 1 << 40, Limit: 300, Slot: 200, Window: 100, Admission: 50}, Request: 10, Response: 20,
	}
	if peer != nil {
		s.Peer = peer.is.GetIdentity()
	}
	if parent == 0 {
		s.Weight = 1
	}
	return s
}

func idOf(n uint64) []byte { return id(n, 16) }

func (r *reporter) reportSpans(routes []*hubpb.Route, spans ...*hubpb.Span) {
	r.t.Helper()
	r.sequence++
	req := &hubpb.ReportRequest{Process: r.is, Hub: r.hub, Sequence: r.sequence, ToUnixNano: int64(10 * time.Second), Routes: routes, Spans: spans, SpansLost: 3}
	r.send(req)
	r.send(req) // which comes twice and counts once
}

// TestSpansFold: what spans tell comes to the routes that processes count, whoever is at the other end, and adds no call to them.
func TestSpansFold(t *testing.T) {
	h := openHub(t, Config{})
	agents := agentsOf(t, h)
	front, back := newReporter(t, agents, 1, "front"), newReporter(t, agents, 2, "back", "127.0.0.1:50051")
	client, server := hubpb.Side_SIDE_CLIENT, hubpb.Side_SIDE_SERVER
	cancelled := spanAt(1, 1, 0, client, "/s.S/Known", back, "/elsewhere")
	cancelled.Try, cancelled.End, cancelled.Cause = 2, hubpb.SpanEnd_SPAN_END_CANCELLED, "a sibling has failed"
	front.reportSpans(
		[]*hubpb.Route{calls(client, "/s.S/Known", back, "/elsewhere", 5), calls(client, "/s.S/ByPort", nil, "localhost:50051", 2), calls(client, "/s.S/Nowhere", nil, "db.internal:5432", 6)},
		cancelled, spanAt(2, 1, 0, client, "/s.S/ByPort", nil, "localhost:50051"), spanAt(3, 1, 0, client, "/s.S/Nowhere", nil, "db.internal:5432"),
	)
	stream := calls(client, "/s.S/Stream", front, "/f", 4)
	stream.Stream = true
	back.reportSpans(
		[]*hubpb.Route{calls(server, "/s.S/Known", front, "/elsewhere", 5), stream},
		spanAt(1, 2, 1, server, "/s.S/Known", front, "/elsewhere"), spanAt(1, 3, 2, client, "/s.S/Stream", front, "/f"),
	)
	if s := h.agents.status(); s.Spans != 5 || s.SpansLost != 6 {
		t.Errorf("%+v", s)
	}
	h = reopen(t, h)
	defer closeHub(t, h)
	m, err := h.Map(t.Context(), time.Now().Add(-time.Hour), time.Now().Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]uint64{"front → back s.S/Known": 5, "front → back s.S/ByPort": 2, "front → external db.internal:5432 s.S/Nowhere": 6, "back → front s.S/Stream": 4}
	got := map[string]uint64{}
	for _, r := range m.Routes {
		got[r.Key.String()] = r.Calls
		if r.Traced != 1 || r.Sources != routemap.FromStile|routemap.FromTraces || r.Through == 0 || len(r.Evidence) != 1 {
			t.Errorf("%s: %+v", r.Key, r.Stats)
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) || m.Traces != 3 || m.Whole != 3 || len(m.Faults) != 0 {
		t.Errorf("%v, want %v; %d traces, %d whole, faults %v", got, want, m.Traces, m.Whole, m.Faults)
	}
	_, tl, err := traceOf(t, h, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range tl.Spans { // the server says more than there was time for
		if w := s.Waits; w == nil || w.ClientQueue+w.Transport+w.ServerQueue+w.Handler != s.Duration || w.ClientQueue != 1000 || w.ServerQueue != 2000 {
			t.Errorf("%s: %+v of %d", s.Name, w, s.Duration)
		}
		want := routemap.SpanCall{Sent: 1000, Over: int64(100-2*s.ID) * int64(time.Millisecond), Limit: 300, Slot: 200, Window: 100, Admission: 50}
		if s.Parent < 0 {
			want.Try, want.End, want.Cause = 2, routemap.Cancelled, "a sibling has failed"
		}
		if s.Call == nil || *s.Call != want || (s.Weight == 1) != (s.Parent < 0) {
			t.Errorf("%s, for %d: %+v", s.Name, s.Weight, s.Call)
		}
	}
}

func traceOf(t *testing.T, h *Hub, trace uint64) (string, *routemap.Timeline, error) {
	t.Helper()
	name := fmt.Sprintf("%x", idOf(trace))
	tl, _, err := h.store.Trace(t.Context(), name)
	return name, tl, err
}

// TestSpansRefused: a report with a span that cannot be is not taken in; one that is of another day is left out and counted.
func TestSpansRefused(t *testing.T) {
	h := openHub(t, Config{})
	defer closeHub(t, h)
	r := newReporter(t, agentsOf(t, h), 1, "front")
	for name, spoil := range map[string]func(*hubpb.Span){
		"no trace":         func(s *hubpb.Span) { s.Trace = nil },
		"a short trace":    func(s *hubpb.Span) { s.Trace = s.Trace[:8] },
		"a trace of 0":     func(s *hubpb.Span) { s.Trace = make([]byte, 16) },
		"no ID":            func(s *hubpb.Span) { s.Id = 0 },
		"its own parent":   func(s *hubpb.Span) { s.Parent = s.Id },
		"no side":          func(s *hubpb.Span) { s.Side = 0 },
		"a long method":    func(s *hubpb.Span) { s.Method = string(make([]byte, 300)) },
		"a peer too short": func(s *hubpb.Span) { s.Peer = []byte{1} },
		"a long time":      func(s *hubpb.Span) { s.Over = 1 << 60 },
		"a long wait":      func(s *hubpb.Span) { s.Waits.Handler = 1 << 63 },
		"an end of times":  func(s *hubpb.Span) { s.BegunUnixNano = 1 << 63 },
		"endless bytes":    func(s *hubpb.Span) { s.Request = 1 << 62 },
		"a long cause":     func(s *hubpb.Span) { s.Cause = string(make([]byte, 300)) },
		"a long limit":     func(s *hubpb.Span) { s.Waits.Limit = 1 << 63 },
		"no known end":     func(s *hubpb.Span) { s.End = -1 },
		"a heavy one":      func(s *hubpb.Span) { s.Weight = 1 << 31 },
	} {
		s := spanAt(1, 1, 0, hubpb.Side_SIDE_CLIENT, "/s.S/M", nil, "x")
		spoil(s)
		_, err := r.agents.Report(t.Context(), &hubpb.ReportRequest{Process: r.is, Hub: r.hub, Sequence: 1, Spans: []*hubpb.Span{s}})
		if bad := status.Code(err); !strings.HasPrefix(name, "a long") && bad != codes.InvalidArgument || bad == codes.OK {
			t.Errorf("%s: %v", name, err)
		}
	}
	unnamed := spanAt(2, 1, 0, hubpb.Side_SIDE_CLIENT, "", nil, "x") // which a client may call, and must not lose a window for
	if _, err := r.agents.Report(t.Context(), &hubpb.ReportRequest{Process: r.is, Hub: r.hub, Spans: []*hubpb.Span{unnamed}}); err != nil {
		t.Errorf("a call of no method: %v", err)
	}
	far := spanAt(1, 1, 0, hubpb.Side_SIDE_CLIENT, "/s.S/M", nil, "x")
	far.BegunUnixNano = uint64(time.Now().Add(48 * time.Hour).UnixNano())
	r.reportSpans(nil, far)
	if s := h.intake.status(); s.LeftOut[FarOff] != 1 || s.Held != 0 {
		t.Errorf("%+v", s)
	}
	all := make([]*hubpb.Span, maxReportSpans+1)
	for i := range all {
		all[i] = proto.CloneOf(&hubpb.Span{Id: 1})
	}
	if err := checkReport(&hubpb.ReportRequest{Process: r.is, Spans: all}); err == nil {
		t.Error("too many spans are taken")
	}
}

// TestClaimedTrace: spans of a process that claims to be in another's trace are below what they name, or make it a trace that is not whole; those of others are not replaced by them in
// number.
func TestClaimedTrace(t *testing.T) {
	h := openHub(t, Config{})
	agents := agentsOf(t, h)
	front, liar := newReporter(t, agents, 1, "front"), newReporter(t, agents, 2, "liar")
	client := hubpb.Side_SIDE_CLIENT
	front.reportSpans(nil, spanAt(1, 1, 0, client, "/s.S/M", nil, "x"))
	liar.reportSpans(nil, spanAt(1, 1, 0, client, "/s.S/Other", nil, "y"), spanAt(1, 5, 4, client, "/s.S/Orphan", nil, "y"), spanAt(1, 6, 1, client, "/s.S/Below", nil, "y"))
	h = reopen(t, h)
	defer closeHub(t, h)
	m, err := h.Map(t.Context(), time.Now().Add(-time.Hour), time.Now().Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	if m.Traces != 1 || m.Whole != 0 || m.Faults[routemap.FaultDuplicate] != 1 || m.Faults[routemap.FaultOrphan] != 1 {
		t.Errorf("%d traces, %d whole, faults %v", m.Traces, m.Whole, m.Faults)
	}
}

// TestReportedInTwoWindows: a trace whose spans come with two windows of their processes is one, and others' are not held up by that.
func TestReportedInTwoWindows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := newIntake(100, time.Now)
		at := time.Now().UnixNano()
		add := func(to func(context.Context, *batch), trace string, id, parent uint64) {
			b := in.batch()
			_ = b.take(routemap.Span{Trace: trace, ID: id, Parent: parent, Start: at, End: at + 1})
			to(t.Context(), b)
		}
		export := func(ctx context.Context, b *batch) {
			if err := in.add(ctx, b); err != nil {
				t.Error(err)
			}
		}
		for phase := range reportedSweep {
			add(in.addReported, "two", 1, 0)
			add(export, "own", 1, 0)
			var got []*routemap.Trace
			for n := 0; n < 2*sweepsInWindow && len(got) == 0; n++ {
				in.sweep()
				got = complete(in)
			}
			if len(got) != 1 || got[0].ID != "own" {
				t.Errorf("phase %d: %d are complete first", phase, len(got))
			}
			for range sweepsInWindow - 2 {
				in.sweep()
			}
			add(in.addReported, "two", 2, 1)
			if got := routemap.NewTrace(in.reported.Take(true)); got.Len() != 2 {
				t.Errorf("phase %d: a trace of %d spans", phase, got.Len())
			}
			in.sweep()
		}
	})
}

// complete takes out the traces that are complete.
func complete(in *intake) (all []*routemap.Trace) {
	for {
		traces, _ := in.complete()
		if len(traces) == 0 {
			return all
		}
		for _, spans := range traces {
			if t := routemap.NewTrace(spans); t.Len() > 0 {
				all = append(all, t)
			}
		}
	}
}

// sweepsInWindow is how many there are while a process's window is open, and a little longer.
const sweepsInWindow = 3
