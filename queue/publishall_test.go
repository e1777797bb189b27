package queue

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"
)

// TestPublishAllAtOnce: more callers publish together than a stream takes at once, and none is refused.
func TestPublishAllAtOnce(t *testing.T) {
	t.Parallel()
	const callers, together = 150, 40
	q := open(t, t.TempDir())
	top := topic(t, q, "orders", Durable(Buffered))
	ms := make([]text, together)
	for i := range ms {
		ms[i] = wrapperspb.String("x")
	}
	var all sync.WaitGroup
	for p := range callers {
		all.Go(func() {
			if _, err := top.PublishAll(t.Context(), ms, ID(fmt.Sprint("p", p))); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	s, err := q.js.Stream(t.Context(), "orders")
	if err != nil || s.CachedInfo().State.Msgs != callers*together {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestTogetherDead: messages that were published together become dead letters, wait long, and are forgotten by those behind them, as any others.
func TestTogetherDead(t *testing.T) {
	q := open(t, t.TempDir())
	for group, opts := range map[string][]SubscribeOption{"plain": nil, "ordered": {Ordered()}} {
		top := topic(t, q, group, KeyBy(func(text) string { return "k" }))
		came := make(chan string, 100)
		sub := subscribe(t, top, group, func(_ context.Context, m *Msg[text]) error {
			came <- m.Value.GetValue()
			switch m.Value.GetValue() {
			case "bad":
				return Reject(errors.New("no"), "bad")
			case "late":
				if group == "plain" {
					return After(time.Hour, errors.New("closed"))
				}
			}
			return nil
		}, append(opts, Workers(1))...)
		if _, err := top.PublishAll(t.Context(), []text{wrapperspb.String("bad"), wrapperspb.String("late"), wrapperspb.String("good")}); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"bad", "late", "good"} {
			if got := next(t, came); got != want {
				t.Errorf("%s: %s, want %s", group, got, want)
			}
		}
		idle(t, sub)
		letters, err := top.DeadLetters(group).List(t.Context(), 10, nil)
		if err != nil || len(letters) != 1 || letters[0].Reason != "bad" {
			t.Errorf("%s: %+v, %v", group, letters, err)
		}
		if n, err := top.DeadLetters(group).Redrive(t.Context(), nil); n != 1 || err != nil {
			t.Errorf("%s: %d, %v", group, n, err)
		}
		if got := next(t, came); got != "bad" {
			t.Errorf("%s: %s came again", group, got)
		}
		drained(t, sub)
	}
	laterLeft(t, q, "plain", 1)
}
