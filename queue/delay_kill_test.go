package queue

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"
)

// delayer is a process that delays messages until it is killed, takes some of them back, and says of each what it has a word for. What is due meanwhile
// it hands over.
func delayer(dir string) {
	if err := delayForever(dir); err != nil {
		fmt.Println("fault", err)
		os.Exit(1)
	}
}

func delayForever(dir string) error {
	q, err := Open(context.Background(), Config{Dir: dir, Logger: quiet()})
	if err != nil {
		return err
	}
	first, err := strconv.Atoi(os.Getenv("QUEUE_TEST_FIRST"))
	if err != nil {
		return err
	}
	top, err := NewTopic[text](q, "orders")
	if err != nil {
		return err
	}
	var next atomic.Int64
	next.Store(int64(first))
	say := func(word, id string) { _, _ = os.Stdout.WriteString(word + " " + id + "\n") }
	errs := make(chan error)
	for range 8 {
		go func() {
			for {
				id := strconv.FormatInt(next.Add(1), 10)
				body := wrapperspb.String(strings.Repeat("x", rand.IntN(2000)))
				if _, err := top.Publish(context.Background(), body, ID(id), Delay(50*time.Millisecond+rand.N(2*time.Second))); err != nil {
					errs <- err
					return
				}
				say("kept", id)
				if rand.IntN(4) > 0 {
					continue
				}
				say("cancels", id)
				done, err := top.Cancel(context.Background(), id)
				if err != nil {
					errs <- err
					return
				}
				if done {
					say("cancelled", id)
				} else {
					say("kept", id)
				}
			}
		}()
	}
	return <-errs
}

// delayRuns lets processes delay messages and end, some times over, and then checks what has come of what they said. Between two of them, between is called.
func delayRuns(t *testing.T, dir string, times int, end func(*exec.Cmd), between func()) {
	t.Helper()
	word := map[string]string{}
	last := 0
	for range times {
		cmd, lines := child(t, "QUEUE_TEST_DELAYER="+dir, "QUEUE_TEST_FIRST="+strconv.Itoa(last))
		var once sync.Once
		var ended atomic.Bool
		for lines.Scan() {
			said, id, _ := strings.Cut(lines.Text(), " ")
			if said == "fault" {
				if !ended.Load() {
					t.Errorf("the process says %q", lines.Text())
				}
				continue // the disk is gone
			}
			word[id] = said
			n, err := strconv.Atoi(id)
			if err != nil {
				t.Fatal(err)
			}
			last = max(last, n)
			once.Do(func() {
				time.AfterFunc(1200*time.Millisecond, func() {
					ended.Store(true)
					end(cmd)
				})
			})
		}
		_ = cmd.Wait() // it was killed
		if !ended.Load() {
			t.Fatal("the process ended by itself")
		}
		last += 1000
		between()
	}
	q := open(t, dir)
	defer shut(t, q)
	topic(t, q, "orders")
	laterLeft(t, q, "orders", 0)
	came := map[string]int{}
	for _, m := range stored(t, q, "orders") {
		came[m.Header.Get(headerID)]++
	}
	counts := map[string]int{}
	for id, said := range word {
		counts[said]++
		n := came[id]
		if said == "kept" && n != 1 || said == "cancelled" && n != 0 || n > 1 {
			t.Errorf("%s: message %s is there %d times", said, id, n)
		}
	}
	t.Logf("%d ends: %v", times, counts)
}

// TestDelaysKilled kills processes that delay messages: all with a receipt come, once, and none of those that were cancelled.
func TestDelaysKilled(t *testing.T) {
	t.Parallel()
	kills := 4
	if testing.Short() {
		kills = 2
	}
	if n, err := strconv.Atoi(os.Getenv("QUEUE_KILLS")); err == nil {
		kills = n
	}
	delayRuns(t, t.TempDir(), kills, func(c *exec.Cmd) { _ = c.Process.Kill() }, func() {})
}
