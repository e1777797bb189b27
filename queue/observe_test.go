package queue

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/stile-ipc/stile/telemetry"
)

// told is what a hub would be told of a queue.
func told(t *testing.T, q *Queue) map[string]telemetry.Queue {
	t.Helper()
	all := map[string]telemetry.Queue{}
	for _, one := range q.tell(t.Context()) {
		if all[one.Topic].Topic != "" {
			t.Errorf("%s is told twice", one.Topic)
		}
		all[one.Topic] = one
	}
	return all
}

// TestTold: who has an embedded server tells of all its topics, as Stats does; a guest only of what its senders met.
func TestTold(t *testing.T) {
	dir := t.TempDir()
	q := open(t, dir)
	top := topic(t, q, "orders.placed", KeyBy(keyOf))
	empty := topic(t, q, "empty")
	release := make(chan struct{})
	handle := func(ctx context.Context, m *Msg[text]) error {
		if m.Value.GetValue() == "bad" {
			return Reject(errors.New("no"), "bad")
		}
		select {
		case <-release:
		case <-ctx.Done():
		}
		return nil
	}
	one := subscribe(t, top, "one", handle, Workers(1))
	ordered := subscribe(t, top, "ordered", func(context.Context, *Msg[text]) error { return nil }, Ordered())
	publish(t, top, "bad", "a", "b", "c")
	if _, err := top.Publish(t.Context(), wrapperspb.String("later"), Delay(time.Hour)); err != nil {
		t.Fatal(err)
	}
	until(t, func() bool {
		st, err := one.Stats(t.Context())
		o, errO := ordered.Stats(t.Context())
		return err == nil && errO == nil && st.Dead == 1 && st.Lag == 0 && st.InFlight == 3 && o.Left() == 1
	})
	all := told(t, q)
	got := all["orders.placed"]
	info, err := q.Topic(t.Context(), "orders.placed")
	if err != nil {
		t.Fatal(err)
	}
	if !got.Asked || got.Messages != 4 || got.Bytes != info.Bytes || got.MaxBytes != info.MaxBytes || got.Last != info.Last || got.Delayed != 1 || !got.Created.Equal(info.Created) || got.Where != "unix:"+dir || len(got.Groups) != 2 {
		t.Fatalf("%+v\n%+v", got, info)
	}
	st, err := one.Stats(t.Context())
	if g := got.Groups[0]; err != nil || g.Name != "one" || g.Lag != st.Lag || g.InFlight != 3 || g.Dead != 1 || g.Oldest <= 0 || g.Oldest > st.OldestAge {
		t.Errorf("%+v, %+v, %v", g, st, err)
	}
	if g := got.Groups[1]; g.Name != "ordered" || g.Lag+g.InFlight+g.Dead != 0 || g.Oldest != 0 {
		t.Errorf("%+v", g)
	}
	if e := all["empty"]; len(all) != 2 || !e.Asked || e.Messages != 0 || len(e.Groups) != 0 || e.MaxBytes != empty.set.maxBytes {
		t.Errorf("%+v", all)
	}
	guest := visit(t, dir)
	full := topic(t, guest, "full", Keep(time.Hour, 2000))
	if all := told(t, guest); len(all) != 0 {
		t.Errorf("a guest tells of %+v", all)
	}
	fill(t, full)
	if f := told(t, guest)["full"]; f.Asked || f.Refused != 1 || f.Created.UnixNano() != full.stream.created || f.Where != "unix:"+dir {
		t.Errorf("%+v", f)
	}
	if f := told(t, q)["full"]; !f.Asked || f.Refused != 0 || f.Messages == 0 {
		t.Errorf("%+v", f)
	}
	close(release)
	drained(t, one)
	drained(t, ordered)
}

