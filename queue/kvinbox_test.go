package queue

import (
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"
)

// TestKVInbox: what was done is not done again for a message of the ID, in this process or the next; what failed is.
func TestKVInbox(t *testing.T) {
	dir := t.TempDir()
	q := open(t, dir)
	inbox, err := NewKVInbox(t.Context(), q, "done", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewKVInbox(t.Context(), q, "done", 2*time.Hour); err == nil {
		t.Error("the bucket has another age")
	}
	if _, err := NewKVInbox(t.Context(), q, "short", time.Second); err == nil {
		t.Error("it forgets too soon")
	}
	effects := 0
	once := func(id string, result error) error {
		return inbox.Once(t.Context(), InboxKey{"t", "g", id}, func(context.Context) error { effects++; return result })
	}
	failure := errors.New("no")
	if err := once("a b.*>", failure); err != failure {
		t.Error(err)
	}
	for range 2 {
		if err := once("a b.*>", nil); err != nil {
			t.Error(err)
		}
	}
	if err := once("another", nil); err != nil {
		t.Error(err)
	}
	shut(t, q)
	q = open(t, dir)
	if inbox, err = NewKVInbox(t.Context(), q, "done", time.Hour); err != nil {
		t.Fatal(err)
	}
	if err := once("another", nil); err != nil || effects != 3 {
		t.Errorf("%d effects, want 3: %v", effects, err)
	}
	top := topic(t, q, "t")
	if _, err := top.Publish(t.Context(), wrapperspb.String("x"), ID("another")); err != nil {
		t.Fatal(err)
	}
	sub, err := top.Subscribe(t.Context(), "g", func(context.Context, *Msg[text]) error { effects++; return nil }, Once(inbox))
	if err != nil {
		t.Fatal(err)
	}
	until(t, func() bool { st, err := sub.Stats(t.Context()); return err == nil && st.Lag == 0 && st.InFlight == 0 })
	sub.Stop()
	if effects != 3 {
		t.Errorf("%d effects, want 3", effects)
	}
}
