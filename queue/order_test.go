package queue

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"
)

// keyOf is the key of a message "key number".
func keyOf(m text) string { key, _, _ := strings.Cut(m.GetValue(), " "); return key }

// inOrder follows what is handled: a message may come again, but none before the one in front of it.
type inOrder struct {
	mu   sync.Mutex
	last map[string]int
	n    int // messages handled for the first time
}

func (o *inOrder) handled(value string) error {
	key, number, _ := strings.Cut(value, " ")
	i, err := strconv.Atoi(number)
	if err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.last == nil {
		o.last = map[string]int{}
	}
	if i > o.last[key]+1 {
		return fmt.Errorf("key %s: message %d after %d", key, i, o.last[key])
	}
	if i == o.last[key]+1 {
		o.last[key] = i
		o.n++
	}
	return nil
}

// TestOrdered: messages of a key are handled in order, although attempts fail and the subscription ends again and again.
func TestOrdered(t *testing.T) {
	const keys, each = 50, 40
	q := open(t, t.TempDir())
	top := topic(t, q, "orders", KeyBy(keyOf), Durable(Buffered))
	for i := range each {
		for k := range keys {
			publish(t, top, fmt.Sprintf("k%d %d", k, i+1))
		}
	}
	var o inOrder
	var busy sync.Map
	handle := func(_ context.Context, m *Msg[text]) error {
		if _, loaded := busy.LoadOrStore(m.Key, true); loaded {
			t.Errorf("two messages of %s at once", m.Key)
		}
		defer busy.Delete(m.Key)
		if rand.IntN(5) == 0 {
			return errors.New("not this time")
		}
		if err := o.handled(m.Value.GetValue()); err != nil {
			t.Error(err)
		}
		return nil
	}
	retry := Retry(1000, time.Microsecond, 5*time.Millisecond)
	for range 3 {
		sub := subscribe(t, top, "billing", handle, Ordered(), retry, Workers(4))
		if _, err := top.Subscribe(t.Context(), "billing", handle); err == nil {
			t.Error("another subscription beside one that is ordered")
		}
		time.Sleep(30 * time.Millisecond)
		if rand.IntN(2) == 0 {
			drained(t, sub)
		} else {
			sub.Stop()
		}
	}
	sub := subscribe(t, top, "billing", handle, Ordered(), retry)
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		st, err := sub.Stats(t.Context())
		if err != nil || time.Since(begin) > 30*time.Second {
			t.Fatalf("%+v, %v", st, err)
		}
		if st.Lag == 0 && st.InFlight == 0 {
			break
		}
	}
	drained(t, sub)
	if dead, err := top.DeadLetters("billing").List(t.Context(), 10, nil); err != nil || len(dead) > 0 {
		t.Errorf("dead: %+v, %v", dead, err)
	}
	if o.n != keys*each {
		t.Errorf("%d messages of %d", o.n, keys*each)
	}
	other := subscribe(t, top, "billing", handle)
	if _, err := top.Subscribe(t.Context(), "billing", handle, Ordered()); err == nil {
		t.Error("one that is ordered beside another")
	}
	drained(t, other)
	if _, err := topic(t, q, "plain").Subscribe(t.Context(), "billing", handle, Ordered()); err == nil {
		t.Error("order without keys")
	}
}

// TestOrderedDeadFull: a message that is dead and cannot be put among the dead letters holds up its key alone, and is not handled again; when there is room it
// goes there, with its reason.
func TestOrderedDeadFull(t *testing.T) {
	q := open(t, t.TempDir())
	top := topic(t, q, "orders", KeyBy(keyOf))
	came := make(chan string, 100)
	sub := subscribe(t, top, "billing", func(_ context.Context, m *Msg[text]) error {
		came <- m.Value.GetValue()
		if m.Value.GetValue() == "a bad" {
			return Reject(errors.New("no such street"), "bad address")
		}
		return nil
	}, Ordered(), Retry(3, time.Millisecond, time.Millisecond))
	deadRoom(t, q, "orders", 10)
	publish(t, top, "a bad", "a next", "b other")
	if first, second := next(t, came), next(t, came); first == "a next" || second == "a next" {
		t.Errorf("%s, %s", first, second)
	}
	time.Sleep(3 * againLater)
	if len(came) != 0 {
		t.Errorf("%s came, and the message before it is not among the dead letters", next(t, came))
	}
	deadRoom(t, q, "orders", deadBytes)
	if m := next(t, came); m != "a next" {
		t.Errorf("%s, want the key's next", m)
	}
	drained(t, sub)
	letters, err := top.DeadLetters("billing").List(t.Context(), 10, nil)
	if err != nil || len(letters) != 1 || letters[0].Reason != "bad address" || letters[0].Attempts != 1 {
		t.Errorf("%+v, %v", letters, err)
	}
}

