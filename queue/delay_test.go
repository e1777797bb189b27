package queue

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// arrived is a message and when it came.
type arrived struct {
	*Msg[text]
	at time.Time
}

// arrivals subscribes and returns what comes.
func arrivals(t testing.TB, top *Topic[text], group string, opts ...SubscribeOption) (*Subscription, <-chan arrived) {
	t.Helper()
	got := make(chan arrived, 10_000)
	return subscribe(t, top, group, func(_ context.Context, m *Msg[text]) error {
		got <- arrived{m, time.Now()}
		return nil
	}, opts...), got
}

func later(t testing.TB, top *Topic[text], id string, d time.Duration) Receipt {
	t.Helper()
	r, err := top.Publish(t.Context(), wrapperspb.String(id), ID(id), Delay(d))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// laterLeft waits until the delay stream of a topic has no messages but those.
func laterLeft(t testing.TB, q *Queue, topic string, want uint64) {
	t.Helper()
	var n uint64
	for begin := time.Now(); time.Since(begin) < 20*time.Second; time.Sleep(10 * time.Millisecond) {
		s, err := q.js.Stream(t.Context(), streamName(topic)+laterStreamEnd)
		if err != nil {
			t.Fatal(err)
		}
		if n = s.CachedInfo().State.Msgs; n == want {
			return
		}
	}
	t.Errorf("the delay stream has %d messages, not %d", n, want)
}

func TestDelay(t *testing.T) {
	dir := t.TempDir()
	q := open(t, dir)
	top := topic(t, q, "orders.placed", KeyBy(func(m text) string { return "k" + m.GetValue() }))
	sub, got := arrivals(t, top, "billing")
	if done, err := top.Cancel(t.Context(), "nobody"); done || err != nil {
		t.Errorf("before anything was delayed: %v, %v", done, err)
	}
	odd := "order 1.*.>"
	due := time.Now().Add(300 * time.Millisecond)
	r, err := top.Publish(t.Context(), wrapperspb.String("a"), ID(odd), At(due), Trace("t"))
	if err != nil || r != (Receipt{Topic: "orders.placed", ID: odd}) {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err := top.Publish(t.Context(), wrapperspb.String("b"), ID(odd), Delay(time.Hour)); err != nil || !r.Duplicate {
		t.Errorf("again: %+v, %v", r, err)
	}
	if n := len(stored(t, q, "orders.placed")); n != 0 {
		t.Errorf("the topic has %d messages", n)
	}
	m := next(t, got)
	if m.at.Before(due) || m.Value.GetValue() != "a" || m.ID != odd || m.Key != "ka" || m.Attempt != 1 || m.Sequence != 1 || !m.Published.Before(due) {
		t.Errorf("due at %s: %+v", due, m)
	}
	for k := range m.Header.Map() {
		if strings.HasPrefix(k, headerPrefix) || k == headerExpected {
			t.Errorf("its header has %s", k)
		}
	}
	if m.Header.Get(headerID) != odd || m.Header.Get(headerTrace) != "t" {
		t.Errorf("%v", m.Header)
	}
	for _, d := range []PublishOption{Delay(0), Delay(-time.Hour), At(time.Time{}), At(time.Now().Add(-time.Hour))} {
		if r, err := top.Publish(t.Context(), wrapperspb.String("now"), d); err != nil || r.Sequence == 0 {
			t.Errorf("%+v, %v", r, err)
		}
		next(t, got)
	}
	if _, err := top.Publish(t.Context(), wrapperspb.String("x"), Delay(MaxDelay+time.Hour)); err == nil || !strings.Contains(err.Error(), `topic "orders.placed": it is due at`) {
		t.Errorf("in more than a year: %v", err)
	}
	if _, err := top.PublishAll(t.Context(), []text{wrapperspb.String("x")}, Delay(time.Hour)); err == nil {
		t.Error("messages together, delayed")
	}
	laterLeft(t, q, "orders.placed", 0)
	drained(t, sub)
}

// TestCancel: a message that was cancelled does not come, and another one may then have its ID.
func TestCancel(t *testing.T) {
	q := open(t, t.TempDir())
	top := topic(t, q, "orders")
	sub, got := arrivals(t, top, "billing")
	later(t, top, "a", 300*time.Millisecond)
	if done, err := top.Cancel(t.Context(), "a"); !done || err != nil {
		t.Errorf("%v, %v", done, err)
	}
	if done, err := top.Cancel(t.Context(), "a"); done || err != nil {
		t.Errorf("twice: %v, %v", done, err)
	}
	if r := later(t, top, "a", time.Hour); r.Duplicate {
		t.Errorf("%+v", r)
	}
	if done, err := top.Cancel(t.Context(), "a"); !done || err != nil {
		t.Errorf("%v, %v", done, err)
	}
	begin := time.Now()
	later(t, top, "a", 400*time.Millisecond)
	if m := next(t, got); m.ID != "a" || m.at.Sub(begin) < 400*time.Millisecond {
		t.Errorf("after %s: %+v", m.at.Sub(begin), m)
	}
	if done, err := top.Cancel(t.Context(), "a"); done || err != nil {
		t.Errorf("one that has come: %v, %v", done, err)
	}
	drained(t, sub)
	if len(got) != 0 {
		t.Errorf("%d more", len(got))
	}
	laterLeft(t, q, "orders", 0)
}

// TestCancelRace cancels messages when they are due: each is either cancelled or comes, once.
func TestCancelRace(t *testing.T) {
	const messages = 300
	q := open(t, t.TempDir())
	q.now = func() time.Time { return time.Now().Add(-rand.N(20 * time.Millisecond)) } // whether it is due is not agreed upon
	top := topic(t, q, "orders", Durable(Buffered))
	sub, got := arrivals(t, top, "billing")
	var cancelled sync.Map
	var n atomic.Int64
	var all sync.WaitGroup
	begin := time.Now().Add(time.Second)
	for i := range messages {
		id, due := strconv.Itoa(i), begin.Add(time.Duration(i)*8*time.Millisecond)
		if _, err := top.Publish(t.Context(), wrapperspb.String(id), ID(id), At(due)); err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			time.Sleep(time.Until(due.Add(rand.N(30*time.Millisecond) - 10*time.Millisecond)))
			done, err := top.Cancel(context.Background(), id)
			if err != nil {
				t.Error(err)
			}
			if done {
				cancelled.Store(id, true)
				n.Add(1)
			}
		})
	}
	all.Wait()
	came := map[string]int{}
	for len(came) < messages-int(n.Load()) {
		came[next(t, got).ID]++
	}
	laterLeft(t, q, "orders", 0)
	drained(t, sub)
	for len(got) > 0 {
		came[next(t, got).ID]++
	}
	for id, times := range came {
		if _, twoFold := cancelled.Load(id); twoFold || times != 1 {
			t.Errorf("message %s came %d times; cancelled: %v", id, times, twoFold)
		}
	}
	t.Logf("%d cancelled, %d came", n.Load(), len(came))
}

