//go:build unix

package clustertest

import (
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/stile-ipc/stile/queue"
)

// TestOrderedKilled: members of a group that is ordered are killed, or stopped for longer than the servers wait for them, and the server that leads
// is killed too: messages of a key have their effects in order, once, and those of all others go on.
func TestOrderedKilled(t *testing.T) {
	const keys, members = 200, 3
	each := count("QUEUE_MESSAGES", 10_000, 1_000) / keys
	c := newCluster(t)
	path := filepath.Join(t.TempDir(), "effects.db")
	db, _ := database(t, path)
	top, err := queue.NewTopic[text](c.open(t), "orders", queue.KeyBy(keyOf))
	if err != nil {
		t.Fatal(err)
	}
	var group [members]*process
	born := 0
	join := func(i int) {
		born++
		group[i] = start(t, io.Discard, "CLUSTER_TEST_MEMBER="+asJSON(t, member{Name: fmt.Sprint("member", born), URL: c.url(), DB: path}))
	}
	for i := range members {
		join(i)
	}
	t.Cleanup(func() {
		for _, p := range group {
			p.kill()
		}
	})
	var all sync.WaitGroup
	defer all.Wait()
	for k := range keys / 10 {
		all.Go(func() {
			for n := range each {
				for j := range 10 {
					if _, err := top.Publish(t.Context(), wrapperspb.String(fmt.Sprintf("k%d %d", 10*k+j, n)), queue.ID(fmt.Sprintf("k%d-%d", 10*k+j, n))); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	leaders, deaths, pauses := 0, 0, 0
	for turn := 1; howMany(t, db) < keys*each; turn++ {
		before := howMany(t, db)
		i := rand.IntN(members)
		switch {
		case turn%8 == 3:
			leader := c.leader(t, "orders")
			c.processes[leader].kill()
			c.start(t, leader)
			leaders++
		case turn%8 == 7: // longer than servers wait for who has a message
			if err := group[i].cmd.Process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			time.Sleep(12 * time.Second)
			if err := group[i].cmd.Process.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			pauses++
		default:
			group[i].kill()
			time.Sleep(time.Duration(rand.IntN(500)) * time.Millisecond)
			join(i)
			deaths++
		}
		time.Sleep(time.Duration(rand.IntN(1000)) * time.Millisecond)
		eventually(t, "effects", func() error {
			if n := howMany(t, db); n < before+100 && n < keys*each {
				return fmt.Errorf("%d, there were %d of %d", n, before, keys*each)
			}
			return nil
		})
	}
	all.Wait()
	next := map[string]int{}
	for _, what := range effects(t, db) {
		key, _, _ := strings.Cut(what, " ")
		if want := fmt.Sprintf("%s %d", key, next[key]); what != want {
			t.Errorf("the effect %q, and it was %q's turn", what, want)
		}
		next[key]++
	}
	var who int
	if err := db.QueryRowContext(t.Context(), "SELECT count(DISTINCT who) FROM effects").Scan(&who); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d messages by %d processes; killed were %d of them and %d servers; stopped for 12 s were %d", keys*each, who, deaths, leaders, pauses)
}
