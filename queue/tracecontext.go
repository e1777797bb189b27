package queue

import (
	"context"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// tracing is what a message says of the trace that it belongs to, as W3C's Trace Context has it.
type tracing struct{ parent, state string }

var traceContext propagation.TraceContext

// Trace sets the message's traceparent, which is not looked at. Without it, a message has that of the span in the ctx that it is published with, if there is one.
func Trace(traceparent string) PublishOption {
	return func(p *publishing) { p.trace = tracing{parent: traceparent} }
}

// of takes what ctx has, unless something is set.
func (t *tracing) of(ctx context.Context) {
	if t.parent == "" {
		traceContext.Inject(ctx, (*traceCarrier)(t))
	}
}

// SpanContext returns the span that the message was published in, invalid if there was none. A handler of one message finds it in its ctx, too, as
// the remote parent of spans that it starts; one of batches can link to it.
func (m *Msg[T]) SpanContext() trace.SpanContext {
	if len(m.traceparent) == 0 {
		return trace.SpanContext{}
	}
	c := traceCarrier{string(m.traceparent), m.Header.Get(headerTraceState)}
	return trace.SpanContextFromContext(traceContext.Extract(context.Background(), &c))
}

// trace is the ID of the trace in which a message was published, as hexadecimal digits; empty: in none.
func (d *delivery) trace() string {
	c := traceCarrier{parent: d.Header.Get(headerTrace)}
	span := trace.SpanContextFromContext(traceContext.Extract(context.Background(), &c))
	if !span.IsValid() {
		return ""
	}
	return span.TraceID().String()
}

// inTrace returns the ctx that a handler of the message has.
func (m *Msg[T]) inTrace(ctx context.Context) context.Context {
	if span := m.SpanContext(); span.IsValid() {
		return trace.ContextWithRemoteSpanContext(ctx, span)
	}
	return ctx
}

// traceCarrier lets OpenTelemetry read and write them.
type traceCarrier tracing

func (c *traceCarrier) Get(name string) string {
	switch name {
	case headerTrace:
		return c.parent
	case headerTraceState:
		return c.state
	}
	return ""
}

func (c *traceCarrier) Set(name, value string) {
	switch name {
	case headerTrace:
		c.parent = value
	case headerTraceState:
		c.state = value
	}
}

func (c *traceCarrier) Keys() []string { return []string{headerTrace, headerTraceState} }
