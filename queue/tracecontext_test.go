package queue

import (
	"context"
	"errors"
	"slices"
	"testing"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// TestSpanContext: a handler has the span that its message was published in, also when it is tried again, dies and is redriven.
func TestSpanContext(t *testing.T) {
	const given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
	state, err := trace.ParseTraceState("vendor=1,other=2")
	if err != nil {
		t.Fatal(err)
	}
	span := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled, TraceState: state, Remote: true})
	inside := trace.ContextWithSpanContext(t.Context(), span)
	q := open(t, t.TempDir())
	top := topic(t, q, "orders")
	type published struct {
		name string
		call func(name string) error
		want string // trace ID
	}
	publishes := []published{
		{"Publish", func(name string) error { _, err := top.Publish(inside, wrapperspb.String(name)); return err }, span.TraceID().String()},
		{"PublishAll", func(name string) error { _, err := top.PublishAll(inside, []text{wrapperspb.String(name)}); return err }, span.TraceID().String()},
		{"Trace", func(name string) error {
			_, err := top.Publish(inside, wrapperspb.String(name), Trace(given))
			return err
		}, "0af7651916cd43dd8448eb211c80319c"},
		{"no span", func(name string) error { _, err := top.Publish(t.Context(), wrapperspb.String(name)); return err }, "00000000000000000000000000000000"},
		{"not a traceparent", func(name string) error {
			_, err := top.Publish(t.Context(), wrapperspb.String(name), Trace("00-1-2-3"))
			return err
		}, "00000000000000000000000000000000"},
	}
	type handled struct {
		name             string
		context, message trace.SpanContext
	}
	got := make(chan handled, len(publishes))
	sub := subscribe(t, top, "g", func(ctx context.Context, m *Msg[text]) error {
		got <- handled{m.Value.GetValue(), trace.SpanContextFromContext(ctx), m.SpanContext()}
		return Reject(errors.New("no"), "bad")
	})
	check := func(when string) {
		t.Helper()
		for range publishes {
			one := <-got
			i := slices.IndexFunc(publishes, func(p published) bool { return p.name == one.name })
			want := publishes[i].want
			if !one.context.Equal(one.message) || one.context.TraceID().String() != want || one.context.IsValid() && !one.context.IsRemote() {
				t.Errorf("%s, %s: the context has %v, the message %v; want the trace %s", one.name, when, one.context, one.message, want)
			}
			if want == span.TraceID().String() && !one.context.Equal(span) {
				t.Errorf("%s, %s: %v, want %v", one.name, when, one.context, span)
			}
		}
	}
	for _, p := range publishes {
		if err := p.call(p.name); err != nil {
			t.Fatal(p.name, err)
		}
	}
	check("at first")
	until(t, func() bool { st, err := sub.Stats(t.Context()); return err == nil && st.Dead == uint64(len(publishes)) })
	if _, err := top.DeadLetters("g").Redrive(t.Context(), nil); err != nil {
		t.Error(err)
	}
	check("redriven")
	batches := make(chan trace.SpanContext, 1)
	batch, err := top.SubscribeBatch(t.Context(), "batch", func(_ context.Context, ms []*Msg[text]) error {
		for _, m := range ms {
			if m.Value.GetValue() == publishes[0].name {
				select {
				case batches <- m.SpanContext():
				default:
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	defer batch.Stop()
	if one := <-batches; !one.Equal(span) {
		t.Errorf("in a batch: %v, want %v", one, span)
	}
}
