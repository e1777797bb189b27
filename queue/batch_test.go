package queue

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"
)

func subscribeBatch(t testing.TB, top *Topic[text], group string, handle BatchHandler[text], opts ...SubscribeOption) *Subscription {
	t.Helper()
	sub, err := top.SubscribeBatch(t.Context(), group, handle, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sub.Stop)
	return sub
}

func valuesOf(ms []*Msg[text]) (values []string) {
	for _, m := range ms {
		values = append(values, m.Value.GetValue())
	}
	return values
}

// tally counts how often messages were handled.
type tally struct {
	sync.Mutex
	n map[string]int
}

func (c *tally) add(values ...string) {
	c.Lock()
	defer c.Unlock()
	if c.n == nil {
		c.n = map[string]int{}
	}
	for _, v := range values {
		c.n[v]++
	}
}

// idle waits until nothing of a group is left to do.
func idle(t testing.TB, sub *Subscription) Stats {
	t.Helper()
	for begin := time.Now(); time.Since(begin) < 20*time.Second; time.Sleep(10 * time.Millisecond) {
		st, err := sub.Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if st.Lag == 0 && st.InFlight == 0 {
			return st
		}
	}
	t.Fatal("messages are left")
	return Stats{}
}

// TestBatch: a message that comes alone is handled alone; what comes while a batch is handled is the next one, up to its bounds.
func TestBatch(t *testing.T) {
	q := open(t, t.TempDir())
	top := topic(t, q, "orders", Durable(Buffered))
	batches, free := make(chan []string, 100), make(chan bool)
	sub := subscribeBatch(t, top, "export", func(_ context.Context, ms []*Msg[text]) error {
		batches <- valuesOf(ms)
		<-free
		return nil
	}, BatchSize(50, 10_000))
	for i := range 3 {
		publish(t, top, fmt.Sprint("alone ", i))
		if b := next(t, batches); len(b) != 1 {
			t.Errorf("%q", b)
		}
		free <- true
	}
	publish(t, top, "first")
	next(t, batches)
	for i := range 130 {
		publish(t, top, fmt.Sprint("many ", i))
	}
	until(t, func() bool { // what may be fetched has been
		sub.mu.Lock()
		defer sub.mu.Unlock()
		return sub.waitingLocked() >= 50
	})
	close(free)
	var all []string
	for len(all) < 130 {
		b := next(t, batches)
		if len(all) == 0 && len(b) != 50 {
			t.Errorf("%d messages at first", len(b))
		}
		all = append(all, b...)
	}
	if slices.Sort(all); len(slices.Compact(all)) != 130 {
		t.Errorf("%q", all)
	}
	drained(t, sub)
	big := strings.Repeat("x", 4000)
	bounded := subscribeBatch(t, top, "bytes", func(_ context.Context, ms []*Msg[text]) error {
		n := 0
		for _, m := range ms {
			n += len(m.Value.GetValue())
		}
		if n > 10_000 && len(ms) > 1 {
			t.Errorf("%d messages of %d bytes", len(ms), n)
		}
		return nil
	}, BatchSize(50, 10_000), Workers(2))
	for range 20 {
		publish(t, top, big, big+big+big)
	}
	if st := idle(t, bounded); st.Dead != 0 {
		t.Errorf("%+v", st)
	}
	drained(t, bounded)
}

// TestBatchLatency: a message that comes alone does not wait; those that come soon after one another do, until the batch is full or the subscription ends.
func TestBatchLatency(t *testing.T) {
	q := open(t, t.TempDir())
	top := topic(t, q, "orders")
	batches := make(chan []string, 100)
	sub := subscribeBatch(t, top, "export", func(_ context.Context, ms []*Msg[text]) error {
		batches <- valuesOf(ms)
		return nil
	}, Latency(maxLatency), BatchSize(10, 1<<20))
	publish(t, top, "alone")
	if b := next(t, batches); len(b) != 1 {
		t.Errorf("%q", b)
	}
	for i := range 15 {
		publish(t, top, fmt.Sprint(i))
	}
	if b := next(t, batches); len(b) != 10 {
		t.Errorf("%q", b)
	}
	drained(t, sub)
	for n := 0; n < 5; {
		n += len(next(t, batches))
	}
	short := subscribeBatch(t, top, "short", func(_ context.Context, ms []*Msg[text]) error {
		batches <- valuesOf(ms)
		return nil
	}, Latency(100*time.Millisecond))
	for n := 0; n < 16; {
		n += len(next(t, batches))
	}
	publish(t, top, "a", "b", "c")
	for n := 0; n < 3; {
		n += len(next(t, batches))
	}
	drained(t, short)
}

