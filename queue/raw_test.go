package queue

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// TestRaw does by names what a program's types do otherwise.
func TestRaw(t *testing.T) {
	ctx := t.Context()
	q := open(t, t.TempDir())
	topic(t, q, "empty")
	top := topic(t, q, "shop.orders", KeyBy(func(m text) string { return m.GetValue() }))
	for _, v := range []string{"a", "b", "c"} {
		if _, err := top.Publish(ctx, wrapperspb.String(v), ID("id-"+v)); err != nil {
			t.Fatal(err)
		}
	}
	sub, err := top.Subscribe(ctx, "mail", func(_ context.Context, m *Msg[text]) error {
		if v := m.Value.GetValue(); v == "b" || v == "raw" {
			return Reject(errors.New("no"), "bad "+m.Key)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	until(t, func() bool {
		st, err := q.GroupStats(ctx, "shop.orders", "mail")
		return err == nil && st.Dead == 1 && st.Lag == 0 && st.InFlight == 0
	})

	all, err := q.Topics(ctx)
	if err != nil || len(all) != 2 || all[0].Name != "empty" || all[1].Name != "shop.orders" {
		t.Fatalf("%+v %v", all, err)
	}
	one, err := q.Topic(ctx, "shop.orders")
	if err != nil || one.Type != "google.protobuf.StringValue" || one.Messages != 3 || one.Last != 3 || !slices.Equal(one.Groups, []string{"mail"}) || one.MaxAge != defaultMaxAge {
		t.Errorf("%+v %v", one, err)
	}
	ms, err := q.Peek(ctx, "shop.orders", 2, 10)
	if err != nil || len(ms) != 2 || ms[0].ID != "id-b" || ms[0].Key != "b" || ms[1].Sequence != 3 {
		t.Errorf("%+v %v", ms, err)
	}
	data, err := proto.Marshal(wrapperspb.String("raw"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := q.PublishRaw(ctx, "shop.orders", RawMsg{ID: "x", Key: "k", Data: data})
	if err != nil || r.Sequence != 4 || r.ID != "x" {
		t.Errorf("%+v %v", r, err)
	}
	if r, err = q.PublishRaw(ctx, "shop.orders", RawMsg{ID: "x", Key: "k", Data: data}); err != nil || !r.Duplicate {
		t.Errorf("%+v %v", r, err)
	}
	until(t, func() bool { st, err := q.GroupStats(ctx, "shop.orders", "mail"); return err == nil && st.Dead == 2 })
	dead, err := q.DeadLetters(ctx, "shop.orders", "mail")
	if err != nil {
		t.Fatal(err)
	}
	if l, err := dead.List(ctx, 10, nil); err != nil || len(l) != 2 || l[1].Reason != "bad k" {
		t.Errorf("%+v %v", l, err)
	}
	sub.Stop()

	_, noTopic := q.Topic(ctx, "none")
	_, noName := q.Peek(ctx, "a b", 1, 1)
	_, notOurs := q.DeadLetters(ctx, "shop.orders=dead", "mail")
	for _, err := range []error{noTopic, noName, notOurs} {
		if !errors.Is(err, ErrNoTopic) {
			t.Error(err)
		}
	}
	if _, err := q.GroupStats(ctx, "shop.orders", "none"); !errors.Is(err, ErrNoGroup) {
		t.Error(err)
	}
	if _, err := q.PublishRaw(ctx, "shop.orders", RawMsg{}, Delay(time.Hour)); err == nil || !strings.Contains(err.Error(), "delayed") {
		t.Error(err)
	}
	if _, err := q.PublishRaw(ctx, "shop.orders", RawMsg{Type: "a.B"}); err == nil || !strings.Contains(err.Error(), "google.protobuf.StringValue, not a.B") {
		t.Error(err)
	}
}
