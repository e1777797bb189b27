package agent

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stile-ipc/stile/telemetry"
)

// TestQueues: a window has each queue once, as whoever was asked says, with what senders of all met; no more than a hub takes, and asked no longer than it may.
func TestQueues(t *testing.T) {
	r := telemetry.NewRecorder()
	made := time.Unix(5, 7)
	remove := r.AddQueues(func(context.Context) []telemetry.Queue {
		return []telemetry.Queue{{Topic: "b", Created: made, Blocked: 3, Refused: 1}, {Topic: "a", Created: made, Asked: true, Last: math.MaxUint64, Groups: []telemetry.QueueGroup{{Name: "g", Lag: 7, Oldest: -1}}}}
	})
	r.AddQueues(func(context.Context) []telemetry.Queue {
		return []telemetry.Queue{{Topic: "b", Created: made, Asked: true, Messages: 9, Blocked: 4}, {Topic: "b", Created: made.Add(1)}}
	})
	all := queues(t.Context(), r)
	if len(all) != 3 || all[0].Topic != "a" || all[0].Last != math.MaxInt64 || all[0].Groups[0].Lag != 7 || all[0].Groups[0].OldestNs != 0 {
		t.Fatalf("%v", all)
	}
	if b := all[1]; !b.Asked || b.Messages != 9 || b.BlockedNs != 7 || b.Refused != 1 || b.CreatedUnixNano != made.UnixNano() {
		t.Errorf("%v", b)
	}
	remove()
	if all := queues(t.Context(), r); len(all) != 2 {
		t.Errorf("%v", all)
	}
	r = telemetry.NewRecorder()
	r.AddQueues(func(context.Context) (many []telemetry.Queue) {
		for i := range 2 * maxQueues {
			many = append(many, telemetry.Queue{Topic: fmt.Sprint(i), Groups: make([]telemetry.QueueGroup, 5)})
		}
		return many
	})
	groups := 0
	all = queues(t.Context(), r)
	for _, q := range all {
		groups += len(q.Groups)
	}
	if len(all) != maxQueues || groups != maxQueueGroups {
		t.Errorf("%d queues, %d groups", len(all), groups)
	}
}

// startLate starts an agent whose queues' server does not answer.
func startLate() (*fakeHub, *telemetry.Recorder, *Agent) {
	h := &fakeHub{name: 1}
	r := telemetry.NewRecorder()
	r.Enable()
	r.AddQueues(func(ctx context.Context) []telemetry.Queue { <-ctx.Done(); return []telemetry.Queue{{Topic: "late"}} })
	return h, r, Start(Config{Hub: h, Recorder: r, Process: Self(telemetry.Identity{1}), Listens: func() []string { return nil }, Logger: slog.New(slog.DiscardHandler)})
}

// TestQueuesLate: a server that does not answer holds up no report for long.
func TestQueuesLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _, a := startLate()
		time.Sleep(2*Window + queuesWithin + time.Second)
		synctest.Wait()
		h.mu.Lock()
		if len(h.got) != 2 || h.got[0].Queues[0].Topic != "late" {
			t.Errorf("%d windows", len(h.got))
		}
		h.mu.Unlock()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		a.Close(ctx)
	})
}

// TestQueuesLateAtEnd: nor does it cost the hub what was counted last before the process ends.
func TestQueuesLateAtEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, r, a := startLate()
		synctest.Wait()
		r.Link(telemetry.Client, "shm", telemetry.Peer{}).Route(telemetry.RouteName{Method: "/s/M"}).Record(0, &telemetry.Call{Duration: 1})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		a.Close(ctx)
		if h.calls() != 1 || len(h.got) != 1 || len(h.got[0].Queues) != 1 || ctx.Err() != nil {
			t.Errorf("%d calls in %d windows, %v", h.calls(), len(h.got), ctx.Err())
		}
	})
}
