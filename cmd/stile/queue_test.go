package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/stile-ipc/stile/queue"
)

// makeQueue makes a queue in a folder, with messages a, b and c in the topic orders.placed. A group mailer handles them until the script ends; b
// is bad, until it is redriven. With -shut the queue is shut when they are handled.
func makeQueue(ts *testscript.TestScript, neg bool, args []string) {
	shut := len(args) == 2 && args[0] == "-shut"
	if neg || !shut && len(args) != 1 {
		ts.Fatalf("usage: makequeue [-shut] dir")
	}
	ctx := context.Background()
	q, err := queue.Open(ctx, queue.Config{Dir: ts.MkAbs(args[len(args)-1]), Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	ts.Check(err)
	top, err := queue.NewTopic[*wrapperspb.StringValue](q, "orders.placed", queue.KeyBy(func(m *wrapperspb.StringValue) string { return m.GetValue() }))
	ts.Check(err)
	for _, v := range []string{"a", "b", "c"} {
		_, err := top.Publish(ctx, wrapperspb.String(v), queue.ID("order-"+v))
		ts.Check(err)
	}
	sub, err := top.Subscribe(ctx, "mailer", func(_ context.Context, m *queue.Msg[*wrapperspb.StringValue]) error {
		if m.Value.GetValue() == "b" && m.Header.Get("Stile-Group") == "" {
			return queue.Reject(errors.New("no such address"), "bad address")
		}
		return nil
	})
	ts.Check(err)
	end := func() { ts.Check(errors.Join(sub.Drain(ctx), q.Close())) }
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		st, err := sub.Stats(ctx)
		ts.Check(err)
		if st.Dead == 1 && st.Lag == 0 && st.InFlight == 0 {
			break
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%+v", st)
		}
	}
	if shut {
		end()
		return
	}
	ts.Defer(end)
}

// answering says yes, after something has happened.
type answering struct{ before func() }

func (a *answering) Read(p []byte) (int, error) {
	a.before()
	return copy(p, "yes\n"), nil
}

// TestDiscardAsked: who is asked is told how many dead letters there are, and what dies until the answer stays.
func TestDiscardAsked(t *testing.T) {
	ctx := t.Context()
	q, err := queue.Open(ctx, queue.Config{Dir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	top, err := queue.NewTopic[*wrapperspb.StringValue](q, "orders.placed")
	if err != nil {
		t.Fatal(err)
	}
	sub, err := top.Subscribe(ctx, "mailer", func(_ context.Context, m *queue.Msg[*wrapperspb.StringValue]) error {
		return queue.Reject(errors.New("no such address"), m.Value.GetValue())
	})
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Stop()
	dead := top.DeadLetters("mailer")
	die := func(want uint64, reasons ...string) {
		t.Helper()
		for _, reason := range reasons {
			if _, err := top.Publish(ctx, wrapperspb.String(reason)); err != nil {
				t.Fatal(err)
			}
		}
		for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
			n, _, err := dead.Count(ctx)
			if err == nil && n == want {
				return
			}
			if err != nil || time.Now().After(end) {
				t.Fatalf("%d dead letters, want %d: %v", n, want, err)
			}
		}
	}
	die(3, "full", "moved", "full")
	f := queueFlags{reason: "full", upTo: math.MaxUint64}
	var said strings.Builder
	keep, err := f.agreed(ctx, dead, &answering{func() { die(4, "full") }}, &said, []string{"orders.placed", "mailer"})
	if err != nil || said.String() != "Dead letters of topic orders.placed, group mailer: take 2 away for ever? [y/N] " {
		t.Fatalf("%q, %v", &said, err)
	}
	if n, err := dead.Discard(ctx, keep); n != 2 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	left, err := dead.List(ctx, 10, nil)
	if err != nil || len(left) != 2 || left[0].Reason != "moved" || left[1].Reason != "full" {
		t.Fatalf("%+v, %v", left, err)
	}
	f.reason = "other"
	keep, err = f.agreed(ctx, dead, &answering{func() { t.Error("it is asked whether nothing may go") }}, io.Discard, []string{"orders.placed", "mailer"})
	if err != nil || keep(&left[1]) {
		t.Errorf("%v", err)
	}
	f.reason = ""
	if _, err = f.agreed(ctx, dead, strings.NewReader("\n"), io.Discard, []string{"orders.placed", "mailer"}); err == nil {
		t.Error("no answer is a yes")
	}
}

func TestPlain(t *testing.T) {
	for in, want := range map[string]string{"Ünal 7": "Ünal 7", "a\x1b[31m": `"a\x1b[31m"`, "a\nb": `"a\nb"`} {
		if got := plain(in); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}
