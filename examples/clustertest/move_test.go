package clustertest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/stile-ipc/stile/queue"
)

// mover is a process that has its queue on an embedded server, or moves from there to a cluster, or is there.
type mover struct {
	Dir   string // of the embedded server; "": it is not used any more
	URL   string // of the cluster; "": it is not used yet
	DB    string
	First int // what it publishes, to the cluster if that is used
	Last  int
}

// poison is a message that the embedded server's consumer cannot handle before the move.
const poison = "13"

// move is a mover's process. It says what it has receipts for, and when the embedded server is done with.
func move(spec string) error {
	var m mover
	if err := json.Unmarshal([]byte(spec), &m); err != nil {
		return err
	}
	ctx := context.Background()
	_, inbox, err := openDB(ctx, m.DB)
	if err != nil {
		return err
	}
	handle := func(ctx context.Context, msg *queue.Msg[text]) error {
		if msg.Value.GetValue() == poison && m.URL == "" {
			return queue.Reject(errors.New("not yet"), "poison")
		}
		time.Sleep(2 * time.Millisecond) // the work
		return effect("mover")(ctx, msg)
	}
	var top, old *queue.Topic[text]
	var oldQueue *queue.Queue
	var sub *queue.Subscription
	if m.Dir != "" {
		if oldQueue, err = queue.Open(ctx, queue.Config{Dir: m.Dir, Logger: quiet()}); err != nil {
			return err
		}
		if old, err = queue.NewTopic[text](oldQueue, "orders"); err != nil {
			return err
		}
		if sub, err = old.Subscribe(ctx, "billing", handle, queue.Once(inbox), queue.Workers(2)); err != nil {
			return err
		}
		top = old
	}
	if m.URL != "" { // all that is new goes to the cluster; subscribed are both, with one inbox
		q, err := open(ctx, m.URL)
		if err != nil {
			return err
		}
		if top, err = queue.NewTopic[text](q, "orders"); err != nil {
			return err
		}
		if _, err := top.Subscribe(ctx, "billing", handle, queue.Once(inbox), queue.Workers(2)); err != nil {
			return err
		}
	}
	fault := make(chan error, 2)
	go func() { fault <- m.publish(ctx, top) }()
	if m.Dir != "" && m.URL != "" {
		go func() { fault <- leave(ctx, oldQueue, old, sub) }()
	}
	for {
		if err := <-fault; err != nil {
			return err
		}
	}
}

// publish publishes numbers, and says for which it has receipts.
func (m *mover) publish(ctx context.Context, top *queue.Topic[text]) error {
	for n := m.First; n < m.Last; n++ {
		if _, err := top.Publish(ctx, wrapperspb.String(strconv.Itoa(n)), queue.ID("order-"+strconv.Itoa(n))); err != nil {
			return err
		}
		fmt.Println("kept", n)
	}
	return nil
}

// leave has the dead letters handled too, waits until nothing is left on the embedded server, and ends it.
func leave(ctx context.Context, q *queue.Queue, old *queue.Topic[text], sub *queue.Subscription) error {
	if _, err := old.DeadLetters("billing").Redrive(ctx, nil); err != nil {
		return err
	}
	for {
		st, err := sub.Stats(ctx)
		if err != nil {
			return err
		}
		if st.Lag == 0 && st.InFlight == 0 && st.Dead == 0 {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err := errors.Join(sub.Drain(ctx), q.Close()); err != nil {
		return err
	}
	fmt.Println("left", 0)
	return nil
}

// TestMove moves a topic and its group from an embedded server to a cluster, by the steps that the documentation names, and kills the process in
// each of them: what has a receipt has its effect, once, and so has a dead letter.
func TestMove(t *testing.T) {
	c := newCluster(t)
	path, dir := filepath.Join(t.TempDir(), "effects.db"), filepath.Join(t.TempDir(), "queue")
	db, _ := database(t, path)
	last := min(count("QUEUE_MESSAGES", 3000, 1000), 3000)
	kept := map[int]bool{}
	next := 0
	// run runs a mover until it has said so many lines of a kind, and kills it.
	run := func(m mover, word string, lines int) {
		m.DB, m.First, m.Last = path, max(0, next-20), last // the last are published again: the publisher may not have seen its receipts
		out, in := io.Pipe()
		p := start(t, in, "CLUSTER_TEST_MOVER="+asJSON(t, m))
		defer func() {
			go func() { _, _ = io.Copy(io.Discard, out) }()
			p.kill()
			in.Close()
		}()
		deadline := time.AfterFunc(3*time.Minute, func() { _ = in.CloseWithError(fmt.Errorf("no %d lines %q", lines, word)) })
		defer deadline.Stop()
		for said := bufio.NewScanner(out); lines > 0; {
			if !said.Scan() {
				t.Fatalf("the mover ended: %v", said.Err())
			}
			var what string
			var n int
			if got, err := fmt.Sscan(said.Text(), &what, &n); got != 2 {
				t.Fatalf("the mover says %q: %v", said.Text(), err)
			}
			if what == "kept" {
				kept[n] = true
				next = max(next, n+1)
			}
			if what == word {
				lines--
			}
		}
	}
	for range 3 { // there is an embedded server
		run(mover{Dir: dir}, "kept", 100+rand.IntN(200))
	}
	before := howMany(t, db)
	if slices.Contains(effects(t, db), poison) {
		t.Error("nothing was poison before the move")
	}
	for range 3 { // publish to the cluster, handle both
		run(mover{Dir: dir, URL: c.url()}, "kept", 20+rand.IntN(50))
	}
	run(mover{Dir: dir, URL: c.url()}, "left", 1)
	moved := howMany(t, db)
	run(mover{URL: c.url()}, "kept", last-max(0, next-20)) // the embedded server is no longer used
	rest := start(t, io.Discard, "CLUSTER_TEST_MOVER="+asJSON(t, mover{URL: c.url(), DB: path}))
	defer rest.kill()
	eventually(t, "all effects", func() error {
		if n := howMany(t, db); n < last {
			return fmt.Errorf("%d of %d", n, last)
		}
		return nil
	})
	times := map[string]int{}
	for _, what := range effects(t, db) {
		if times[what]++; times[what] > 1 {
			t.Errorf("message %s had its effect %d times", what, times[what])
		}
	}
	for n := range kept {
		if times[strconv.Itoa(n)] == 0 {
			t.Errorf("message %d has a receipt and no effect", n)
		}
	}
	if len(kept) != last || times[poison] != 1 {
		t.Errorf("%d receipts of %d; the dead letter had its effect %d times", len(kept), last, times[poison])
	}
	t.Logf("%d messages; before the move %d had had their effects, at its end %d", last, before, moved)
}

// asJSON is what a child is told.
func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