// fill publishes until the topic is full.
func fill(t *testing.T, top *Topic[text]) {
	t.Helper()
	for {
		_, err := top.Publish(t.Context(), wrapperspb.String(strings.Repeat("x", 100)))
		if errors.Is(err, ErrFull) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestBlocked: senders that wait for room are told of while they wait, and how long they have.
func TestBlocked(t *testing.T) {
	q := open(t, t.TempDir())
	top := topic(t, q, "full", Keep(time.Hour, 2000))
	fill(t, top)
	if f := told(t, q)["full"]; f.Refused != 1 || f.Blocked != 0 {
		t.Errorf("%+v", f)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	began := time.Now()
	for range 2 {
		go func() {
			_, err := top.Publish(ctx, wrapperspb.String(strings.Repeat("x", 100)), WhenFullWait())
			ended <- err
		}()
	}
	sum := time.Duration(0)
	until(t, func() bool {
		sum += told(t, q)["full"].Blocked
		return sum > 100*time.Millisecond
	})
	cancel()
	for range 2 {
		if err := <-ended; err == nil {
			t.Error("there was room")
		}
	}
	last := told(t, q)["full"]
	if sum += last.Blocked; last.Refused != 2 || sum > 2*time.Since(began) {
		t.Errorf("%+v, blocked for %s of %s", last, sum, time.Since(began))
	}
	if again := told(t, q)["full"]; again.Blocked != 0 || again.Refused != 0 {
		t.Errorf("told again: %+v", again)
	}
}

// TestRefusedTogether: of messages that are published together each counts, and none if there was room in the end.
func TestRefusedTogether(t *testing.T) {
	q := open(t, t.TempDir())
	top := topic(t, q, "full", Keep(time.Hour, 2000))
	ms := make([]text, 50)
	for i := range ms {
		ms[i] = wrapperspb.String(strings.Repeat("x", 100))
	}
	if _, err := top.PublishAll(t.Context(), ms); !errors.Is(err, ErrFull) {
		t.Fatal(err)
	}
	if f := told(t, q)["full"]; f.Refused != 50 {
		t.Errorf("%d of 50 are refused", f.Refused)
	}
	answers := []jetstream.ErrorCode{codeStoreFailed, codeBatchDuplicate}
	_, err := q.untilAnswered(t.Context(), subjectOf("full", "0"), 50, true, func() (answer, error) {
		code := answers[0]
		answers = answers[1:]
		return answer{}, &jetstream.APIError{ErrorCode: code}
	})
	if f := told(t, q)["full"]; f.Refused != 0 || f.Blocked == 0 || errors.Is(err, ErrFull) || len(answers) != 0 {
		t.Errorf("%d are refused after %s, %v", f.Refused, f.Blocked, err)
	}
}

// TestToldElsewhere: of a server elsewhere a process tells of the topics that it has opened, and no password.
func TestToldElsewhere(t *testing.T) {
	s := natsServer(t, t.TempDir(), server.RANDOM_PORT)
	connect := func() *Queue {
		q, err := Open(t.Context(), Config{URL: strings.Replace(s.ClientURL(), "nats://", "nats://shop:right@", 1), NATS: []nats.Option{nats.ReconnectWait(50 * time.Millisecond)}, Logger: quiet()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { shut(t, q) })
		return q
	}
	first, second := connect(), connect()
	orders := topic(t, first, "orders")
	topic(t, second, "others")
	publish(t, orders, "a")
	subscribe(t, orders, "g", func(context.Context, *Msg[text]) error { return nil })
	if all := told(t, first); len(all) != 1 || !all["orders"].Asked || all["orders"].Messages != 1 || len(all["orders"].Groups) != 1 || strings.Contains(all["orders"].Where, "right") {
		t.Errorf("%+v", all)
	}
	if all, err := second.Observe(t.Context()); err != nil || len(all) != 2 {
		t.Errorf("%+v, %v", all, err)
	}
	s.Shutdown()
	until(t, func() bool { return !first.nc.IsConnected() })
	if all := told(t, first); len(all) != 0 {
		t.Errorf("of a server that is away: %+v", all)
	}
}

// TestWithoutPasswords: no URL shows a secret, nor does what is wrong with it.
func TestWithoutPasswords(t *testing.T) {
	for urls, want := range map[string]string{
		"nats://127.0.0.1:4222":                  "nats://127.0.0.1:4222",
		"a:4222, b":                              "nats://a:4222,nats://b",
		"nats://secret@a:4222,nats://u:secret@b": "nats://xxxxx@a:4222,nats://u:xxxxx@b",
		"secret@a:4222":                          "nats://xxxxx@a:4222",
		"nats://u:secret%zz@127.0.0.1:1":         "a URL that cannot be read",
		"nats://u:secret#1@127.0.0.1:1":          "a URL that cannot be read",
		"nats://u:1#secret@127.0.0.1:1":          "a URL that cannot be read",
		"nats://u:secret,secret@127.0.0.1:1":     "a URL that cannot be read,nats://xxxxx@127.0.0.1:1",
	} {
		if got := withoutPasswords(urls); got != want {
			t.Errorf("%s is shown as %s", urls, got)
		}
		if !strings.Contains(want, "cannot be read") {
			continue
		}
		if q, err := Open(t.Context(), Config{URL: urls, Logger: quiet()}); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", urls, err)
			if err == nil {
				shut(t, q)
			}
		}
	}
}

// TestForgetsTopics: topics that were deleted take no room from others, wherever the server is.
func TestForgetsTopics(t *testing.T) {
	elsewhere, err := Open(t.Context(), Config{URL: natsServer(t, t.TempDir(), server.RANDOM_PORT).ClientURL(), NATS: []nats.Option{nats.UserInfo("shop", "right")}, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, elsewhere) })
	for where, q := range map[string]*Queue{"here": open(t, t.TempDir()), "elsewhere": elsewhere} {
		topic(t, q, "gone")
		topic(t, q, "stays")
		for i := range maxWatched { // the last two are too many
			q.full.open(fmt.Sprint(i), identity{name: fmt.Sprint(i)})
		}
		if err := q.js.DeleteStream(t.Context(), "gone"); err != nil {
			t.Fatal(err)
		}
		if all := told(t, q); len(all) != 1 || !all["stays"].Asked {
			t.Errorf("%s: %+v", where, all)
		}
		again := topic(t, q, "gone")
		if all := told(t, q); len(all) != 2 || len(q.full.list()) != 2 || q.full.of(subjectOf("gone", "0")).is != again.stream {
			t.Errorf("%s: %+v of %d", where, all, len(q.full.list()))
		}
		for i := range maxWatched {
			q.full.open(fmt.Sprint(i), identity{name: fmt.Sprint(i)})
		}
		if q.full.open("gone", identity{"gone", 7}); q.full.of(subjectOf("gone", "0")).is.created != 7 || len(q.full.list()) != maxWatched {
			t.Errorf("%s: a topic that was made anew has no room", where)
		}
	}
}

// BenchmarkTold is what a window costs: ten topics of an embedded server, with two groups each, one of which has messages left.
func BenchmarkTold(b *testing.B) {
	q := open(b, b.TempDir())
	for i := range 10 {
		top := topic(b, q, fmt.Sprint("topic-", i))
		publish(b, top, "a", "b")
		subscribe(b, top, "quick", func(context.Context, *Msg[text]) error { return nil })
		wait := subscribe(b, top, "slow", func(ctx context.Context, _ *Msg[text]) error { <-ctx.Done(); return ctx.Err() })
		b.Cleanup(func() {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			_ = wait.Drain(ctx)
		})
	}
	for b.Loop() {
		if all := q.tell(b.Context()); len(all) != 10 || len(all[0].Groups) != 2 {
			b.Fatalf("%+v", all)
		}
	}
}
