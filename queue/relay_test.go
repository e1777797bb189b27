package queue

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/stile-ipc/stile/queue/internal/redo"
)

// forgetful is a keeper whose disk fails.
type forgetful struct{ keeper }

var errDisk = errors.New("the disk fails")

func (forgetful) append(context.Context, Durability, ...redo.Record) error { return errDisk }

// TestRelayDiskFails: rows that the server has and the disk has not are not deleted, and not sent again. Other tests of the outbox, with databases, are
// in examples/databases.
func TestRelayDiskFails(t *testing.T) {
	q := open(t, t.TempDir())
	top := topic(t, q, "t")
	r := newRelay(q, &outboxTable{topic: "t"}, top.stream, Synced, top.subjects[:])
	rows := func() (rows []outboxRow) {
		for i := range 3 {
			m, err := top.envelope(wrapperspb.String("x"), publishing{}, time.Now()) // each with an ID of its own
			if err != nil {
				t.Fatal(err)
			}
			rows = append(rows, outboxRow{number: int64(i + 1), subject: m.Subject, header: wireHeader(m.Header), data: m.Data})
		}
		return rows
	}
	works := q.redo
	q.redo = forgetful{works}
	for range 2 {
		if err := r.some(rows()); !errors.Is(err, errDisk) || len(r.gone()) != 0 {
			t.Fatalf("%v; gone are %v", err, r.gone())
		}
	}
	q.redo = works
	if err := r.some(rows()); err != nil || len(r.gone()) != 3 || len(r.stored) != 0 {
		t.Errorf("%v; gone are %v", err, r.gone())
	}
	if n := len(stored(t, q, "t")); n != 3 {
		t.Errorf("%d messages of 3", n)
	}
}

// TestPatience: a row is looked for soon, then less often, then not.
func TestPatience(t *testing.T) {
	r := newRelay(nil, &outboxTable{}, identity{}, Synced, nil)
	if got := r.patience(time.Now()); got != slowLook {
		t.Errorf("of nothing: %v", got)
	}
	r.await(1)
	r.await(2)
	r.seen([]outboxRow{{number: 2}})
	for age, want := range map[time.Duration]time.Duration{0: firstLook, 8 * time.Millisecond: 8 * time.Millisecond, 3 * time.Second: lastLook} {
		if got := r.patience(r.latest.Add(age)); got != want {
			t.Errorf("after %v: %v, want %v", age, got, want)
		}
	}
	if got := r.patience(r.latest.Add(slowLook + time.Second)); got != slowLook || len(r.awaited) != 0 {
		t.Errorf("in the end: %v, awaited %v", got, r.awaited)
	}
}

// TestOutboxNoDelay: a delay is refused, not dropped.
func TestOutboxNoDelay(t *testing.T) {
	top := topic(t, open(t, t.TempDir()), "t")
	o := &Outbox[text]{t: top, relay: newRelay(top.q, &outboxTable{topic: "t"}, top.stream, Synced, top.subjects[:])}
	if err := o.Publish(t.Context(), nil, wrapperspb.String("x"), Delay(time.Minute)); err == nil || !strings.Contains(err.Error(), "no delay") {
		t.Error(err)
	}
}
