package queue

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// TestGivenBack: what a process only held when it ended was not tried, however often that happens; what was in a handler then neither.
func TestGivenBack(t *testing.T) {
	for name, opts := range map[string][]SubscribeOption{"plain": nil, "ordered": {Ordered()}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q := open(t, t.TempDir())
			top := topic(t, q, "orders", KeyBy(keyOf))
			publish(t, top, "a 1", "a 2", "b 1", "c 1", "c 2")
			opts = append(opts, Workers(1), Retry(1, time.Second, time.Second))
			for range 3 {
				began := make(chan bool, 10)
				sub := subscribe(t, top, "g", func(ctx context.Context, _ *Msg[text]) error {
					began <- true
					<-ctx.Done()
					return ctx.Err()
				}, opts...)
				next(t, began)
				until(t, func() bool { sub.mu.Lock(); defer sub.mu.Unlock(); return len(sub.held) == 5 })
				sub.Stop()
			}
			var mu sync.Mutex
			attempts := map[string]int{}
			sub := subscribe(t, top, "g", func(_ context.Context, m *Msg[text]) error {
				mu.Lock()
				defer mu.Unlock()
				attempts[m.Value.GetValue()] = m.Attempt
				return nil
			}, opts...)
			if st := idle(t, sub); st.Dead != 0 {
				t.Errorf("%+v", st)
			}
			drained(t, sub)
			for v, n := range attempts {
				if n != 1 || len(attempts) != 5 {
					t.Errorf("%s was handled in attempt %d; %d messages", v, n, len(attempts))
				}
			}
		})
	}
}

// TestEndsWhileAsking: when a subscription ends while it asks how often a message was tried, the message is given back as it came.
func TestEndsWhileAsking(t *testing.T) {
	q := open(t, t.TempDir())
	top := topic(t, q, "orders")
	sub := subscribe(t, top, "g", func(context.Context, *Msg[text]) error { t.Error("it is handled"); return nil })
	sub.Stop()
	d := delivery{seq: 1, times: 3}
	sub.learn(&d)
	if o := sub.attempt(&d); o.what != cut {
		t.Errorf("%+v", o)
	}
	if _, err := q.js.Stream(t.Context(), top.stream.name+triesStreamEnd); !errors.Is(err, jetstream.ErrStreamNotFound) {
		t.Errorf("something is noted: %v", err)
	}
}

// diesOver is a process that handles messages, and dies over a bad one.
func diesOver(dir string) {
	q, err := Open(context.Background(), Config{Dir: dir, Logger: quiet()})
	if err != nil {
		fmt.Println(err)
		return
	}
	top, err := NewTopic[text](q, "orders")
	if err == nil {
		_, err = top.Subscribe(context.Background(), "g", func(_ context.Context, m *Msg[text]) error {
			if m.Value.GetValue() == "bad" {
				fmt.Println("begun", m.Attempt)
				os.Exit(1)
			}
			return nil
		}, Workers(1), Retry(1, time.Minute, time.Minute))
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	select {}
}

// TestCrashing: a message whose handlers never come back is dead in the end, and those that their processes held are not.
func TestCrashing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	q := open(t, dir)
	publish(t, topic(t, q, "orders"), "bad", "good", "fine")
	shut(t, q)
	for n := 1; n <= 3; n++ { // the first one is not counted
		cmd, lines := child(t, "QUEUE_TEST_DIES="+dir)
		if !lines.Scan() || lines.Text() != fmt.Sprint("begun ", max(n-1, 1)) {
			t.Errorf("process %d says %q", n, lines.Text())
		}
		_ = cmd.Wait()
	}
	q = open(t, dir)
	top := topic(t, q, "orders")
	got := make(chan *Msg[text], 10)
	sub := subscribe(t, top, "g", func(_ context.Context, m *Msg[text]) error { got <- m; return nil }, Retry(1, time.Second, time.Second))
	idle(t, sub)
	for len(got) > 0 {
		if m := next(t, got); m.Value.GetValue() == "bad" || m.Attempt != 1 {
			t.Errorf("%s came, attempt %d", m.Value.GetValue(), m.Attempt)
		}
	}
	letters, err := top.DeadLetters("g").List(t.Context(), 10, nil)
	if err != nil || len(letters) != 1 || letters[0].Reason != "crashed" || letters[0].Attempts != 2 {
		t.Errorf("%+v, %v", letters, err)
	}
	drained(t, sub)
}

// TestAttemptsGoOn: attempts are counted across subscriptions, and a dead letter says when the first was.
func TestAttemptsGoOn(t *testing.T) {
	q := open(t, t.TempDir())
	top := topic(t, q, "orders")
	publish(t, top, "bad")
	var attempts []int
	for range 3 {
		tried := make(chan int, 10)
		sub := subscribe(t, top, "g", func(_ context.Context, m *Msg[text]) error {
			tried <- m.Attempt
			return After(300*time.Millisecond, errors.New("no"))
		}, Retry(3, time.Second, time.Second))
		attempts = append(attempts, next(t, tried))
		time.Sleep(50 * time.Millisecond)
		sub.Stop()
	}
	if !slices.Equal(attempts, []int{1, 2, 3}) {
		t.Errorf("attempts %v", attempts)
	}
	var letters []DeadLetter
	until(t, func() (so bool) {
		var err error
		letters, err = top.DeadLetters("g").List(t.Context(), 10, nil)
		return err != nil || len(letters) == 1
	})
	if l := letters[0]; l.Attempts != 3 || l.First.Before(l.Published) || l.Died.Sub(l.First) < 50*time.Millisecond {
		t.Errorf("published %s, tried first %s, died %s after %d", l.Published, l.First, l.Died, l.Attempts)
	}
}

// TestDeadFull: a message that has no room among the dead letters is not handled again, and keeps its reason.
func TestDeadFull(t *testing.T) {
	q := open(t, t.TempDir())
	top := topic(t, q, "orders")
	came := make(chan string, 100)
	sub := subscribe(t, top, "billing", func(_ context.Context, m *Msg[text]) error {
		came <- m.Value.GetValue()
		if m.Value.GetValue() == "bad" {
			return Reject(errors.New("no such street"), "bad address")
		}
		return nil
	}, Retry(1, time.Millisecond, time.Millisecond))
	deadRoom(t, q, "orders", 10)
	publish(t, top, "bad")
	next(t, came)
	publish(t, top, "good")
	if v := next(t, came); v != "good" {
		t.Error(v)
	}
	time.Sleep(3 * againLater)
	deadRoom(t, q, "orders", deadBytes)
	idle(t, sub)
	letters, err := top.DeadLetters("billing").List(t.Context(), 10, nil)
	if err != nil || len(letters) != 1 || letters[0].Reason != "bad address" || letters[0].Attempts != 1 || len(came) != 0 {
		t.Errorf("%+v, %v; %d more came", letters, err, len(came))
	}
	drained(t, sub)
}
