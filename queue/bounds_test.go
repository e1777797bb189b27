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
