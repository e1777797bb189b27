package stile

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"sync"
	"sync/atomic"

	"github.com/stile-ipc/stile/internal/spans"
	"github.com/stile-ipc/stile/internal/values"
	"github.com/stile-ipc/stile/telemetry"
	"github.com/stile-ipc/stile/transport/wire"
)

// look is what is seen of the bodies of a unary call, at its client.
type look struct {
	trace  spans.TraceID
	span   uint64    // the client's
	note   bool      // the span is the user's
	of     *handling // that makes the call, and is looked at, too; nil: none
	made   *values.Call
	bodies spans.Bodies
}

// handling is what a handler was asked, and what it asks others. Most ask nobody: so what it was asked is kept until it is known that somebody wants to know.
type handling struct {
	trace  spans.TraceID
	client uint64 // the span at its client; if that is the user's
	note   bool
	blobs  bool // the client does not tell of them

	request    []byte
	compressed byte
	looked     sync.Once
	calls      atomic.Pointer[values.Calls] // nil: nobody has wanted to know
	bodies     spans.Bodies
}

// maxKept is how large a request may be to be kept; a larger one is looked at.
const maxKept = 16 << 10

// parentOf reads what the user's tracing says of a call, if it records it.
func parentOf(md wire.MD) (trace spans.TraceID, span uint64, recorded bool) {
	said := md[traceParent]
	if len(said) != 1 {
		return trace, 0, false
	}
	const size = len("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	text, id, flags := said[0], [8]byte{}, [1]byte{}
	if len(text) < size || text[2] != '-' || text[35] != '-' || text[52] != '-' || text[:2] == "ff" {
		return trace, 0, false
	}
	for _, part := range []struct {
		to   []byte
		from string
	}{{trace[:], text[3:35]}, {id[:], text[36:52]}, {flags[:], text[53:55]}} {
		if _, err := hex.Decode(part.to, []byte(part.from)); err != nil {
			return trace, 0, false
		}
	}
	span = binary.BigEndian.Uint64(id[:])
	return trace, span, span != 0 && trace != spans.TraceID{} && flags[0]&1 != 0
}

// beginLook has a unary call's bodies looked at, if its trace is one of those of which bodies are, or its handler's are.
func (s *clientStream) beginLook() {
	if s.rec.route == nil {
		return
	}
	l := look{}
	recorded := true
	if span := s.rec.span; span != nil {
		l.trace, l.span = span.Trace, span.ID
	} else {
		l.trace, l.span, recorded = parentOf(s.call.MD)
		l.note = true
	}
	h := s.rec.handler.looked()
	if h != nil && recorded && h.trace == l.trace {
		l.of = h
	} else {
		h.misses()
		if !recorded || !l.chosen() {
			return
		}
	}
	kept := l // so that l itself is not allocated for calls that are not looked at
	s.rec.look = &kept
}

// chosen reports whether the trace is one of those whose bodies are looked at.
func (l *look) chosen() bool {
	if l.note {
		return traced.LooksForUser(l.trace)
	}
	return traced.Looks(l.trace)
}

// seeRequest looks at what a call asks.
func (s *clientStream) seeRequest(p *packed) {
	if s.rec.looks {
		s.rec.request = telemetry.PrintOf(p.data)
	}
	l := s.rec.look
	if l == nil {
		return
	}
	calls := l.of.asking()
	body := l.see(p.data, p.compressed, calls != nil)
	l.bodies.Request = body.Blobs
	if calls != nil {
		l.made = calls.Begin(l.span, body)
	}
}

// seeResponse looks at what a call is answered.
func (s *clientStream) seeResponse(msg *message) {
	if l := s.rec.look; l != nil {
		body := l.see(msg.data, msg.compressed, l.made != nil)
		l.bodies.Response = body.Blobs
		l.made.End(body)
	}
}

// see looks at a body: at its blobs, and if somebody wants to know at what it says.
func (l *look) see(data []byte, compressed byte, wanted bool) *values.Body {
	if !wanted && compressed == 0 {
		return values.Blobs(l.trace, data)
	}
	return scanned(l.trace, data, compressed)
}

// endLook hands in what was seen.
func (s *clientStream) endLook() {
	l := s.rec.look
	if l == nil {
		return
	}
	seen := l.bodies // alone: what else l has is not to be kept as long
	if l.note {
		traced.Add(s.rec.hint, &spans.Span{Note: true, Trace: l.trace, ID: l.span, Bodies: &seen})
	} else {
		s.rec.span.Bodies = &seen
	}
}

// scanned is what a body has. One that is compressed is not read.
func scanned(trace spans.TraceID, data []byte, compressed byte) *values.Body {
	if compressed != 0 {
		return &values.Body{}
	}
	return values.Scan(trace, data)
}

// looked returns what is known of the bodies of a handler's call; nil: nobody looks at them, or there is no handler.
func (c *callContext) looked() *handling {
	if c == nil {
		return nil
	}
	return c.handling.Load()
}

// unseen says that a call is made whose bodies nobody looks at.
func unseen(ctx context.Context, rec *clientRecord) {
	if rec.begun != 0 {
		handlerOf(ctx).looked().misses()
	}
}

// misses says that the handler makes a call whose bodies nobody looks at for it.
func (h *handling) misses() {
	if calls := h.asking(); calls != nil {
		calls.Unseen()
	}
}

// seeRequest looks at what the handler of a unary call is asked, if its trace, whoever makes it, is one of those of which bodies are looked at.
func (s *serverStream) seeRequest(msg *message) {
	if s.rec.arrived == 0 || isStream(s.desc) {
		return
	}
	h := s.handled()
	if h == nil {
		return
	}
	if h.request, h.compressed = msg.data, msg.compressed; len(msg.data) > maxKept {
		h.asking()
	}
	h.request = bytes.Clone(h.request)
	s.cc.handling.Store(h)
}

// handled is what bodies of the call are put together by. nil: nobody looks at them.
func (s *serverStream) handled() *handling {
	if span := s.rec.span; span != nil {
		if !traced.Looks(span.Trace) {
			return nil
		}
		return &handling{trace: span.Trace, blobs: span.Parent == 0}
	}
	trace, client, users := parentOf(s.cc.call.MD)
	if !users || !traced.LooksForUser(trace) {
		return nil
	}
	return &handling{trace: trace, client: client, note: true, blobs: !s.cc.conn.clientTraces}
}

// asking has looked at what the handler was asked. nil: nobody looks at that, or the handler is over.
func (h *handling) asking() *values.Calls {
	if h == nil {
		return nil
	}
	h.looked.Do(func() {
		body := h.see(h.request, h.compressed)
		h.request, h.bodies.Request = nil, body.Blobs
		h.calls.Store(values.NewCalls(body))
	})
	return h.calls.Load()
}

func (h *handling) see(data []byte, compressed byte) *values.Body {
	if compressed == 0 && !h.blobs {
		return values.Read(data)
	}
	return scanned(h.trace, data, compressed)
}

// seeReply looks at what the handler answers, if it has asked somebody, or if its client does not.
func (s *serverStream) seeReply(p *packed) {
	h := s.cc.handling.Load()
	if h == nil || h.calls.Load() == nil && !h.blobs {
		return
	}
	calls, body := h.asking(), h.see(p.data, p.compressed)
	h.bodies.Response, h.bodies.Told = body.Blobs, calls.End(body)
}

// endHandling hands in what was seen. The handler may keep its context.
func (s *serverStream) endHandling() {
	h := s.cc.handling.Swap(nil)
	if h == nil {
		return
	}
	h.looked.Do(func() {}) // who comes later finds no calls
	seen := h.bodies       // alone, as in endLook
	switch {
	case !h.note:
		s.rec.span.Bodies = &seen
	case h.blobs || len(seen.Told) > 0:
		traced.Add(uint32(s.cc.key), &spans.Span{Note: true, Trace: h.trace, ID: h.client, Bodies: &seen})
	}
}