// TestBatchPoison: what cannot be handled goes to the dead letters, and nothing with it, however the batch says that it failed.
func TestBatchPoison(t *testing.T) {
	t.Parallel()
	q := open(t, t.TempDir())
	for name, c := range map[string]struct {
		attempts int
		fail     func(i int) error
		reason   string
	}{
		"an error":             {4, func(int) error { return errors.New("no such street") }, "attempts"},
		"an error and one try": {1, func(int) error { return errors.New("no such street") }, "attempts"},
		"an error and two":     {2, func(int) error { return errors.New("no such street") }, "attempts"},
		"a panic":              {3, func(int) error { panic("no such street") }, "attempts"},
		"rejected as a whole":  {4, func(int) error { return Reject(errors.New("no such street"), "bad address") }, "bad address"},
		"rejected by its place": {4, func(i int) error {
			return Failed(map[int]error{i: Reject(errors.New("no such street"), "bad address")})
		}, "bad address"},
		"failed by its place": {3, func(i int) error {
			return fmt.Errorf("export: %w", Failed(map[int]error{i: errors.New("no such street")}))
		}, "attempts"},
		"a place that is none": {3, func(i int) error { return Failed(map[int]error{1000: errors.New("no such street")}) }, "attempts"},
	} {
		t.Run(name, func(t *testing.T) {
			top := topic(t, q, strings.ReplaceAll(name, " ", "_"), Durable(Buffered))
			for i := range 40 {
				publish(t, top, fmt.Sprint(i))
			}
			publish(t, top, "poison")
			for i := range 40 {
				publish(t, top, fmt.Sprint(40+i))
			}
			var done tally
			sub := subscribeBatch(t, top, "export", func(_ context.Context, ms []*Msg[text]) error {
				values := valuesOf(ms)
				if i := slices.Index(values, "poison"); i >= 0 {
					err := c.fail(i)
					var some *partly
					if errors.As(err, &some) && some.errs[i] != nil {
						done.add(slices.Delete(values, i, i+1)...)
					}
					return err
				}
				done.add(values...)
				return nil
			}, Retry(c.attempts, time.Millisecond, 10*time.Millisecond), BatchSize(100, 1<<20))
			if st := idle(t, sub); st.Dead != 1 {
				t.Errorf("%+v", st)
			}
			letters, err := top.DeadLetters("export").List(t.Context(), 100, nil)
			if err != nil || len(letters) != 1 || letters[0].Origin != 41 || letters[0].Reason != c.reason || !strings.Contains(letters[0].Error, "no such street") {
				t.Errorf("%+v, %v", letters, err)
			}
			drained(t, sub)
			for i := range 80 {
				if n := done.n[fmt.Sprint(i)]; n != 1 {
					t.Errorf("message %d was handled %d times", i, n)
				}
			}
		})
	}
}

// TestBatchFailed: each message has its own outcome.
func TestBatchFailed(t *testing.T) {
	q := open(t, t.TempDir())
	top := topic(t, q, "orders")
	publish(t, top, "good", "later", "other", "good")
	attempts := make(chan string, 100)
	sub := subscribeBatch(t, top, "export", func(_ context.Context, ms []*Msg[text]) error {
		errs := map[int]error{}
		for i, m := range ms {
			attempts <- fmt.Sprint(m.Value.GetValue(), " ", m.Attempt)
			switch {
			case m.Value.GetValue() == "later" && m.Attempt < 5:
				errs[i] = After(time.Millisecond, errors.New("not open yet"))
			case m.Value.GetValue() == "other" && m.Attempt < 2:
				errs[i] = errors.New("busy")
			}
		}
		return Failed(errs)
	}, Retry(6, 0, time.Millisecond))
	if st := idle(t, sub); st.Dead != 0 {
		t.Errorf("%+v", st)
	}
	drained(t, sub)
	close(attempts)
	var all []string
	for a := range attempts {
		all = append(all, a)
	}
	slices.Sort(all)
	if want := []string{"good 1", "good 1", "later 1", "later 2", "later 3", "later 4", "later 5", "other 1", "other 2"}; !slices.Equal(all, want) {
		t.Errorf("%q", all)
	}
	if err := Failed(map[int]error{3: nil}); err != nil {
		t.Errorf("nothing failed: %v", err)
	}
	if err := Failed(map[int]error{3: os.ErrClosed}); !errors.Is(err, os.ErrClosed) || !strings.Contains(err.Error(), "message 3") {
		t.Errorf("%v", err)
	}
}

