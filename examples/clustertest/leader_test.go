package clustertest

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/stile-ipc/stile/queue"
)

// receipts are what publishers got.
type receipts struct {
	mu      sync.Mutex
	kept    map[int]bool
	last    time.Time
	longest time.Duration // between two, since reset
	since   int           // how many
}

func (r *receipts) got(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if r.kept == nil {
		r.kept = map[int]bool{}
	} else {
		r.longest = max(r.longest, now.Sub(r.last))
	}
	r.kept[n], r.last = true, now
	r.since++
}

func (r *receipts) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.longest, r.since = 0, 0
}

// publishers publish numbers, each with its ID, until stop is called, which returns how many there were.
func publishers(t *testing.T, top *queue.Topic[text], r *receipts, pause time.Duration) (stop func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	next := 0
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for ctx.Err() == nil {
				mu.Lock()
				n := next
				next++
				mu.Unlock()
				within, end := context.WithTimeout(context.Background(), 2*time.Minute)
				if _, err := top.Publish(within, wrapperspb.String(strconv.Itoa(n)), queue.ID(strconv.Itoa(n))); err != nil {
					t.Error(err)
				} else {
					r.got(n)
				}
				end()
				time.Sleep(pause)
			}
		})
	}
	return sync.OnceValue(func() int { cancel(); all.Wait(); return next })
}

// TestLeaderKilled kills the server that leads the topic's stream, and starts it again, while messages are published and handled: what has
// a receipt has its effect, once.
func TestLeaderKilled(t *testing.T) {
	kills := count("QUEUE_KILLS", 5, 1)
	c := newCluster(t)
	db, inbox := database(t, filepath.Join(t.TempDir(), "effects.db"))
	top, err := queue.NewTopic[text](c.open(t), "orders")
	if err != nil {
		t.Fatal(err)
	}
	sub, err := top.Subscribe(t.Context(), "billing", effect("billing"), queue.Once(inbox))
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Stop()
	var r receipts
	stop := publishers(t, top, &r, 10*time.Millisecond)
	defer stop()
	more := func(n int) {
		r.reset()
		eventually(t, "receipts", func() error {
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.since < n {
				return fmt.Errorf("%d of %d", r.since, n)
			}
			return nil
		})
	}
	for kill := range kills {
		more(100)
		leader := c.leader(t, "orders")
		before := howMany(t, db)
		c.processes[leader].kill()
		more(200)
		r.mu.Lock()
		t.Logf("kill %d: %.1f s between two receipts", kill+1, r.longest.Seconds())
		r.mu.Unlock()
		eventually(t, "effects without that server", func() error {
			if n := howMany(t, db); n <= before+100 {
				return fmt.Errorf("%d, there were %d", n, before)
			}
			return nil
		})
		c.start(t, leader)
	}
	n := stop()
	times := map[string]int{}
	eventually(t, "all effects", func() error {
		if done := howMany(t, db); done < n {
			return fmt.Errorf("%d of %d", done, n)
		}
		return nil
	})
	if err := sub.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	for _, what := range effects(t, db) {
		if times[what]++; times[what] > 1 {
			t.Errorf("message %s had its effect %d times", what, times[what])
		}
	}
	for id := range r.kept {
		if times[strconv.Itoa(id)] == 0 {
			t.Errorf("message %d has a receipt and no effect", id)
		}
	}
	t.Logf("%d kills, %d messages, %d receipts", kills, n, len(r.kept))
}
