package queue

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"
)

// awaitDead waits until a group has so many dead letters, and returns the last sequence.
func awaitDead(t *testing.T, d *DeadLetters, want uint64) (last uint64) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		n, last, err := d.Count(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if n == want {
			return last
		}
		if time.Now().After(end) {
			t.Fatalf("%d dead letters, want %d", n, want)
		}
	}
}

// TestCountDead: dead letters are counted by group, and what dies later is beyond the last that was counted.
func TestCountDead(t *testing.T) {
	q := open(t, t.TempDir())
	top := topic(t, q, "orders")
	d := top.DeadLetters("billing")
	if n, last, err := d.Count(t.Context()); n != 0 || last != 0 || err != nil {
		t.Errorf("before anybody has subscribed: %d, %d, %v", n, last, err)
	}
	if _, _, err := top.DeadLetters("*").Count(t.Context()); err == nil {
		t.Error("of all groups at once")
	}
	refuse := func(context.Context, *Msg[text]) error { return Reject(errors.New("no"), "bad") }
	for _, group := range []string{"billing", "export"} {
		subscribe(t, top, group, refuse)
	}
	publish(t, top, "a", "b")
	awaitDead(t, top.DeadLetters("export"), 2)
	seen := awaitDead(t, d, 2)
	publish(t, top, "c")
	last := awaitDead(t, d, 3)
	letters, err := d.List(t.Context(), 10, nil)
	if err != nil || len(letters) != 3 || letters[1].Sequence > seen || letters[2].Sequence <= seen || letters[2].Sequence > last {
		t.Errorf("%+v, %v: counted up to %d, then to %d", letters, err, seen, last)
	}
	if n, err := d.Discard(t.Context(), func(l *DeadLetter) bool { return l.Sequence <= seen }); n != 2 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if after := awaitDead(t, d, 1); after < last {
		t.Errorf("the last sequence has gone from %d to %d", last, after)
	}
	awaitDead(t, top.DeadLetters("export"), 3)
}

// TestDiscardFailed: what could not be taken away is not said to be.
func TestDiscardFailed(t *testing.T) {
	q := open(t, t.TempDir())
	top := topic(t, q, "orders")
	subscribe(t, top, "billing", func(context.Context, *Msg[text]) error { return Reject(errors.New("no"), "bad") })
	publish(t, top, "a", "b")
	d := top.DeadLetters("billing")
	awaitDead(t, d, 2)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var met []uint64
	n, err := d.Discard(ctx, func(l *DeadLetter) bool {
		if met = append(met, l.Sequence); len(met) == 2 {
			cancel()
		}
		return true
	})
	left, listed := d.List(t.Context(), 10, nil)
	if n != 1 || !errors.Is(err, context.Canceled) || listed != nil || len(left) != 1 || !slices.Contains(met, left[0].Sequence) {
		t.Errorf("%d, %v; left: %+v, %v", n, err, left, listed)
	}
}