// TestBatchEnds: a subscription that ends handles what it has, or gives it back.
func TestBatchEnds(t *testing.T) {
	const messages = 500
	q := open(t, t.TempDir())
	top := topic(t, q, "orders", Durable(Buffered))
	for i := range messages {
		publish(t, top, fmt.Sprint(i))
	}
	var done tally
	began := make(chan bool, messages)
	handle := func(ctx context.Context, ms []*Msg[text]) error {
		began <- true
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
		done.add(valuesOf(ms)...)
		return nil
	}
	stopped := subscribeBatch(t, top, "export", handle, BatchSize(20, 1<<20))
	next(t, began)
	stopped.Stop()
	ended := subscribeBatch(t, top, "export", handle, BatchSize(20, 1<<20), Workers(2))
	next(t, began)
	drained(t, ended)
	last := subscribeBatch(t, top, "export", handle, Latency(10*time.Millisecond))
	if st := idle(t, last); st.Dead != 0 {
		t.Errorf("%+v", st)
	}
	drained(t, last)
	if len(done.n) != messages {
		t.Errorf("%d of %d handled", len(done.n), messages)
	}
	for m, n := range done.n {
		if n != 1 {
			t.Errorf("message %s was handled %d times", m, n)
		}
	}
}

func TestBatchRefused(t *testing.T) {
	q := open(t, t.TempDir())
	top := topic(t, q, "orders", KeyBy(keyOf))
	handle := func(context.Context, []*Msg[text]) error { return nil }
	for name, opt := range map[string]SubscribeOption{
		"order": Ordered(), "once": Once(&SQLInbox{}), "size": BatchSize(0, 1), "bytes": BatchSize(1, 0), "too many": BatchSize(maxBatch+1, 1),
		"latency": Latency(-1), "too late": Latency(2 * maxLatency), "workers": Workers(0),
	} {
		if _, err := top.SubscribeBatch(t.Context(), "a", handle, opt); err == nil || !strings.HasPrefix(err.Error(), `queue: topic "orders", group "a": `) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := top.Subscribe(t.Context(), "a", func(context.Context, *Msg[text]) error { return nil }, Latency(time.Second)); err == nil {
		t.Error("Latency without batches")
	}
}

// batchConsumer is a process that handles batches until it is killed, and says which messages it has.
func batchConsumer(dir string) {
	q, err := Open(context.Background(), Config{Dir: dir, Logger: quiet()})
	if err == nil {
		var top *Topic[text]
		if top, err = NewTopic[text](q, "orders"); err == nil {
			_, err = top.SubscribeBatch(context.Background(), "export", func(_ context.Context, ms []*Msg[text]) error {
				_, _ = os.Stdout.WriteString(strings.Join(valuesOf(ms), " ") + "\n")
				return nil
			}, BatchSize(30, 1<<20), Workers(2))
		}
	}
	if err != nil {
		fmt.Println("fault", err)
		os.Exit(1)
	}
	select {}
}

// TestBatchKilled kills processes that handle batches: no message is lost, and none is dead for it.
func TestBatchKilled(t *testing.T) {
	const messages = 1000
	dir := t.TempDir()
	q := open(t, dir)
	top := topic(t, q, "orders")
	var all []text
	for i := range messages {
		all = append(all, wrapperspb.String(fmt.Sprint(i)))
	}
	if _, err := top.PublishAll(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	shut(t, q)
	var done tally
	for range 4 {
		cmd, lines := child(t, "QUEUE_TEST_BATCH="+dir)
		for n := 0; n < 5 && len(done.n) < messages && lines.Scan(); n++ {
			if strings.HasPrefix(lines.Text(), "fault") {
				t.Fatal(lines.Text())
			}
			done.add(strings.Fields(lines.Text())...)
		}
		_ = cmd.Process.Kill()
		for lines.Scan() {
			done.add(strings.Fields(lines.Text())...)
		}
		_ = cmd.Wait() // it was killed
	}
	q = open(t, dir)
	sub := subscribeBatch(t, topic(t, q, "orders"), "export", func(_ context.Context, ms []*Msg[text]) error {
		done.add(valuesOf(ms)...)
		return nil
	})
	if st := idle(t, sub); st.Dead != 0 {
		t.Errorf("%+v", st)
	}
	drained(t, sub)
	if len(done.n) != messages {
		t.Errorf("%d of %d handled", len(done.n), messages)
	}
}
