package hub

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/stile-ipc/stile/hub/hubpb"
	"github.com/stile-ipc/stile/routemap"
)

const (
	maxReportSpans = 50_000 // of one report
	maxSpanWeight  = 1 << 30
	traceIDSize    = 16
)

func checkSpan(s *hubpb.Span) error {
	if err := checkBodies(s.GetBodies()); err != nil {
		return err
	}
	if err := checkNames(s.GetMethod(), s.GetTransport(), s.GetAddress(), s.GetCause()); err != nil {
		return err
	}
	var none [traceIDSize]byte
	if len(s.GetTrace()) != traceIDSize || string(s.GetTrace()) == string(none[:]) || s.GetId() == 0 || s.GetParent() == s.GetId() {
		return fmt.Errorf("%x with parent %x of trace %.64x: a trace's ID has %d bytes, and none is 0", s.GetId(), s.GetParent(), s.GetTrace(), traceIDSize)
	}
	if s.GetNote() {
		return nil
	}
	if s.GetSide() != hubpb.Side_SIDE_CLIENT && s.GetSide() != hubpb.Side_SIDE_SERVER {
		return fmt.Errorf("side %d", s.GetSide())
	}
	if n := len(s.GetPeer()); n != 0 && n != len(identity{}) {
		return fmt.Errorf("a peer's identity of %d bytes", n)
	}
	w := s.GetWaits()
	if max(s.GetSent(), s.GetHandling(), s.GetHandled(), s.GetOver(), w.GetClientQueue(), w.GetServerQueue(), w.GetHandler(), w.GetLimit(), w.GetSlot(), w.GetWindow(), w.GetAdmission()) > uint64(longest) || s.GetBegunUnixNano() > 1<<62 {
		return fmt.Errorf("from %d on: %s at most", s.GetBegunUnixNano(), longest)
	}
	if max(s.GetRequest(), s.GetResponse()) > maxReportBytes || s.GetWeight() > maxSpanWeight || s.GetEnd() < 0 {
		return fmt.Errorf("%d and %d bytes, for %d calls", s.GetRequest(), s.GetResponse(), s.GetWeight())
	}
	return nil
}

// spanBytes is how many bytes of a report are spans, about.
func spanBytes(r *hubpb.ReportRequest) (n int) {
	for _, s := range r.GetSpans() {
		n += proto.Size(s) + 3
	}
	return n
}

// addSpans hands over the spans of a report that was taken in.
func (h *Hub) addSpans(ctx context.Context, from *hubpb.Process, all []*hubpb.Span) {
	if len(all) == 0 {
		return
	}
	b, own := h.intake.batch(), h.forward.ownSpans(from)
	peers := map[peerKey]routemap.Node{}
	for _, s := range all {
		if s.GetNote() {
			b.notes = append(b.notes, routemap.Span{Trace: hex.EncodeToString(s.GetTrace()), ID: s.GetId(), Bodies: bodiesOf(s.GetBodies()), Note: true})
			continue
		}
		k := peerKey{string(s.GetPeer()), s.GetAddress()}
		peer, known := peers[k]
		if !known && s.GetSide() == hubpb.Side_SIDE_CLIENT {
			peer = h.agents.called(from, s.GetPeer(), s.GetAddress())
			peers[k] = peer
		}
		one := spanOf(from, peer, s)
		had := len(b.spans)
		_ = b.take(one) // says no more than that it goes on
		if len(b.spans) > had {
			own.add(s, &one, peer)
		}
	}
	own.flush()
	h.intake.addReported(ctx, b)
}

// peerKey is what tells who is called.
type peerKey struct{ identity, address string }

// called is who is at the other end of a client's call: named as draw names it.
func (a *agents) called(from *hubpb.Process, peer []byte, address string) routemap.Node {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(peer) == len(identity{}) {
		if p := a.processes[identity(peer)]; p != nil {
			return routemap.Node{Kind: routemap.Service, Name: p.is.GetService()}
		}
	}
	return a.where.called(from, address)
}

// spanOf is a span as a map has it: named as the routes that processes count.
func spanOf(from *hubpb.Process, peer routemap.Node, s *hubpb.Span) routemap.Span {
	begun := int64(s.GetBegunUnixNano())
	out := routemap.Span{
		Trace: hex.EncodeToString(s.GetTrace()), ID: s.GetId(), Parent: s.GetParent(), Kind: routemap.Client, Service: from.GetService(), Host: from.GetBoot(),
		Name: strings.TrimPrefix(s.GetMethod(), "/"), Start: begun, End: begun + int64(s.GetOver()), Transport: s.GetTransport(), Class: spanClass(s.GetCode()),
		Request: max(s.GetRequest(), -1), Response: max(s.GetResponse(), -1), Resent: s.GetTry() > 0, Weight: s.GetWeight(),
	}
	out.Operation, out.Bodies = out.Name, bodiesOf(s.GetBodies())
	if out.Host == "" {
		out.Host = from.GetHost()
	}
	if s.GetSide() == hubpb.Side_SIDE_SERVER {
		out.Kind = routemap.Server
		if s.GetHandled() > 0 { // what comes later is the answer's way
			out.End = begun + int64(min(s.GetHandled(), s.GetOver()))
		}
	} else {
		out.Peer, out.PeerKind = peer.Name, peer.Kind
	}
	out.Waits, out.Call = waitsOf(s, out.End-out.Start), callOf(s)
	return out
}

// waitsOf says where a call waited: of what a client saw, as it is counted; a server knows its own part.
func waitsOf(s *hubpb.Span, took int64) *routemap.SpanWaits {
	w := s.GetWaits()
	out := &routemap.SpanWaits{ClientQueue: min(int64(w.GetClientQueue()), took)}
	if !w.GetFar() {
		if out.ClientQueue == 0 {
			return nil
		}
		return out
	}
	left := took - out.ClientQueue // a server that says more than there was time for has that time
	out.Far = true
	out.ServerQueue = min(int64(w.GetServerQueue()), left)
	out.Handler = min(int64(w.GetHandler()), left-out.ServerQueue)
	out.Transport = left - out.ServerQueue - out.Handler
	return out
}

// callOf is what was noted of a call.
func callOf(s *hubpb.Span) *routemap.SpanCall {
	w := s.GetWaits()
	return &routemap.SpanCall{
		Sent: int64(s.GetSent()), Handling: int64(s.GetHandling()), Handled: int64(s.GetHandled()), Over: int64(s.GetOver()),
		Limit: int64(w.GetLimit()), Slot: int64(w.GetSlot()), Window: int64(w.GetWindow()), Admission: int64(w.GetAdmission()),
		Try: s.GetTry(), End: routemap.CallEnd(min(s.GetEnd(), hubpb.SpanEnd_SPAN_END_LOST)), Cause: s.GetCause(),
	}
}

func spanClass(code uint32) string {
	switch code {
	case 0:
		return ""
	case 1:
		return routemap.ClassCancel
	case 4:
		return routemap.ClassTimeout
	}
	return errorClass(code)
}
