package queue

import (
	"context"
	"errors"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// TestLargeDies: a message as large as is taken has room to become a dead letter, and to be sent again.
func TestLargeDies(t *testing.T) {
	q := open(t, t.TempDir())
	top := topic(t, q, "orders")
	publish(t, top, strings.Repeat("x", 1<<20))
	var bad atomic.Bool
	bad.Store(true)
	long := errors.New(strings.Repeat("long ", 1000))
	sub := subscribe(t, top, "g", func(context.Context, *Msg[text]) error {
		if bad.Load() {
			return Reject(long, strings.Repeat("why ", 1000))
		}
		return nil
	})
	dead := func(n uint64) func() bool {
		return func() bool {
			st, err := sub.Stats(t.Context())
			return err == nil && st.Dead == n && st.Lag == 0 && st.InFlight == 0
		}
	}
	until(t, dead(1))
	bad.Store(false)
	if n, err := top.DeadLetters("g").Redrive(t.Context(), nil); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	until(t, dead(0))
}

// TestSlowConsumer: a subscriber that is slower than the publishers holds no more than its share, by number and by bytes; those that it holds while
// it handles none are not delivered again.
func TestSlowConsumer(t *testing.T) {
	q := open(t, t.TempDir())
	top := topic(t, q, "orders", Durable(Buffered))
	body := strings.Repeat("x", 500<<10)
	const messages = 200 // of 100 MB
	for range messages {
		publish(t, top, body)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	goOn := make(chan struct{})
	var mu sync.Mutex
	times := map[uint64]int{}
	sub := subscribe(t, top, "g", func(_ context.Context, m *Msg[text]) error {
		<-goOn
		mu.Lock()
		defer mu.Unlock()
		times[m.Sequence]++
		return nil
	}, Workers(1))
	held := func() int {
		sub.mu.Lock()
		defer sub.mu.Unlock()
		return len(sub.held)
	}
	until(t, func() bool { return held() > 0 })
	last := -1
	until(t, func() bool { n := held(); same := n == last; last = n; return same })
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); held() > minPrefetch || grown > 80<<20 {
		t.Errorf("%d messages are held, in %d MB", held(), grown>>20)
	}
	close(goOn)
	until(t, func() bool { st, err := sub.Stats(t.Context()); return err == nil && st.Lag == 0 && st.InFlight == 0 })
	mu.Lock()
	defer mu.Unlock()
	if len(times) != messages {
		t.Errorf("%d of %d messages were handled", len(times), messages)
	}
	for seq, n := range times {
		if n != 1 {
			t.Errorf("message %d was handled %d times", seq, n)
		}
	}
}

// TestRedriveOnce: what dies again while it is redriven is redriven once.
func TestRedriveOnce(t *testing.T) {
	q := open(t, t.TempDir())
	top := topic(t, q, "orders")
	publish(t, top, "a", "b", "c")
	var handled atomic.Int64
	sub := subscribe(t, top, "g", func(context.Context, *Msg[text]) error {
		handled.Add(1)
		return Reject(errors.New("no"), "bad")
	})
	dead := func() bool {
		st, err := sub.Stats(t.Context())
		return err == nil && st.Dead == 3 && st.Lag == 0 && st.InFlight == 0
	}
	until(t, dead)
	if n, err := top.DeadLetters("g").Redrive(t.Context(), nil); n != 3 || err != nil {
		t.Errorf("%d redriven: %v", n, err)
	}
	until(t, func() bool { return dead() && handled.Load() == 6 })
}

// TestRedriveInterrupted: a letter that was published again, and not taken away by who did, is not published once more when the topic has forgotten its ID.
func TestRedriveInterrupted(t *testing.T) {
	q := open(t, t.TempDir())
	top := topic(t, q, "orders")
	stream := forgetting(t, q, "orders")
	publish(t, top, "a", "b")
	sub := subscribe(t, top, "g", func(context.Context, *Msg[text]) error { return Reject(errors.New("no"), "bad") })
	until(t, func() bool { st, err := sub.Stats(t.Context()); return err == nil && st.Dead == 2 && st.InFlight == 0 })
	sub.Stop()
	dead := top.DeadLetters("g")
	letters, err := dead.List(t.Context(), 1, nil)
	if err != nil || len(letters) != 1 {
		t.Fatal(letters, err)
	}
	if err := dead.again(t.Context(), &letters[0]); err != nil {
		t.Fatal(err)
	}
	awaitForgotten(t, top)
	count := func() uint64 {
		info, err := stream.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return info.State.Msgs
	}
	before := count()
	if n, err := dead.Redrive(t.Context(), nil); n != 2 || err != nil {
		t.Errorf("%d redriven: %v", n, err)
	}
	if got := count() - before; got != 1 {
		t.Errorf("%d messages came, want the one that nobody had published", got)
	}
	if left, err := dead.List(t.Context(), 10, nil); len(left) != 0 || err != nil {
		t.Error(left, err)
	}
}

// forgetting has a topic forget IDs soon, as it does after two minutes.
func forgetting(t testing.TB, q *Queue, topic string) jetstream.Stream {
	t.Helper()
	s, err := q.js.Stream(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	cfg := s.CachedInfo().Config
	cfg.Duplicates = 100 * time.Millisecond
	if _, err := q.js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	return s
}

// awaitForgotten returns when a topic has forgotten the IDs that it has now.
func awaitForgotten(t testing.TB, top *Topic[text]) {
	t.Helper()
	n := 0
	until(t, func() bool {
		r, err := top.Publish(t.Context(), wrapperspb.String("c"), ID("c"))
		if err == nil && !r.Duplicate {
			n++
		}
		return n == 2
	})
}

// TestTakenAfterEnd: a message that comes when the subscription has ended is not held, and is given back.
func TestTakenAfterEnd(t *testing.T) {
	for _, ordered := range []bool{false, true} {
		q := open(t, t.TempDir())
		top := topic(t, q, "orders", KeyBy(keyOf))
		nothing := func(context.Context, *Msg[text]) error { return nil }
		opts := []SubscribeOption{nil}
		if ordered {
			opts = append(opts, Ordered())
		}
		sub := subscribe(t, top, "g", nothing, opts...)
		sub.Stop()
		var said []string
		sub.say = func(_, _, body []byte) error { said = append(said, string(body)); return nil }
		sub.take(delivery{Reply: []byte("r"), seq: 7, times: 1})
		if len(sub.held) > 0 || len(sub.waiting) > 0 || sub.alive != nil || len(said) != 1 || said[0] != "-NAK" {
			t.Errorf("ordered %v: held %d, waiting %d, said %q", ordered, len(sub.held), len(sub.waiting), said)
		}
	}
}

// TestStoppedHost: a guest does not wait for ever for a host that takes its connection and says nothing.
func TestStoppedHost(t *testing.T) {
	l := &line{ended: make(chan struct{}), dial: func() (net.Conn, error) { c, _ := net.Pipe(); return c, nil }}
	if _, err := l.connect(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
}

// TestWrongArguments: what cannot work is refused where it is said.
func TestWrongArguments(t *testing.T) {
	q := open(t, t.TempDir())
	top := topic(t, q, "orders", Keep(time.Hour, 10_000))
	handle := func(context.Context, *Msg[text]) error { return nil }
	_, noHandler := top.Subscribe(t.Context(), "g", nil)
	_, noBatchHandler := top.SubscribeBatch(t.Context(), "g", nil)
	_, noInbox := top.Subscribe(t.Context(), "g", handle, Once(nil))
	_, noKey := NewTopic[text](q, "keyed", KeyBy[text](nil))
	_, noQueue := NewTopic[text](nil, "orders")
	_, anyType := NewTopic[proto.Message](q, "any")
	_, noDB := NewSQLInbox(t.Context(), nil, SQLite, "")
	_, noOutboxDB := NewOutbox(t.Context(), nil, SQLite, top, "")
	_, longID := top.Publish(t.Context(), wrapperspb.String("x"), ID(strings.Repeat("x", 513)))
	_, oddID := top.Publish(t.Context(), wrapperspb.String("x"), ID("\xff"))
	_, both := Open(t.Context(), Config{Dir: t.TempDir(), URL: "nats://127.0.0.1:1"})
	_, negative := Open(t.Context(), Config{Dir: t.TempDir(), MaxStore: -1})
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"no handler": {noHandler, "no handler"}, "no handler of batches": {noBatchHandler, "no handler"}, "no inbox": {noInbox, "no inbox"}, "no key": {noKey, "no function"},
		"no queue": {noQueue, "no Queue"}, "any type": {anyType, "generated"}, "no database": {noDB, "no database"}, "no database for an outbox": {noOutboxDB, "no database"},
		"a long ID": {longID, "512 at most"}, "an odd ID": {oddID, "UTF-8"}, "Dir and URL": {both, "both set"}, "a negative store": {negative, "MaxStore"},
	} {
		if c.err == nil || !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("%s: %v", name, c.err)
		}
	}
	if _, err := top.Publish(t.Context(), wrapperspb.String(strings.Repeat("x", 10_000)), WhenFullWait()); !errors.Is(err, ErrTooLarge) {
		t.Errorf("larger than the topic: %v", err)
	}
	if letter, err := top.DeadLetters("g").Peek(t.Context(), 1); !errors.Is(err, ErrNoLetter) {
		t.Errorf("%+v, %v", letter, err)
	}
	sub := subscribe(t, top, "g", func(context.Context, *Msg[text]) error { return Reject(errors.New("no"), "bad") })
	publish(t, top, "x")
	until(t, func() bool { st, err := sub.Stats(t.Context()); return err == nil && st.Dead == 1 })
	if letter, err := top.DeadLetters("g").Peek(t.Context(), 1); err != nil || letter.Reason != "bad" {
		t.Errorf("%+v, %v", letter, err)
	}
	if _, err := top.DeadLetters("other").Peek(t.Context(), 1); !errors.Is(err, ErrNoLetter) {
		t.Errorf("another group's: %v", err)
	}
	drained(t, sub)
	shut(t, q)
	if _, err := sub.Stats(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("stats of a queue that is closed: %v", err)
	}
	if _, err := top.DeadLetters("g").List(t.Context(), 1, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("dead letters of a queue that is closed: %v", err)
	}
}
