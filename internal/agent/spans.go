package agent

import (
	"bytes"
	"cmp"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/stile-ipc/stile/hub/hubpb"
	"github.com/stile-ipc/stile/internal/spans"
	"github.com/stile-ipc/stile/internal/values"
	"github.com/stile-ipc/stile/telemetry"
)

// spansOf are spans as they are reported, the earliest first, in time of the wall, as now has it.
func spansOf(taken []*spans.Span, now time.Time) []*hubpb.Span {
	slices.SortFunc(taken, func(a, b *spans.Span) int { return cmp.Compare(a.Begun, b.Begun) })
	all := make([]*hubpb.Span, 0, len(taken))
	for _, s := range taken {
		all = append(all, span(s, now.UnixNano()-int64(telemetry.At(now))))
	}
	return all
}

func span(s *spans.Span, began int64) *hubpb.Span {
	after := func(t time.Duration) uint64 {
		if t == 0 {
			return 0
		}
		return bounded(t - s.Begun)
	}
	if s.Note {
		return &hubpb.Span{Trace: bytes.Clone(s.Trace[:]), Id: s.ID, Note: true, Bodies: bodies(s.Bodies)}
	}
	peer := &s.Link.Peer
	out := &hubpb.Span{
		Trace: bytes.Clone(s.Trace[:]), Id: s.ID, Parent: s.Parent, Side: hubpb.Side_SIDE_CLIENT, Method: short(s.Name.Method), Stream: s.Name.Stream, Transport: s.Link.Transport, Address: short(peer.Address), PeerPid: int64(peer.PID),
		BegunUnixNano: uint64(max(began+int64(s.Begun), 0)), Sent: after(s.Sent), Handling: after(s.Handling), Handled: after(s.Handled), Over: after(s.Over),
		Waits: &hubpb.SpanWaits{ClientQueue: bounded(s.Waited), Far: s.Far, ServerQueue: bounded(s.Queued), Handler: bounded(s.Worked), Limit: bounded(s.Limit), Slot: bounded(s.Slot), Window: bounded(s.Window), Admission: bounded(s.Admission)},
		Code:  s.Code, End: hubpb.SpanEnd(s.Ended), Cause: short(s.Cause), Try: s.Try, Weight: s.Weight, Request: s.Request, Response: s.Response, Bodies: bodies(s.Bodies),
	}
	if s.Link.Side == telemetry.Server {
		out.Side = hubpb.Side_SIDE_SERVER
	}
	if peer.Process != (telemetry.Identity{}) {
		out.Peer = peer.Process[:]
	}
	return out
}

// longest is how long a hub believes that a span took.
const longest = 24 * time.Hour

func bounded(d time.Duration) uint64 { return uint64(min(max(d, 0), longest)) }

func bodies(b *spans.Bodies) *hubpb.Bodies {
	if b == nil {
		return nil
	}
	out := &hubpb.Bodies{Request: blobs(b.Request), Response: blobs(b.Response)}
	for _, t := range b.Told {
		out.Asked = append(out.Asked, &hubpb.Asked{Span: t.Span, Looked: t.Looked, Uses: t.Uses, Used: t.Used})
	}
	return out
}

func blobs(all []values.Blob) (out []*hubpb.Blob) {
	for i := range all {
		out = append(out, &hubpb.Blob{Hash: all[i].Hash[:], Size: uint64(all[i].Size)})
	}
	return out
}

// fitSpans leaves out whole traces, chosen by their IDs, which all processes know alike, until a report is such that a hub takes it; the spans that are left out count as lost.
// It returns how long the report is then.
func fitSpans(r *hubpb.ReportRequest) (size int) {
	size = proto.Size(r)
	for keep := byte(128); len(r.Spans) > 0 && size > maxReport; keep /= 2 {
		had := len(r.Spans)
		r.Spans = slices.DeleteFunc(r.Spans, func(s *hubpb.Span) bool { return s.Trace[15] >= keep })
		r.SpansLost += uint64(had - len(r.Spans))
		size = proto.Size(r)
	}
	return size
}

// dropSpans lets go of the spans of a window that is held: the hub has them, or there is no room. It returns how many there were.
func (a *Agent) dropSpans(w *window) (n int) {
	n = len(w.report.Spans)
	if n > 0 {
		w.report.Spans = nil
		now := held(proto.Size(w.report))
		a.bytes += now - w.bytes
		w.bytes = now
	}
	return n
}

// held is how much memory a report takes that is so long when it is sent, about.
func held(size int) int { return 6 * size }
