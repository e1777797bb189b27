package queue

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"
)

// TestLongWait: a message that waits long for its next attempt is none of those under way, goes to its group alone, and keeps its number of attempts.
func TestLongWait(t *testing.T) {
	q := open(t, t.TempDir())
	var ahead atomic.Int64
	q.now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	top := topic(t, q, "orders")
	attempts := make(chan string, 100)
	sub := subscribe(t, top, "billing", func(_ context.Context, m *Msg[text]) error {
		attempts <- fmt.Sprint(m.ID, " ", m.Attempt, " ", m.Published.After(time.Now().Add(-time.Minute)))
		return After(time.Hour, errors.New("closed"))
	}, Retry(3, time.Second, time.Hour))
	other, got := arrivals(t, top, "export")
	r, err := top.Publish(t.Context(), wrapperspb.String("a"), ID("a"))
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	for n := 1; n <= 3; n++ {
		if a, want := next(t, attempts), fmt.Sprint("a ", n, " true"); a != want {
			t.Errorf("%s, want %s", a, want)
		}
		st := idle(t, sub)
		if n < 3 && (st.Dead != 0 || st.Waiting != 1 || st.Left() != 1) || len(attempts) != 0 {
			t.Errorf("%+v after attempt %d", st, n)
		}
		ahead.Add(int64(61 * time.Minute))
	}
	var letters []DeadLetter
	for begin := time.Now(); len(letters) == 0 && time.Since(begin) < 20*time.Second; {
		if letters, err = top.DeadLetters("billing").List(t.Context(), 10, nil); err != nil {
			t.Fatal(err)
		}
	}
	if len(letters) != 1 || letters[0].ID != "a" || letters[0].Attempts != 3 || letters[0].Reason != "attempts" || letters[0].Origin != r.Sequence || letters[0].Published.After(begin.Add(time.Second)) {
		t.Errorf("%+v", letters)
	}
	if n, err := top.DeadLetters("billing").Redrive(t.Context(), nil); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if a := next(t, attempts); a != "a 1 true" {
		t.Errorf("sent again: %s", a)
	}
	drained(t, sub)
	idle(t, other)
	drained(t, other)
	if m := next(t, got); m.ID != "a" || m.Sequence != r.Sequence || len(got) != 0 {
		t.Errorf("the other group has %+v, and %d more", m, len(got))
	}
}

// TestLongWaitTwice: a message that is delivered again because the server was not told that it was delayed is delayed once.
func TestLongWaitTwice(t *testing.T) {
	q := open(t, t.TempDir())
	top := topic(t, q, "orders")
	sub := subscribe(t, top, "billing", func(context.Context, *Msg[text]) error { return nil })
	r, err := top.Publish(t.Context(), wrapperspb.String("a"))
	if err != nil {
		t.Fatal(err)
	}
	idle(t, sub)
	s, err := q.js.Stream(t.Context(), top.stream.name)
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.GetMsg(t.Context(), r.Sequence)
	if err != nil {
		t.Fatal(err)
	}
	for times := 1; times <= 2; times++ {
		d := delivery{Subject: []byte(m.Subject), Header: Header{parsed: m.Header}, Data: m.Data, seq: m.Sequence, times: times, stored: m.Time}
		if err := sub.delay(d, outcome{wait: time.Hour, tries: times}); err != nil {
			t.Fatal(err)
		}
	}
	laterLeft(t, q, "orders", 1)
	drained(t, sub)
}
