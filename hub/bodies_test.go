package hub

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/stile-ipc/stile/hub/hubpb"
	"github.com/stile-ipc/stile/routemap"
)

// TestBodies: what processes have seen of bodies comes to the map, with their own spans.
func TestBodies(t *testing.T) {
	h := openHub(t, Config{})
	agents := agentsOf(t, h)
	front, back := newReporter(t, agents, 1, "front"), newReporter(t, agents, 2, "back", "127.0.0.1:1")
	client, server := hubpb.Side_SIDE_CLIENT, hubpb.Side_SIDE_SERVER
	blob := []*hubpb.Blob{{Hash: id(7, 16), Size: 2000}}
	var fronts, backs []*hubpb.Span
	for n := range uint64(6) {
		first, handler, one, two := spanAt(n+1, 1, 0, client, "/s.S/Do", back, ""), spanAt(n+1, 2, 1, server, "/s.S/Do", front, ""), spanAt(n+1, 3, 2, client, "/s.S/One", front, ""), spanAt(n+1, 60, 2, client, "/s.S/Two", front, "")
		one.Over, two.Over = uint64(20*time.Millisecond), uint64(20*time.Millisecond)
		first.Bodies, two.Bodies = &hubpb.Bodies{Request: blob}, &hubpb.Bodies{Response: blob}
		handler.Bodies = &hubpb.Bodies{Asked: []*hubpb.Asked{{Span: 3, Looked: true}, {Span: 60, Looked: true, Used: true}}}
		fronts, backs = append(fronts, first), append(backs, handler, one, two)
	}
	front.reportSpans(nil, fronts...)
	back.reportSpans(nil, backs...)
	h = reopen(t, h)
	defer closeHub(t, h)
	m, err := h.Map(t.Context(), time.Now().Add(-time.Hour), time.Now().Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][]string{}
	for _, f := range m.Findings {
		found[f.Kind] = f.Steps
	}
	if len(m.Findings) != 2 || !slices.Equal(found[routemap.Serial], []string{"s.S/One", "s.S/Two"}) || !slices.Equal(found[routemap.CarriedOn], []string{"front → back s.S/Do", "back → front s.S/Two (answer)"}) {
		t.Errorf("%+v", m.Findings)
	}
}

// TestBodiesRefused: a report that says of bodies what cannot be is not taken in.
func TestBodiesRefused(t *testing.T) {
	h := openHub(t, Config{})
	defer closeHub(t, h)
	r := newReporter(t, agentsOf(t, h), 1, "front")
	for name, s := range map[string]*hubpb.Span{
		"a short hash":      {Bodies: &hubpb.Bodies{Request: []*hubpb.Blob{{Hash: id(1, 15), Size: 1}}}},
		"an endless blob":   {Bodies: &hubpb.Bodies{Response: []*hubpb.Blob{{Hash: id(1, 16), Size: 1 << 63}}}},
		"many blobs":        {Bodies: &hubpb.Bodies{Response: slices.Repeat([]*hubpb.Blob{{Hash: id(1, 16), Size: 1}}, 17)}},
		"many calls":        {Bodies: &hubpb.Bodies{Asked: slices.Repeat([]*hubpb.Asked{{Span: 1}}, 65)}},
		"many uses":         {Bodies: &hubpb.Bodies{Asked: []*hubpb.Asked{{Span: 1, Uses: make([]uint64, 9)}}}},
		"a note of nothing": {Id: 0},
	} {
		s.Trace, s.Note = idOf(1), true
		if name != "a note of nothing" {
			s.Id = 1
		}
		if _, err := r.agents.Report(t.Context(), &hubpb.ReportRequest{Process: r.is, Hub: r.hub, Sequence: 1, Spans: []*hubpb.Span{s}}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestNotes: what processes have seen of calls that exporters send spans of is put with these, in whichever order they come within a window of the processes; notes
// alone are no trace. Without notes exporters' traces are complete as soon as ever.
func TestNotes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := newIntake(100, time.Now)
		at := time.Now().UnixNano()
		export := func(trace string) {
			b := in.batch()
			_ = b.take(routemap.Span{Trace: trace, ID: 1, Kind: routemap.Client, Start: at, End: at + 1})
			if err := in.add(t.Context(), b); err != nil {
				t.Error(err)
			}
		}
		note := func(trace string) {
			b := in.batch()
			b.notes = append(b.notes, routemap.Span{Trace: trace, ID: 1, Note: true, Bodies: &routemap.Bodies{}})
			in.addReported(t.Context(), b)
		}
		sweep := func(n int) {
			for range n {
				in.sweep()
			}
		}
		export("early")
		sweep(2)
		if got := complete(in); len(got) != 1 {
			t.Errorf("%d traces are complete", len(got))
		}
		note("alone") // from now on they are waited for
		for range 4 { // whenever it is
			export("after")
			sweep(sweepsInWindow - 1)
			note("after")
			note("before")
			sweep(1)
			export("before")
			for spans := in.assembler.Take(true); spans != nil; spans = in.assembler.Take(true) {
				if got := routemap.NewTrace(spans); got.ID != "alone" && (got.Len() != 1 || got.Span(0).Bodies == nil) {
					t.Errorf("%s: %d spans", got.ID, got.Len())
				}
			}
		}
		sweep(notedFor + 1)
		export("late")
		sweep(2)
		if got := complete(in); len(got) != 1 {
			t.Errorf("%d traces are complete, long after the last note", len(got))
		}
	})
}
