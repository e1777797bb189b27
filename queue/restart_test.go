package queue

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// TestServersRestart: each server goes and comes back; messages are published and handled on, each once.
func TestServersRestart(t *testing.T) {
	c := newCluster(t, 3)
	q := c.open(t, 3)
	top := topic(t, q, "orders")
	var mu sync.Mutex
	got := map[string]int{}
	sub := subscribe(t, top, "billing", func(_ context.Context, m *Msg[text]) error {
		mu.Lock()
		defer mu.Unlock()
		got[m.Value.GetValue()]++
		return nil
	}, Once(&memory{}))
	ctx, stop := context.WithCancel(t.Context())
	published := make(chan int, 1)
	go func() {
		n := 0
		for ; ctx.Err() == nil; n++ {
			within, cancel := context.WithTimeout(context.Background(), time.Minute)
			if _, err := top.Publish(within, wrapperspb.String(fmt.Sprint(n)), ID(fmt.Sprint(n))); err != nil {
				t.Error(err)
			}
			cancel()
		}
		published <- n
	}()
	handled := func() int { mu.Lock(); defer mu.Unlock(); return len(got) }
	restarts := len(c.servers)
	if testing.Short() {
		restarts = 1
	}
	for i := range restarts {
		c.stop(i)
		n := handled()
		eventually(t, "messages without a server", func() bool { return handled() > n+10 })
		c.start(t, i)
		n = handled()
		eventually(t, "messages with it", func() bool { return handled() > n+10 })
		eventually(t, "copies of all", func() bool { return c.current() })
	}
	stop()
	n := next(t, published)
	eventually(t, "all messages", func() bool { return handled() == n })
	drained(t, sub)
	for v, times := range got {
		if times != 1 {
			t.Errorf("message %s had its effect %d times", v, times)
		}
	}
}

// TestPublishAllRestart: what is published together is stored, once, although the server that leads goes and comes back.
func TestPublishAllRestart(t *testing.T) {
	t.Parallel()
	const together = 50
	c := newCluster(t, 3)
	q := c.open(t, 3)
	top := topic(t, q, "orders")
	ctx, stop := context.WithCancel(t.Context())
	var mu sync.Mutex
	kept := map[string]Receipt{}
	var all sync.WaitGroup
	defer all.Wait()
	defer stop()
	for p := range 4 {
		all.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				ms := make([]text, together)
				for j := range ms {
					ms[j] = wrapperspb.String("x")
				}
				within, cancel := context.WithTimeout(context.Background(), time.Minute)
				rs, err := top.PublishAll(within, ms, ID(fmt.Sprintf("p%d-%d", p, i)))
				cancel()
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				for _, r := range rs {
					kept[r.ID] = r
				}
				mu.Unlock()
			}
		})
	}
	have := func() int { mu.Lock(); defer mu.Unlock(); return len(kept) }
	for range 3 {
		n := have()
		eventually(t, "receipts", func() bool { return have() > n+10*together })
		leader := 0
		eventually(t, "a leader", func() bool {
			for leader = range c.servers {
				if c.servers[leader].JetStreamIsStreamLeader("$G", "orders") {
					return true
				}
			}
			return false
		})
		c.stop(leader)
		n = have()
		eventually(t, "receipts without it", func() bool { return have() > n+10*together })
		c.start(t, leader)
		eventually(t, "copies of all", func() bool { return c.current() })
	}
	stop()
	all.Wait()
	times, at := map[string]int{}, map[uint64]string{}
	for seq, m := range stored(t, q, "orders") {
		id := m.Header.Get(headerID)
		at[seq] = id
		if times[id]++; times[id] > 1 {
			t.Errorf("%s is there %d times", id, times[id])
		}
	}
	for id, r := range kept {
		if times[id] == 0 {
			t.Errorf("%s has a receipt and is not there: %+v; there is %s", id, r, at[r.Sequence])
		}
	}
	t.Logf("%d receipts", len(kept))
}

// current tells whether all servers have what the others have.
func (c *cluster) current() bool {
	for _, s := range c.servers {
		if !s.JetStreamIsCurrent() || s.Healthz(&server.HealthzOptions{}).StatusCode != 200 {
			return false
		}
	}
	return true
}
