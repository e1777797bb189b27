package stile

import (
	"context"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/stile-ipc/stile/internal/spans"
	"github.com/stile-ipc/stile/telemetry"
	"github.com/stile-ipc/stile/transport/wire"
)

// traced chooses which calls of this process are traced, while it reports.
var traced = spans.New()

const (
	traceParent      = "traceparent"                // of W3C: the user traces the call
	previousAttempts = "grpc-previous-rpc-attempts" // gRFC A6
)

// handlerKey is the key under which the context of a handler has its callContext.
type handlerKey struct{}

// handlerOf returns the handler whose context one is, or was made of; nil: none.
func handlerOf(ctx context.Context) *callContext {
	cc, _ := ctx.Value(handlerKey{}).(*callContext)
	return cc
}

// spanOf returns the span of a call that a handler makes, if it is traced: as the handler's call is. Without a handler it is if it is chosen.
// What a handler calls that has run for long, or has called many, is no part of its trace any more.
func spanOf(cc *callContext, now time.Duration) *spans.Span {
	if cc == nil || now-cc.begun > longHandler {
		return traced.Root()
	}
	t := cc.call.Trace
	if t == nil {
		return nil
	}
	if cc.children.Add(1) > maxChildren {
		return traced.Root()
	}
	return traced.Child(t.ID, t.Span)
}

// Bounds of the calls that are of a handler's trace.
const (
	longHandler = 30 * time.Second
	maxChildren = 1000
)

// trace begins the span of a call that is about to be sent.
func (s *clientStream) trace(m *clientMux) {
	if s.rec.route == nil {
		return
	}
	s.rec.handler = handlerOf(s.ctx)
	if len(s.call.MD[traceParent]) > 0 {
		return
	}
	span := spanOf(s.rec.handler, s.rec.begun)
	if span == nil {
		return
	}
	s.rec.span = span
	span.Link, span.Name, span.Try = m.link, s.rec.route.Name(), triesOf(s.call.MD)
	if m.settings.readsTraces {
		s.inTrace = wire.Trace{ID: span.Trace, Span: span.ID}
		s.call.Trace = &s.inTrace
	}
}

// endSpan hands in the span of a call that was counted as c.
func (s *clientStream) endSpan(c *telemetry.Call) {
	span := s.rec.span
	span.Begun = c.Begun
	if s.try != nil {
		span.Limit = s.try.Queued
	}
	span.Slot, span.Window = s.rec.slot, time.Duration(s.out.blocked.Load())
	span.Over = span.Begun + c.Duration
	span.Waited, span.Far, span.Code = c.Waited, c.Far, c.Code
	span.Queued = min(max(c.Queued, 0), c.Duration) // as a server says that may be wrong
	span.Worked = min(max(c.Handled, 0), c.Duration-span.Queued)
	span.Request, span.Response = int64(c.Request), int64(c.Response)
	span.Ended, span.Cause = endAndCause(s.ctx, c.Code)
	if span.Ended == spans.Answered && c.Code != 0 && s.in.status() == nil {
		span.Ended = spans.Lost
	}
	traced.Add(s.rec.hint, span)
}

// endedBy says whether it was by the context that a call ended. Its timer may be late.
func endedBy(ctx context.Context, code uint32) spans.Ended {
	switch codes.Code(code) {
	case codes.DeadlineExceeded:
		if d, has := ctx.Deadline(); has && time.Until(d) <= 0 {
			return spans.Expired
		}
	case codes.Canceled:
		if ctx.Err() != nil {
			return spans.Cancelled
		}
	}
	return spans.Answered
}

// endAndCause is endedBy at a client, and why its context was cancelled if that is more than that it was, as with [context.WithCancelCause] and errgroup's.
func endAndCause(ctx context.Context, code uint32) (end spans.Ended, cause string) {
	if end = endedBy(ctx, code); end == spans.Cancelled {
		if err := context.Cause(ctx); err != nil && err != ctx.Err() {
			cause = err.Error()
		}
	}
	return end, cause
}

func triesOf(md wire.MD) uint32 {
	if said := md[previousAttempts]; len(said) > 0 {
		n, _ := strconv.ParseUint(said[0], 10, 16)
		return uint32(n)
	}
	return 0
}

// traceFar hands in the span of a call that went over gRPC, if it is traced: there its server is not told. Where there are stats handlers it is not
// known whether the user traces it.
func (e *entrance) traceFar(ctx context.Context, handler *callContext, l *telemetry.Link, name telemetry.RouteName, begun time.Duration, c *telemetry.Call) {
	if len(e.set.stats) > 0 {
		return
	}
	span := spanOf(handler, begun)
	if span == nil {
		return
	}
	md, _ := metadata.FromOutgoingContext(ctx)
	if len(md[traceParent]) > 0 {
		return
	}
	span.Link, span.Name, span.Try = l, name, triesOf(wire.MD(md))
	span.Begun, span.Over = begun, begun+c.Duration
	span.Waited, span.Code, span.Request, span.Response = c.Waited, c.Code, -1, -1
	span.Ended, span.Cause = endAndCause(ctx, c.Code)
	traced.Add(uint32(span.ID), span)
}

// trace begins the span of a call whose handler is about to begin. Afterwards the call's trace is what its handler's own calls are to belong to.
func (s *serverStream) trace() {
	c := s.cc
	from := c.call.Trace
	c.call.Trace, c.begun = nil, s.rec.begun
	if s.rec.arrived == 0 || len(c.call.MD[traceParent]) > 0 {
		return
	}
	var span *spans.Span
	switch {
	case from != nil:
		span = traced.Child(from.ID, from.Span)
	case !c.conn.clientTraces:
		span = traced.Root()
	}
	if span == nil {
		return
	}
	s.rec.span = span
	c.call.Trace = &wire.Trace{ID: span.Trace, Span: span.ID}
}

// TraceID implements [lazyctx.Traced], for a handler.
func (c *callContext) TraceID() (id [16]byte) {
	if t := c.call.Trace; t != nil {
		id = t.ID
	}
	return id
}

// endSpan hands in the span of a call that was counted as c on r.
func (s *serverStream) endSpan(r *telemetry.Route, c *telemetry.Call) {
	span := s.rec.span
	span.Link, span.Name, span.Try = s.cc.conn.link, r.Name(), triesOf(s.cc.call.MD)
	span.Begun, span.Handling, span.Handled, span.Over = s.rec.arrived, s.rec.arrived+c.Queued, s.rec.ended, telemetry.Now()
	span.Far, span.Queued, span.Worked, span.Code = true, c.Queued, c.Handled, c.Code
	span.Admission = time.Duration(s.cc.delayed.Load())
	span.Request, span.Response = int64(c.Request), int64(c.Response)
	if span.Ended = endedBy(s.ctx, c.Code); span.Ended == spans.Cancelled && s.cc.conn.gone.Load() {
		span.Ended = spans.Lost
	}
	traced.Add(uint32(s.cc.key), span)
}
