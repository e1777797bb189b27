package queue

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// elsewhere opens a queue on a server elsewhere.
func elsewhere(t *testing.T, url string) *Queue {
	t.Helper()
	q, err := Open(t.Context(), Config{URL: url, NATS: []nats.Option{nats.UserInfo("shop", "right"), nats.ReconnectWait(50 * time.Millisecond)}, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, q) })
	return q
}

// TestOrderedElsewhere: several subscriptions of a group handle messages of a key in order, although attempts fail and the subscriptions end
// again and again.
func TestOrderedElsewhere(t *testing.T) {
	t.Parallel()
	const keys, each = 50, 30
	url := natsServer(t, t.TempDir(), server.RANDOM_PORT).ClientURL()
	var tops []*Topic[text]
	for range 3 {
		tops = append(tops, topic(t, elsewhere(t, url), "orders", KeyBy(keyOf)))
	}
	for i := range each {
		for k := range keys {
			publish(t, tops[0], fmt.Sprintf("k%d %d", k, i+1))
		}
	}
	var o inOrder
	var busy sync.Map
	handle := func(_ context.Context, m *Msg[text]) error {
		if _, loaded := busy.LoadOrStore(m.Key, true); loaded {
			t.Errorf("two messages of %s at once", m.Key)
		}
		defer busy.Delete(m.Key)
		if rand.IntN(5) == 0 {
			return errors.New("not this time")
		}
		if err := o.handled(m.Value.GetValue()); err != nil {
			t.Error(err)
		}
		return nil
	}
	retry := Retry(1000, time.Microsecond, 5*time.Millisecond)
	var members sync.WaitGroup
	for _, top := range tops[1:] {
		members.Go(func() {
			for range 3 {
				sub, err := top.Subscribe(t.Context(), "billing", handle, Ordered(), retry, Workers(4))
				if err != nil {
					t.Error(err)
					return
				}
				time.Sleep(time.Duration(rand.IntN(100)) * time.Millisecond)
				if rand.IntN(2) == 0 {
					drained(t, sub)
				} else {
					sub.Stop()
				}
			}
		})
	}
	sub := subscribe(t, tops[0], "billing", handle, Ordered(), retry)
	members.Wait()
	eventually(t, "the last message", func() bool {
		st, err := sub.Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return st.Lag == 0 && st.InFlight == 0
	})
	st, err := sub.Stats(t.Context())
	if err != nil || st.Dead != 0 || st.OldestAge != 0 || st.P99 == 0 {
		t.Errorf("%+v, %v", st, err)
	}
	drained(t, sub)
	if o.n != keys*each {
		t.Errorf("%d messages of %d", o.n, keys*each)
	}
	if _, err := tops[0].Subscribe(t.Context(), "billing", handle); err == nil || !strings.Contains(err.Error(), "subscribed with Ordered") {
		t.Errorf("one that is not ordered beside those that are: %v", err)
	}
	drained(t, subscribe(t, tops[0], "export", handle))
	if _, err := tops[0].Subscribe(t.Context(), "export", handle, Ordered()); err == nil || !strings.Contains(err.Error(), "subscribed without Ordered") {
		t.Errorf("one that is ordered beside another: %v", err)
	}
}

// TestOtherPartitions: messages of a partition wait for one that fails, and those of others do not; when it is dead they go on.
func TestOtherPartitions(t *testing.T) {
	q := elsewhere(t, natsServer(t, t.TempDir(), server.RANDOM_PORT).ClientURL())
	top := topic(t, q, "orders", KeyBy(keyOf))
	same, other := "", ""
	for i := 0; same == "" || other == ""; i++ {
		if key := fmt.Sprint("k", i); partitionOf(key) == partitionOf("stuck") {
			same = key
		} else {
			other = key
		}
	}
	publish(t, top, "stuck 1", same+" 1", other+" 1", "stuck 2")
	done := make(chan string, 10)
	mend := make(chan struct{})
	sub := subscribe(t, top, "billing", func(_ context.Context, m *Msg[text]) error {
		if m.Value.GetValue() == "stuck 1" {
			select {
			case <-mend:
				return Reject(errors.New("never"), "poison")
			default:
				return After(10*time.Millisecond, errors.New("still"))
			}
		}
		done <- m.Value.GetValue()
		return nil
	}, Ordered(), Retry(1<<20, 0, 0), Workers(1))
	if got := next(t, done); got != other+" 1" {
		t.Error(got)
	}
	if st, err := sub.Stats(t.Context()); err != nil || st.Lag != 2 || st.InFlight != 1 || st.OldestAge == 0 {
		t.Errorf("%+v, %v", st, err)
	}
	close(mend)
	for _, want := range []string{same + " 1", "stuck 2"} {
		if got := next(t, done); got != want {
			t.Errorf("%s, not %s", got, want)
		}
	}
	if dead, err := top.DeadLetters("billing").List(t.Context(), 10, nil); err != nil || len(dead) != 1 || dead[0].Reason != "poison" {
		t.Errorf("%+v, %v", dead, err)
	}
	drained(t, sub)
}
