package queue

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func publish(t testing.TB, top *Topic[text], values ...string) {
	t.Helper()
	for _, v := range values {
		if _, err := top.Publish(t.Context(), wrapperspb.String(v)); err != nil {
			t.Fatal(err)
		}
	}
}

func subscribe(t testing.TB, top *Topic[text], group string, handle Handler[text], opts ...SubscribeOption) *Subscription {
	t.Helper()
	sub, err := top.Subscribe(t.Context(), group, handle, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sub.Stop)
	return sub
}

// next returns what a channel brings, or fails the test.
func next[V any](t testing.TB, c <-chan V) V {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(20 * time.Second):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

func drained(t testing.TB, sub *Subscription) {
	t.Helper()
	if err := sub.Drain(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestSubscribe(t *testing.T) {
	q := open(t, t.TempDir())
	top := topic(t, q, "orders.placed", KeyBy(func(m text) string { return "k" + m.GetValue() }))
	publish(t, top, "a", "b")
	got := make(chan *Msg[text], 100)
	handle := func(_ context.Context, m *Msg[text]) error { got <- m; return nil }
	sub := subscribe(t, top, "billing", handle, Workers(1))
	for _, want := range []string{"a", "b"} {
		m := next(t, got)
		if m.Value.GetValue() != want || m.Key != "k"+want || m.Topic != "orders.placed" || m.Attempt != 1 || m.ID == "" || time.Since(m.Published) > time.Minute {
			t.Errorf("%+v", m)
		}
	}
	publish(t, top, "c")
	if m := next(t, got); m.Value.GetValue() != "c" || m.Sequence != 3 {
		t.Errorf("%+v", m)
	}
	drained(t, sub)
	other := subscribe(t, top, "export", handle)
	for range 3 {
		next(t, got)
	}
	drained(t, other)
	again := subscribe(t, top, "billing", handle)
	publish(t, top, "d")
	if m := next(t, got); m.Value.GetValue() != "d" {
		t.Errorf("what was done with came again: %+v", m)
	}
	drained(t, again)
	if len(got) != 0 {
		t.Errorf("%d more", len(got))
	}
	st, err := again.Stats(t.Context())
	if err != nil || st.Lag != 0 || st.InFlight != 0 || st.Dead != 0 || st.OldestAge != 0 {
		t.Errorf("%+v, %v", st, err)
	}
}

// TestRetry: a message is tried again as often as allowed, then it is dead, and can be sent again, to its group alone.
func TestRetry(t *testing.T) {
	q := open(t, t.TempDir())
	top := topic(t, q, "orders")
	var broken atomic.Bool
	broken.Store(true)
	attempts := make(chan int, 100)
	sub := subscribe(t, top, "billing", func(_ context.Context, m *Msg[text]) error {
		if m.Value.GetValue() == "poison" && broken.Load() {
			attempts <- m.Attempt
			return errors.New("line one\r\nNats-Rollup: all")
		}
		attempts <- -m.Attempt
		return nil
	}, Retry(3, time.Millisecond, 10*time.Millisecond))
	var others atomic.Int64
	other := subscribe(t, top, "export", func(context.Context, *Msg[text]) error { others.Add(1); return nil })
	publish(t, top, "poison")
	for want := 1; want <= 3; want++ {
		if got := next(t, attempts); got != want {
			t.Errorf("attempt %d, want %d", got, want)
		}
	}
	publish(t, top, "good")
	if got := next(t, attempts); got != -1 {
		t.Errorf("attempt %d", got)
	}
	dead := top.DeadLetters("billing")
	var letters []DeadLetter
	for len(letters) == 0 {
		var err error
		if letters, err = dead.List(t.Context(), 10, nil); err != nil {
			t.Fatal(err)
		}
	}
	l := letters[0]
	if len(letters) != 1 || l.Reason != "attempts" || l.Error != "line one  Nats-Rollup: all" || l.Attempts != 3 || l.Origin != 1 || l.Type != "google.protobuf.StringValue" || l.Died.Before(l.Published) {
		t.Errorf("%+v", letters)
	}
	if st, err := sub.Stats(t.Context()); err != nil || st.Dead != 1 {
		t.Errorf("%+v, %v", st, err)
	}
	if none, err := top.DeadLetters("export").List(t.Context(), 10, nil); err != nil || len(none) != 0 {
		t.Errorf("of the other group: %v, %v", none, err)
	}
	if n, err := dead.Redrive(t.Context(), func(l *DeadLetter) bool { return l.Reason == "rejected" }); n != 0 || err != nil {
		t.Errorf("a filter: %d, %v", n, err)
	}
	broken.Store(false)
	if n, err := dead.Redrive(t.Context(), nil); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if got := next(t, attempts); got != -1 {
		t.Errorf("attempt %d", got)
	}
	if letters, err := dead.List(t.Context(), 10, nil); err != nil || len(letters) != 0 {
		t.Errorf("%v, %v", letters, err)
	}
	drained(t, sub)
	drained(t, other)
	if others.Load() != 2 {
		t.Errorf("the other group had %d messages", others.Load())
	}
}

// TestReject: what no attempt can mend is dead at once, whoever finds it out.
func TestReject(t *testing.T) {
	q := open(t, t.TempDir())
	top := topic(t, q, "orders")
	raw := func(change func(*nats.Msg)) {
		t.Helper()
		m, err := top.envelope(wrapperspb.String("x"), publishing{}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		change(m)
		if _, err := q.store(t.Context(), m, false); err != nil {
			t.Fatal(err)
		}
	}
	raw(func(m *nats.Msg) { m.Header[headerType] = []string{"shop.Other"} })
	raw(func(m *nats.Msg) { m.Data = []byte{0xff} })
	raw(func(m *nats.Msg) { m.Header = nats.Header{} })
	publish(t, top, "panic", "bad address", "later")
	done := make(chan int, 10)
	sub := subscribe(t, top, "billing", func(_ context.Context, m *Msg[text]) error {
		switch m.Value.GetValue() {
		case "panic":
			panic("at the disco")
		case "later":
			if m.Attempt < 4 {
				return After(time.Millisecond, errors.New("not open yet"))
			}
			done <- m.Attempt
			return nil
		}
		return fmt.Errorf("billing: %w", Reject(errors.New("no such street"), "bad address"))
	}, Retry(5, 0, time.Millisecond))
	if got := next(t, done); got != 4 {
		t.Errorf("attempt %d", got)
	}
	var letters []DeadLetter
	for begin := time.Now(); len(letters) < 5 && time.Since(begin) < 20*time.Second; {
		var err error
		if letters, err = top.DeadLetters("billing").List(t.Context(), 10, nil); err != nil {
			t.Fatal(err)
		}
	}
	found := map[string]string{}
	for _, l := range letters {
		found[fmt.Sprint(l.Origin, " ", l.Reason)] = l.Error
	}
	for where, want := range map[string]string{
		"1 unreadable": `it is a "shop.Other", and the subscriber reads google.protobuf.StringValue`, "2 unreadable": "", "3 unreadable": `it is a ""`,
		"4 attempts": "panic: at the disco", "5 bad address": "no such street",
	} {
		if got, ok := found[where]; !ok || !strings.Contains(got, want) {
			t.Errorf("%s: %q of %v", where, got, found)
		}
	}
	drained(t, sub)
	if n, err := top.DeadLetters("billing").Discard(t.Context(), func(l *DeadLetter) bool { return l.Reason == "unreadable" }); n != 3 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if st, err := sub.Stats(t.Context()); err != nil || st.Dead != 2 {
		t.Errorf("%+v, %v", st, err)
	}
}

// TestEnds: a subscription that ends handles what it has, or gives it back; in no case is a message lost.
func TestEnds(t *testing.T) {
	const messages = 500
	q := open(t, t.TempDir())
	top := topic(t, q, "orders", Durable(Buffered))
	for i := range messages {
		publish(t, top, fmt.Sprint(i))
	}
	var mu sync.Mutex
	handled := map[string]int{}
	var cut atomic.Int64
	handle := func(ctx context.Context, m *Msg[text]) error {
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			cut.Add(1)
			return ctx.Err()
		}
		mu.Lock()
		defer mu.Unlock()
		handled[m.Value.GetValue()]++
		return nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended, err := top.Subscribe(ctx, "billing", handle)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond)
	cancel()
	<-ended.done
	stopped := subscribe(t, top, "billing", handle)
	time.Sleep(20 * time.Millisecond)
	stopped.Stop()
	stopped.Stop()
	hurried := subscribe(t, top, "billing", handle)
	time.Sleep(20 * time.Millisecond)
	if err := hurried.Drain(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	drainedOne := subscribe(t, top, "billing", handle)
	time.Sleep(20 * time.Millisecond)
	drained(t, drainedOne)
	last := subscribe(t, top, "billing", handle)
	for begin := time.Now(); time.Since(begin) < 20*time.Second; time.Sleep(10 * time.Millisecond) {
		if st, err := last.Stats(t.Context()); err != nil || st.Lag == 0 && st.InFlight == 0 {
			break
		}
	}
	drained(t, last)
	if len(handled) != messages {
		t.Errorf("%d of %d handled", len(handled), messages)
	}
	for m, n := range handled {
		if n != 1 {
			t.Errorf("message %s was handled %d times", m, n)
		}
	}
	if cut.Load() == 0 {
		t.Error("nothing was cut short")
	}
}

func TestSubscribeRefused(t *testing.T) {
	q := open(t, t.TempDir())
	top := topic(t, q, "orders")
	handle := func(context.Context, *Msg[text]) error { return nil }
	for name, subscribe := range map[string]func() error{
		"group": func() error { _, err := top.Subscribe(t.Context(), "a.b", handle); return err },
		"workers": func() error {
			_, err := top.Subscribe(t.Context(), "a", handle, Workers(0))
			return err
		},
		"retry": func() error {
			_, err := top.Subscribe(t.Context(), "a", handle, Retry(3, time.Second, time.Millisecond))
			return err
		},
		"letters": func() error { _, err := top.DeadLetters("a b").List(t.Context(), 1, nil); return err },
		"key": func() error {
			_, err := NewTopic[text](q, "keyed", KeyBy(func(*structpb.Struct) string { return "" }))
			return err
		},
	} {
		if err := subscribe(); err == nil || !strings.HasPrefix(err.Error(), "queue: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if l, err := top.DeadLetters("nobody").List(t.Context(), 1, nil); len(l) != 0 || err != nil {
		t.Errorf("%v, %v", l, err)
	}
}