// TestDelays: messages that are due at random moments come once each, none early. How late they come is a figure to read.
func TestDelays(t *testing.T) {
	messages, within := 2000, time.Minute
	if testing.Short() || os.Getenv("QUEUE_KILLS") == "" { // but for make soak-queue
		messages, within = 200, 3*time.Second
	}
	q := open(t, t.TempDir())
	top := topic(t, q, "orders")
	sub, got := arrivals(t, top, "billing")
	begin := time.Now().Add(time.Second)
	due := make([]time.Time, messages)
	var all sync.WaitGroup
	for w := range 16 {
		all.Go(func() {
			for i := w; i < messages; i += 16 {
				due[i] = begin.Add(rand.N(within))
				if _, err := top.Publish(context.Background(), wrapperspb.String("x"), ID(strconv.Itoa(i)), At(due[i])); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	seen := map[int]bool{}
	var late []time.Duration
	for range messages {
		m := next(t, got)
		i, err := strconv.Atoi(m.ID)
		if err != nil || seen[i] {
			t.Fatalf("message %s: %v, %v", m.ID, seen[i], err)
		}
		seen[i] = true
		d := m.at.Sub(due[i])
		if d < 0 {
			t.Errorf("message %d is early by %s", i, -d)
		}
		late = append(late, d)
	}
	slices.Sort(late)
	t.Logf("%d messages within %s: late by p50 %s, p99 %s, at most %s", messages, within, late[messages/2], late[messages*99/100], late[messages-1])
	drained(t, sub)
	laterLeft(t, q, "orders", 0)
}

// TestDelayReopened: what was due while no process had the topic open comes when one has; what is not due yet comes when it is.
func TestDelayReopened(t *testing.T) {
	dir := t.TempDir()
	q := open(t, dir)
	top := topic(t, q, "orders")
	begin := time.Now()
	later(t, top, "soon", 100*time.Millisecond)
	later(t, top, "after", 1200*time.Millisecond)
	later(t, top, "never", time.Hour)
	shut(t, q)
	time.Sleep(time.Until(begin.Add(150 * time.Millisecond)))
	q = open(t, dir)
	top = topic(t, q, "orders")
	sub, got := arrivals(t, top, "billing")
	for _, want := range []string{"soon", "after"} {
		if m := next(t, got); m.ID != want || want == "after" && m.at.Sub(begin) < 1200*time.Millisecond {
			t.Errorf("%s came after %s, want %s", m.ID, m.at.Sub(begin), want)
		}
	}
	if done, err := top.Cancel(t.Context(), "never"); !done || err != nil {
		t.Errorf("%v, %v", done, err)
	}
	drained(t, sub)
	laterLeft(t, q, "orders", 0)
}

// TestDelayInterrupted: a message that was handed over, and not taken away by who did, is not handed over once more when the topic has forgotten its ID.
func TestDelayInterrupted(t *testing.T) {
	q := open(t, t.TempDir())
	var ahead atomic.Int64
	q.now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	top := topic(t, q, "orders")
	forgetting(t, q, "orders")
	later(t, top, "a", time.Hour)
	later(t, top, "b", time.Hour)
	s, err := q.js.Stream(t.Context(), "orders"+laterStreamEnd)
	if err != nil {
		t.Fatal(err)
	}
	killed := mover{q: q, by: "killed"}
	for seq := uint64(1); seq <= 2; seq++ {
		waits, err := s.GetMsg(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		if taken, err := killed.take(t.Context(), s, waits); taken == 0 || err != nil {
			t.Fatal(taken, err)
		}
		if seq == 1 { // the second one was not handed over
			if _, err := q.store(t.Context(), dueMessage(waits), false); err != nil {
				t.Fatal(err)
			}
		}
	}
	awaitForgotten(t, top)
	ahead.Store(int64(idWindow))
	laterLeft(t, q, "orders", 0)
	counts := map[string]int{}
	for _, m := range stored(t, q, "orders") {
		counts[m.Header.Get(headerEventID)]++
	}
	if counts["a"] != 1 || counts["b"] != 1 {
		t.Errorf("the topic has %v", counts)
	}
}

// TestDelayFull: delayed messages are refused when there are too many bytes of them; those that are there can be cancelled, and go when they are due,
// into a topic that is full when it has room again.
func TestDelayFull(t *testing.T) {
	q := open(t, t.TempDir())
	top := topic(t, q, "small", Keep(defaultMaxAge, 20_000))
	body := wrapperspb.String(strings.Repeat("x", 1000))
	n := 0
	var err error
	for ; err == nil && n < 100; n++ {
		_, err = top.Publish(t.Context(), body, ID(strconv.Itoa(n)), At(time.Now().Add(1500*time.Millisecond)))
	}
	n--
	if !errors.Is(err, ErrFull) || n < 10 {
		t.Fatalf("after %d: %v", n, err)
	}
	if done, err := top.Cancel(t.Context(), "0"); !done || err != nil {
		t.Errorf("cancelling one of those that are there: %v, %v", done, err)
	}
	if _, err := top.Publish(t.Context(), body, ID("0"), Delay(time.Second)); err != nil {
		t.Errorf("in its place: %v", err)
	}
	for err = nil; err == nil; {
		_, err = top.Publish(t.Context(), body, ID("filler "+strconv.Itoa(rand.Int())))
	}
	if !errors.Is(err, ErrFull) {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Second) // they are due, and have no room
	sub, got := arrivals(t, top, "billing")
	came := map[string]int{}
	for len(came) < n {
		m := next(t, got)
		if !strings.HasPrefix(m.ID, "filler ") {
			came[m.ID]++
		}
		forget(t, q, "small", m.Sequence) // they are more than it may have
	}
	drained(t, sub)
	for id, times := range came {
		if times != 1 {
			t.Errorf("message %s came %d times", id, times)
		}
	}
}

// forget deletes a topic's messages up to a sequence. What a group has not been handed must not be among them.
func forget(t testing.TB, q *Queue, topic string, upTo uint64) {
	t.Helper()
	s, err := q.js.Stream(t.Context(), streamName(topic))
	if err == nil {
		err = s.Purge(t.Context(), jetstream.WithPurgeSequence(upTo+1))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestDelayClock: a clock that jumps makes messages come early or late, by the clock's own time, and loses none.
func TestDelayClock(t *testing.T) {
	q := open(t, t.TempDir())
	var ahead atomic.Int64
	var asked atomic.Int64
	q.now = func() time.Time {
		asked.Add(1)
		return time.Now().Add(time.Duration(ahead.Load()))
	}
	top := topic(t, q, "orders")
	sub, got := arrivals(t, top, "billing")
	later(t, top, "in an hour", time.Hour)
	later(t, top, "soon", 300*time.Millisecond)
	ahead.Store(int64(-time.Hour)) // back
	time.Sleep(500 * time.Millisecond)
	if len(got) != 0 {
		t.Errorf("%s came before its time", next(t, got).ID)
	}
	before := asked.Load()
	time.Sleep(500 * time.Millisecond)
	if n := asked.Load() - before; n > 50 {
		t.Errorf("the clock was asked %d times for nothing", n)
	}
	ahead.Store(int64(2 * time.Hour))
	for range 2 {
		next(t, got)
	}
	drained(t, sub)
	laterLeft(t, q, "orders", 0)
}

// TestAgenda compares with a list.
func TestAgenda(t *testing.T) {
	a, model := newAgenda(), map[uint64]int64{}
	now, seq := int64(0), uint64(0)
	for range 200_000 {
		switch rand.IntN(4) {
		case 0, 1:
			seq++
			model[seq] = now + rand.Int64N(5000)
			a.add(appointment{model[seq], seq})
		case 2:
			for s := range model { // any
				delete(model, s)
				a.drop(s)
				break
			}
		case 3:
			now += rand.Int64N(3)
			got, at, ok := a.take(now)
			if !ok {
				if at != 0 && at <= now {
					t.Fatalf("%d is past %d", at, now)
				}
				continue
			}
			due, there := model[got]
			if !there || due > now {
				t.Fatalf("at %d: %d, due at %d, %v", now, got, due, there)
			}
			delete(model, got)
		}
		if n := a.len(); n > 2*len(model)+2*fewGone {
			t.Fatalf("%d for %d", n, len(model))
		}
	}
	var last int64
	for {
		got, _, ok := a.take(1 << 60)
		if !ok {
			break
		}
		if due, there := model[got]; !there || due < last {
			t.Fatal(fmt.Sprint(got, due, there, last))
		} else {
			last = due
		}
		delete(model, got)
	}
	if len(model) != 0 {
		t.Errorf("%d are lost", len(model))
	}
}
