package queue

import (
	"bufio"
	"context"
	"fmt"
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

// A publisher is a process that publishes to a queue until it is killed, from several goroutines, and says of each message when it
// has begun and when it has its receipt. Its test asks afterwards what is there.
const publishers = 16

// publisher is the process. It publishes to a topic of each level, whose IDs go on from the number in the environment.
func publisher(dir string) {
	if err := publishForever(dir); err != nil {
		fmt.Println("fault", err)
		os.Exit(1)
	}
}

func publishForever(dir string) error {
	q, err := Open(context.Background(), Config{Dir: dir, Logger: quiet()})
	if err != nil {
		return err
	}
	first, err := strconv.Atoi(os.Getenv("QUEUE_TEST_FIRST"))
	if err != nil {
		return err
	}
	var topics []*Topic[text]
	for _, d := range []Durability{Synced, Bounded, Buffered} {
		top, err := NewTopic[text](q, d.String(), Durable(d))
		if err != nil {
			return err
		}
		topics = append(topics, top)
	}
	var mu sync.Mutex
	next := first
	say := func(word string, top *Topic[text], id int) { // one write, so that none is torn
		_, _ = os.Stdout.WriteString(word + " " + top.name + " " + strconv.Itoa(id) + "\n")
	}
	errs := make(chan error)
	for i := range publishers {
		go func() {
			top := topics[i%len(topics)]
			for {
				mu.Lock()
				id := next
				next++
				mu.Unlock()
				say("begun", top, id)
				if _, err := top.Publish(context.Background(), wrapperspb.String(strings.Repeat("x", id%3000)), ID(strconv.Itoa(id))); err != nil {
					errs <- err
					return
				}
				say("kept", top, id)
			}
		}()
	}
	return <-errs
}

// run is what a publisher process said.
type run struct {
	kept map[string][]int // by topic
	safe int              // how many that are Bounded were, before one began that is Synced and was kept
	last int
}

// child starts this program as one of its children, which main_test.go knows, and returns what it says.
func child(t *testing.T, env ...string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewScanner(out)
}

// publishUntil runs a publisher from a first ID, and ends it.
func publishUntil(t *testing.T, dir string, first int, d time.Duration, end func(*exec.Cmd)) run {
	t.Helper()
	cmd, lines := child(t, "QUEUE_TEST_PUBLISHER="+dir, "QUEUE_TEST_FIRST="+strconv.Itoa(first))
	r := run{kept: map[string][]int{}, last: first}
	before := map[int]int{} // when a message began
	begun := false
	var ended atomic.Bool
	over := make(chan struct{})
	for lines.Scan() {
		var word, name string
		var id int
		if strings.HasPrefix(lines.Text(), "fault ") && ended.Load() {
			continue // the disk is gone
		}
		if n, err := fmt.Sscan(lines.Text(), &word, &name, &id); n != 3 {
			t.Errorf("the publisher says %q: %v", lines.Text(), err)
			continue
		}
		if word == "begun" {
			before[id] = len(r.kept[Bounded.String()])
			continue
		}
		if r.kept[name] = append(r.kept[name], id); name == Synced.String() {
			r.safe = max(r.safe, before[id])
		}
		r.last = max(r.last, id)
		if !begun {
			begun = true
			time.AfterFunc(d, func() {
				defer close(over)
				ended.Store(true)
				end(cmd)
			})
		}
	}
	_ = cmd.Wait() // it was killed
	if !begun {
		t.Fatal("the publisher did nothing")
	}
	<-over
	return r
}

// absent counts messages that had receipts and are not there.
func absent(t *testing.T, dir string, kept map[string][]int) map[string]int {
	t.Helper()
	q := open(t, dir)
	defer shut(t, q)
	n := map[string]int{}
	for name, ids := range kept {
		there := map[string]bool{}
		for seq, m := range stored(t, q, name) {
			id := m.Header.Get(headerID)
			if there[id] {
				t.Errorf("%s: message %s is there twice, at %d too", name, id, seq)
			}
			there[id] = true
		}
		for _, id := range ids {
			if !there[strconv.Itoa(id)] {
				n[name]++
			}
		}
	}
	return n
}

// TestKilled kills publishers: what had a receipt is there, at every level.
func TestKilled(t *testing.T) {
	t.Parallel()
	kills := 5
	if testing.Short() {
		kills = 2
	}
	if n, err := strconv.Atoi(os.Getenv("QUEUE_KILLS")); err == nil {
		kills = n
	}
	dir := t.TempDir()
	all := map[string][]int{}
	next, total := 0, 0
	for range kills {
		r := publishUntil(t, dir, next, 300*time.Millisecond, func(c *exec.Cmd) { _ = c.Process.Kill() })
		for name, ids := range r.kept {
			all[name] = append(all[name], ids...)
			total += len(ids)
		}
		next = r.last + 1000
		if n := absent(t, dir, all); len(n) > 0 {
			t.Fatalf("of %d messages with receipts are absent: %v", total, n)
		}
	}
	t.Logf("%d kills, %d receipts, none absent", kills, total)
}
