package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
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

func TestPlain(t *testing.T) {
	for in, want := range map[string]string{"Ünal 7": "Ünal 7", "a\x1b[31m": `"a\x1b[31m"`, "a\nb": `"a\nb"`} {
		if got := plain(in); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}