// deadRoom sets how many bytes of dead letters a topic may have.
func deadRoom(t *testing.T, q *Queue, topic string, bytes int64) {
	t.Helper()
	s, err := q.js.Stream(t.Context(), streamName(topic)+deadStreamEnd)
	if err != nil {
		t.Fatal(err)
	}
	cfg := s.CachedInfo().Config
	cfg.MaxBytes = bytes
	if _, err := q.js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
}

// TestOthersDoNotWait: a key that fails for long holds up its own messages alone, also many of them.
func TestOthersDoNotWait(t *testing.T) {
	q := open(t, t.TempDir())
	top := topic(t, q, "orders", KeyBy(keyOf), Durable(Buffered))
	for i := range 800 {
		publish(t, top, fmt.Sprint("stuck ", i))
	}
	publish(t, top, "free 1")
	done := make(chan string, 10)
	sub := subscribe(t, top, "billing", func(_ context.Context, m *Msg[text]) error {
		if m.Key == "stuck" {
			return errors.New("still")
		}
		done <- m.Value.GetValue()
		return nil
	}, Ordered(), Retry(10, time.Hour, time.Hour))
	if got := next(t, done); got != "free 1" {
		t.Error(got)
	}
	publish(t, top, "free 2")
	if got := next(t, done); got != "free 2" {
		t.Error(got)
	}
	drained(t, sub) // does not wait for the hour
	if st, err := sub.Stats(t.Context()); err != nil || st.InFlight != 800 {
		t.Errorf("%+v, %v", st, err)
	}
}

// orderedConsumer is a process that handles in order until it is killed.
func orderedConsumer(dir string) {
	err := func() error {
		q, err := Open(context.Background(), Config{Dir: dir, Logger: quiet()})
		if err != nil {
			return err
		}
		top, err := NewTopic[text](q, "orders", KeyBy(keyOf))
		if err != nil {
			return err
		}
		_, err = top.Subscribe(context.Background(), "billing", func(_ context.Context, m *Msg[text]) error {
			if rand.IntN(10) == 0 {
				return errors.New("not this time")
			}
			_, err := os.Stdout.WriteString(m.Value.GetValue() + "\n")
			return err
		}, Ordered(), Retry(1000, time.Microsecond, time.Millisecond))
		if err != nil {
			return err
		}
		for i := 1; ; i++ { // and publishes on
			if _, err := top.Publish(context.Background(), wrapperspb.String(fmt.Sprint(os.Getenv("QUEUE_TEST_FIRST"), i%7, " ", (i+6)/7))); err != nil {
				return err
			}
		}
	}()
	fmt.Println("fault", err)
	os.Exit(1)
}

// TestOrderedKilled kills processes that publish and handle: messages of a key are handled in order by those that follow.
func TestOrderedKilled(t *testing.T) {
	t.Parallel()
	kills := 4
	if testing.Short() {
		kills = 2
	}
	if n, err := strconv.Atoi(os.Getenv("QUEUE_KILLS")); err == nil {
		kills = n
	}
	dir := t.TempDir()
	var o inOrder
	lines := 0
	for run := range kills {
		cmd, said := child(t, "QUEUE_TEST_ORDERED="+dir, fmt.Sprintf("QUEUE_TEST_FIRST=run%d-", run))
		begun := false
		for ; said.Scan(); lines++ {
			if err := o.handled(said.Text()); err != nil {
				t.Error(err)
			}
			if !begun {
				begun = true
				time.AfterFunc(time.Duration(100+rand.IntN(300))*time.Millisecond, func() { _ = cmd.Process.Kill() })
			}
		}
		_ = cmd.Wait() // it was killed
	}
	if o.n == 0 || lines == o.n {
		t.Errorf("%d messages handled, %d of them again: nothing was interrupted", o.n, lines-o.n)
	}
	t.Logf("%d kills, %d messages in order, %d handled again", kills, o.n, lines-o.n)
}
