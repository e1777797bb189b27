package queue

import (
	"context"
	"errors"
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
	publishes := []struct {
		name string
		call func() error
		want string // trace ID
	}{
		{"Publish", func() error { _, err := top.Publish(inside, wrapperspb.String("x")); return err }, span.TraceID().String()},
		{"PublishAll", func() error { _, err := top.PublishAll(inside, []text{wrapperspb.String("x")}); return err }, span.TraceID().String()},
		{"Trace", func() error { _, err := top.Publish(inside, wrapperspb.String("x"), Trace(given)); return err }, "0af7651916cd43dd8448eb211c80319c"},
		{"no span", func() error { _, err := top.Publish(t.Context(), wrapperspb.String("x")); return err }, "00000000000000000000000000000000"},
		{"not a traceparent", func() error {
			_, err := top.Publish(t.Context(), wrapperspb.String("x"), Trace("00-1-2-3"))
			return err
		}, "00000000000000000000000000000000"},
	}
	got := make(chan [2]trace.SpanContext, 1)
	sub := subscribe(t, top, "g", func(ctx context.Context, m *Msg[text]) error {
		got <- [2]trace.SpanContext{trace.SpanContextFromContext(ctx), m.SpanContext()}
		return Reject(errors.New("no"), "bad")
	})
	check := func(name, want string) {
		t.Helper()
		one := <-got
		if !one[0].Equal(one[1]) || one[0].TraceID().String() != want || one[0].IsValid() && !one[0].IsRemote() {
			t.Errorf("%s: the context has %v, the message %v; want the trace %s", name, one[0], one[1], want)
		}
		if want == span.TraceID().String() && !one[0].Equal(span) {
			t.Errorf("%s: %v, want %v", name, one[0], span)
		}
	}
	for _, p := range publishes {
		if err := p.call(); err != nil {
			t.Fatal(p.name, err)
		}
		check(p.name, p.want)
	}
	until(t, func() bool { st, err := sub.Stats(t.Context()); return err == nil && st.Dead == uint64(len(publishes)) })
	again := make(chan error, 1)
	go func() {
		_, err := top.DeadLetters("g").Redrive(t.Context(), nil)
		again <- err
	}()
	for _, p := range publishes {
		check(p.name+" redriven", p.want)
	}
	if err := <-again; err != nil {
		t.Error(err)
	}
	batches := make(chan trace.SpanContext, 1)
	batch, err := top.SubscribeBatch(t.Context(), "batch", func(_ context.Context, ms []*Msg[text]) error {
		select {
		case batches <- ms[0].SpanContext():
		default:
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
