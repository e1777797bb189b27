package databases

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/stile-ipc/stile/queue"
)

const trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

// TestCommitted: what is committed arrives, with all that it had when it was written; what is rolled back does not.
func TestCommitted(t *testing.T) {
	each(t, func(t *testing.T, b base) {
		db, top := b.open(t), openTopic(t, openQueue(t, t.TempDir()))
		o := openOutbox(t, b, db, top)
		lost := begin(t, db)
		if err := o.Publish(t.Context(), lost, wrapperspb.String("lost 1")); err != nil {
			t.Fatal(err)
		}
		if err := lost.Rollback(); err != nil {
			t.Fatal(err)
		}
		tx := begin(t, db)
		before := time.Now()
		if err := o.Publish(t.Context(), tx, wrapperspb.String("a 1"), queue.ID("one"), queue.Trace(trace)); err != nil {
			t.Fatal(err)
		}
		if err := o.Publish(t.Context(), tx, wrapperspb.String("")); err != nil {
			t.Fatal(err)
		}
		after := time.Now()
		if err := o.Publish(t.Context(), tx, wrapperspb.String(strings.Repeat("x", 1<<20))); !errors.Is(err, queue.ErrTooLarge) {
			t.Errorf("too large: %v", err)
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		relayed(t, o)
		all := arrived(t, top)
		if len(all) != 2 || !slices.Contains(values(all), "") {
			t.Fatalf("%q", values(all))
		}
		m := all[slices.Index(values(all), "a 1")]
		if m.ID != "one" || m.Key != "a" || m.Header.Get("traceparent") != trace || m.Published.Before(before.Truncate(0)) || m.Published.After(after) {
			t.Errorf("%+v", m)
		}
		closeOutbox(t, o)
		tx = begin(t, db)
		if err := o.Publish(t.Context(), tx, wrapperspb.String("late")); !errors.Is(err, queue.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
		if err := tx.Rollback(); err != nil {
			t.Error(err)
		}
	})
}

// TestQueueAway: what is committed while the queue is closed arrives when it is open again, and once.
func TestQueueAway(t *testing.T) {
	each(t, func(t *testing.T, b base) {
		dir, db := t.TempDir(), b.open(t)
		q := openQueue(t, dir)
		o := openOutbox(t, b, db, openTopic(t, q))
		write(t, db, o, "a 1")
		relayed(t, o)
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
		write(t, db, o, "a 2", "b 1")
		if n, age, err := o.Pending(t.Context()); err != nil || n != 2 || age <= 0 {
			t.Errorf("pending: %d, %s, %v", n, age, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), watchdog)
		defer cancel()
		if err := o.Close(ctx); !errors.Is(err, queue.ErrClosed) {
			t.Errorf("Close: %v", err)
		}
		top := openTopic(t, openQueue(t, dir))
		o = openOutbox(t, b, db, top)
		closeOutbox(t, o) // it publishes first
		if got := values(arrived(t, top)); len(got) != 3 || slices.Index(got, "a 1") > slices.Index(got, "a 2") {
			t.Errorf("%q", got)
		}
	})
}

// TestGuest: an outbox in a process whose queue is another's outlives that.
func TestGuest(t *testing.T) {
	b := sqlite(t)
	dir, err := os.MkdirTemp("", "q") // short, for the path of a unix socket is
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	db, host := b.open(t), openQueue(t, dir)
	q, err := queue.Open(t.Context(), queue.Config{URL: "unix://" + dir, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = q.Close() })
	o := openOutbox(t, b, db, openTopic(t, q))
	write(t, db, o, "a 1")
	relayed(t, o)
	if err := host.Close(); err != nil {
		t.Fatal(err)
	}
	write(t, db, o, "a 2", "b 1")
	top := openTopic(t, openQueue(t, dir))
	closeOutbox(t, o)
	if got := values(arrived(t, top)); len(got) != 3 || slices.Index(got, "a 1") > slices.Index(got, "a 2") {
		t.Errorf("%q", got)
	}
}

// TestOpenedTogether: processes may start at the same time.
func TestOpenedTogether(t *testing.T) {
	each(t, func(t *testing.T, b base) {
		db, top := b.open(t), openTopic(t, openQueue(t, t.TempDir()))
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				o, err := queue.NewOutbox(t.Context(), db, b.dialect, top, "")
				if err != nil {
					t.Error(err)
					return
				}
				if err := o.Close(context.Background()); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	})
}

// TestNotDeleted: rows that are published and cannot be deleted are no second message, for the relay nor for the next one.
func TestNotDeleted(t *testing.T) {
	b := sqlite(t)
	dir, db := t.TempDir(), b.open(t)
	q := openQueue(t, dir)
	top := openTopic(t, q)
	o := openOutbox(t, b, db, top)
	execute(t, db, "CREATE TRIGGER stay BEFORE DELETE ON stile_outbox BEGIN SELECT RAISE(ABORT, 'not now'); END")
	write(t, db, o, "a 1", "a 2")
	comes(t, top, "a 2")
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := o.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Close: %v", err)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	top = openTopic(t, openQueue(t, dir))
	o = openOutbox(t, b, db, top)
	write(t, db, o, "a 3")
	comes(t, top, "a 3")
	execute(t, db, "DROP TRIGGER stay")
	closeOutbox(t, o)
	if got := strings.Join(values(arrived(t, top)), ","); got != "a 1,a 2,a 3" {
		t.Error(got)
	}
}

// TestRefusedRows: rows that the server never takes hold up no others, and are told of.
func TestRefusedRows(t *testing.T) {
	each(t, func(t *testing.T, b base) {
		db, top := b.open(t), openTopic(t, openQueue(t, t.TempDir()))
		o := openOutbox(t, b, db, top)
		spoil := func(value, what string, arg any) {
			tx := begin(t, db)
			if err := o.Publish(t.Context(), tx, wrapperspb.String(value)); err != nil {
				t.Fatal(err)
			}
			mark := "?"
			if b.dialect == queue.PostgreSQL {
				mark = "$1"
			}
			execute(t, tx, "UPDATE stile_outbox SET "+what+" = "+mark+" WHERE number = (SELECT max(number) FROM stile_outbox)", arg)
			if err := tx.Commit(); err != nil {
				t.Fatal(err)
			}
		}
		spoil("k large", "data", make([]byte, 2<<20))
		spoil("k subject", "subject", "q.others.1")
		spoil("k header", "header", []byte("none"))
		write(t, db, o, "k 1", "k 2")
		relayed(t, o)
		refused, err := o.Refused(t.Context(), 10)
		if err != nil || len(refused) != 3 {
			t.Fatalf("%+v, %v", refused, err)
		}
		for i, want := range []string{"too large", "q.others.1", "header"} {
			if r := refused[i]; r.Attempts != 1 || !strings.Contains(r.Error, want) || time.Since(r.Written) > watchdog {
				t.Errorf("%+v, want %s", r, want)
			}
		}
		if got := strings.Join(values(arrived(t, top)), ","); got != "k 1,k 2" {
			t.Error(got)
		}
		execute(t, db, fmt.Sprintf("UPDATE stile_outbox SET error = '' WHERE number = %d", refused[0].Row))
		until(t, "it is refused again", func() bool {
			refused, err := o.Refused(t.Context(), 1)
			return err == nil && len(refused) == 1 && refused[0].Attempts == 2
		})
	})
}

// TestFull: a topic that is full takes no rows, and they stay.
func TestFull(t *testing.T) {
	b := sqlite(t)
	db, top := b.open(t), openTopic(t, openQueue(t, t.TempDir()), queue.Keep(time.Hour, 20_000))
	o := openOutbox(t, b, db, top)
	for range 10 {
		write(t, db, o, "k "+strings.Repeat("x", 5000))
	}
	until(t, "the topic is full", func() bool {
		n, _, err := o.Pending(t.Context())
		return err == nil && n == 7
	})
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := o.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Close: %v", err)
	}
	if n, _, err := o.Pending(t.Context()); err != nil || n != 7 {
		t.Errorf("pending: %d, %v", n, err)
	}
}

// TestKeyOrder: messages of a key arrive in order, though two outboxes relay the same table.
func TestKeyOrder(t *testing.T) {
	const keys, perKey = 4, 100
	each(t, func(t *testing.T, b base) {
		q := openQueue(t, t.TempDir())
		top := openTopic(t, q)
		var boxes []outbox
		var dbs []*sql.DB
		for range 2 {
			dbs = append(dbs, b.open(t))
			boxes = append(boxes, openOutbox(t, b, dbs[len(dbs)-1], top))
		}
		var all sync.WaitGroup
		for key := range keys {
			all.Go(func() {
				for i := range perKey / 2 {
					tx, err := dbs[key%2].Begin()
					if err != nil {
						t.Error(err)
						return
					}
					for j := range 2 {
						err = errors.Join(err, boxes[key%2].Publish(t.Context(), tx, wrapperspb.String(fmt.Sprintf("key%d %d", key, 2*i+j))))
					}
					if err := errors.Join(err, tx.Commit()); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		for _, o := range boxes {
			closeOutbox(t, o)
		}
		got := arrived(t, top)
		if len(got) != keys*perKey {
			t.Errorf("%d messages of %d", len(got), keys*perKey)
		}
		next := map[string]int{}
		for _, m := range got {
			if want := fmt.Sprintf("%s %d", m.Key, next[m.Key]); m.Value.GetValue() != want {
				t.Fatalf("%s, want %s", m.Value.GetValue(), want)
			}
			next[m.Key]++
		}
	})
}

// TestCommittedLate: rows that are seen only after later ones are published, too. SQLite has one writer at a time.
func TestCommittedLate(t *testing.T) {
	each(t, func(t *testing.T, b base) {
		if b.dialect == queue.SQLite {
			b.source = strings.Replace(b.source, "_txlock=immediate&", "", 1)
		}
		db, top := b.open(t), openTopic(t, openQueue(t, t.TempDir()))
		o := openOutbox(t, b, db, top)
		want := []string{"late 1"}
		late := begin(t, db)
		if err := o.Publish(t.Context(), late, wrapperspb.String("late 1")); err != nil {
			t.Fatal(err)
		}
		if b.dialect == queue.PostgreSQL {
			write(t, db, o, "early 1")
			want = append(want, "early 1")
			comes(t, top, "early 1")
		}
		if err := late.Commit(); err != nil {
			t.Fatal(err)
		}
		closeOutbox(t, o)
		if got := values(arrived(t, top)); len(got) != len(want) || got[len(got)-1] != "late 1" {
			t.Errorf("%q", got)
		}
	})
}
