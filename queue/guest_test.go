package queue

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/stile-ipc/stile/queue/embedded"
)

// visit opens the queue of a folder that this process or another one has open.
func visit(t testing.TB, dir string) *Queue {
	t.Helper()
	q, err := Open(context.Background(), Config{URL: "unix://" + dir, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, q) })
	return q
}

// TestGuest: a guest's topics, subscriptions and dead letters are the host's.
func TestGuest(t *testing.T) {
	dir := t.TempDir()
	host := open(t, dir)
	q := visit(t, dir)
	for path, want := range map[string]os.FileMode{"door": 0o700, "door/nats.sock": 0o600} {
		if info, err := os.Stat(dir + "/" + path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
	for _, d := range []Durability{Synced, Bounded, Buffered} {
		theirs := topic(t, host, d.String(), Durable(d))
		ours := topic(t, q, d.String(), Durable(d))
		if r, err := ours.Publish(t.Context(), wrapperspb.String("bad"), ID("1")); err != nil || r.Sequence != 1 {
			t.Fatal(r, err)
		}
		if r, err := ours.Publish(t.Context(), wrapperspb.String("bad"), ID("1")); err != nil || !r.Duplicate {
			t.Fatal(r, err)
		}
		if _, err := theirs.Publish(t.Context(), wrapperspb.String("good")); err != nil {
			t.Fatal(err)
		}
		var bad atomic.Bool
		bad.Store(true)
		came := make(chan string, 10)
		sub, err := ours.Subscribe(t.Context(), "g", func(_ context.Context, m *Msg[text]) error {
			came <- m.Value.GetValue()
			if m.Value.GetValue() == "bad" && bad.Load() {
				return Reject(errors.New("no"), "bad")
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if a, b := <-came, <-came; a == b {
			t.Errorf("%s twice", a)
		}
		until(t, func() bool { st, err := sub.Stats(t.Context()); return err == nil && st.Dead == 1 && st.InFlight == 0 })
		if all, err := theirs.DeadLetters("g").List(t.Context(), 10, nil); err != nil || len(all) != 1 || all[0].Reason != "bad" {
			t.Errorf("%v %v", all, err)
		}
		bad.Store(false)
		if n, err := ours.DeadLetters("g").Redrive(t.Context(), nil); n != 1 || err != nil {
			t.Errorf("%d %v", n, err)
		}
		if a := <-came; a != "bad" {
			t.Error(a)
		}
		sub.Stop()
	}
}

// TestGuestOrdered: an Ordered subscription is the group's only one, whatever process it is in.
func TestGuestOrdered(t *testing.T) {
	dir := t.TempDir()
	key := KeyBy(func(m text) string { return m.GetValue() })
	nothing := func(context.Context, *Msg[text]) error { return nil }
	theirs, ours := topic(t, open(t, dir), "t", key), topic(t, visit(t, dir), "t", key)
	if _, err := ours.Subscribe(t.Context(), "g", nothing, Ordered()); err == nil || !strings.Contains(err.Error(), "in the process that has it") {
		t.Errorf("a guest's order: %v", err)
	}
	sub, err := theirs.Subscribe(t.Context(), "g", nothing, Ordered())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ours.Subscribe(t.Context(), "g", nothing); !errors.Is(err, errNotAlone) {
		t.Errorf("beside the host's: %v", err)
	}
	sub.Stop()
	if sub, err = ours.Subscribe(t.Context(), "g", nothing); err != nil {
		t.Fatal(err)
	}
	until(t, func() bool { info, err := sub.cons.Info(t.Context()); return err == nil && info.NumWaiting > 0 })
	if _, err := theirs.Subscribe(t.Context(), "g", nothing, Ordered()); !errors.Is(err, errNotAlone) {
		t.Errorf("beside a guest's: %v", err)
	}
	sub.Stop()
}

// TestGuestRefused: errors say what to do.
func TestGuestRefused(t *testing.T) {
	if _, err := Open(t.Context(), Config{URL: "unix://" + t.TempDir()}); !errors.Is(err, embedded.ErrAway) {
		t.Errorf("nobody is there: %v", err)
	}
	if _, err := Open(t.Context(), Config{URL: "unix:///" + strings.Repeat("x", 100)}); err == nil || !strings.Contains(err.Error(), "shorter path") {
		t.Errorf("a long path: %v", err)
	}
	dir := t.TempDir()
	host := open(t, dir)
	q := visit(t, dir)
	top := topic(t, q, "t")
	for name, req := range map[string]hostRequest{
		"another version":  {Do: "dance"},
		"no such stream":   {Do: hostKeep, Records: []hostRecord{{Stream: "nowhere", Sequence: 1}}},
		"no such message":  {Do: hostKeep, Records: []hostRecord{{Stream: top.stream.name, Created: top.stream.created, Sequence: 7}}},
		"made anew":        {Do: hostKeep, Records: []hostRecord{{Stream: top.stream.name, Created: 1, Sequence: 1}}},
		"too many at once": {Do: hostKeep, Records: make([]hostRecord, maxTogether+1)},
	} {
		if _, err := q.redo.(guest).ask(t.Context(), req); err == nil || errors.Is(err, ErrNoAnswer) {
			t.Errorf("%s: %v", name, err)
		}
	}
	r, err := top.Publish(t.Context(), wrapperspb.String("gone"))
	if err != nil {
		t.Fatal(err)
	}
	forget(t, q, "t", r.Sequence)
	record := hostRecord{Stream: top.stream.name, Created: top.stream.created, Sequence: r.Sequence}
	if _, err := q.redo.(guest).ask(t.Context(), hostRequest{Do: hostKeep, Records: []hostRecord{record}}); err != nil {
		t.Errorf("a message that was there and was taken away: %v", err)
	}
	shut(t, host)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := top.Publish(ctx, wrapperspb.String("x")); !errors.Is(err, ErrNoAnswer) || !strings.Contains(err.Error(), "see that the process that has the folder runs") {
		t.Errorf("the host has gone: %v", err)
	}
}

// hostForever is a process that has a folder open until it is killed.
func hostForever(dir string) {
	_, err := Open(context.Background(), Config{Dir: dir, Logger: quiet()})
	fmt.Println("open", err)
	if err == nil {
		select {}
	}
}

// startHost returns when the process has the folder open.
func startHost(t *testing.T, dir string) *exec.Cmd {
	t.Helper()
	var cmd *exec.Cmd
	var lines *bufio.Scanner
	cmd, lines = child(t, "QUEUE_TEST_HOST="+dir)
	if !lines.Scan() || lines.Text() != "open <nil>" {
		t.Fatalf("the host says %q", lines.Text())
	}
	return cmd
}

// TestGuestHostKilled kills the host under a guest that publishes and handles: what has a receipt is there, and is handled.
func TestGuestHostKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd := startHost(t, dir)
	q := visit(t, dir)
	top := topic(t, q, "t")
	var mu sync.Mutex
	kept, came := map[string]bool{}, map[string]bool{}
	sub, err := top.Subscribe(t.Context(), "g", func(_ context.Context, m *Msg[text]) error {
		mu.Lock()
		defer mu.Unlock()
		came[m.ID] = true
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var ended atomic.Bool
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := 0; !ended.Load(); n++ {
				id := fmt.Sprint(i, "-", n)
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				_, err := top.Publish(ctx, wrapperspb.String("x"), ID(id))
				cancel()
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				kept[id] = true
				mu.Unlock()
			}
		})
	}
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(kept)
	}
	for range 3 {
		before := count()
		until(t, func() bool { return count() > before+100 })
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		cmd = startHost(t, dir)
	}
	before := count()
	until(t, func() bool { return count() > before+100 })
	ended.Store(true)
	wg.Wait()
	until(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		for id := range kept {
			if !came[id] {
				return false
			}
		}
		return true
	})
	sub.Stop()
	shut(t, q)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	all := map[string]int{}
	for _, m := range stored(t, open(t, dir), "t") {
		all[m.Header.Get(headerID)]++
	}
	for id := range kept {
		if all[id] != 1 {
			t.Errorf("message %s is there %d times", id, all[id])
		}
	}
	t.Logf("3 kills of the host, %d receipts of a guest, none absent", len(kept))
}

// until waits for something to be so.
func until(t testing.TB, so func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it is not so within a minute")
		}
	}
}
