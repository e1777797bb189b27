package queue

import (
	"context"
	"errors"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/stile-ipc/stile/telemetry"
)

// TestMessagesCounted: each message counts once where it is sent, and once for each time that a handler had it.
func TestMessagesCounted(t *testing.T) {
	telemetry.Process().Enable()
	defer telemetry.Process().Disable()
	q := open(t, t.TempDir())
	top := topic(t, q, "counted", KeyBy(keyOf))
	telemetry.Process().Take()
	publish(t, top, "a", "b")
	if _, err := top.PublishAll(t.Context(), []text{wrapperspb.String("ccc"), wrapperspb.String("ddd")}); err != nil {
		t.Fatal(err)
	}
	for name, subscribe := range map[string]func() *Subscription{
		"one": func() *Subscription {
			return subscribe(t, top, "one", func(_ context.Context, m *Msg[text]) error {
				if m.Value.GetValue() == "a" && m.Attempt == 1 {
					return errors.New("not yet")
				}
				return nil
			}, Retry(2, 0, 0))
		},
		"ordered": func() *Subscription {
			return subscribe(t, top, "ordered", func(context.Context, *Msg[text]) error { return nil }, Ordered())
		},
		"batches": func() *Subscription {
			sub, err := top.SubscribeBatch(t.Context(), "batches", func(context.Context, []*Msg[text]) error { return nil })
			if err != nil {
				t.Fatal(err)
			}
			return sub
		},
	} {
		sub := subscribe()
		idle(t, sub)
		drained(t, sub)
		for _, got := range telemetry.Process().Take() {
			if got.Peer.Topic != "counted" {
				continue
			}
			what, _, _ := strings.Cut(got.Method, " ")
			ok, failed, waited := uint64(4), uint64(0), uint64(4)
			switch {
			case what == "send":
				waited = 0
			case name == "one":
				failed, waited = 1, 5
			}
			if got.Codes[0] != ok || got.Codes[2] != failed || got.Gap.Count() != waited || got.Request.Sum() < 8 || got.Transport != "broker" {
				t.Errorf("%s, %s: %v, %d waited, %v bytes", name, got.Method, got.Codes, got.Gap.Count(), got.Request.Sum())
			}
		}
	}
}
