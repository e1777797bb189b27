package queue

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"
)

// TestRestore publishes, takes what a power cut may take from the server's folder, and finds all again.
func TestRestore(t *testing.T) {
	testRestore(t, func(t *testing.T, q *Queue, _ string) *Queue { return q })
}

// TestGuestRestore does so with what guests publish.
func TestGuestRestore(t *testing.T) {
	testRestore(t, func(t *testing.T, _ *Queue, dir string) *Queue { return visit(t, dir) })
}

func testRestore(t *testing.T, publisher func(t *testing.T, q *Queue, dir string) *Queue) {
	dir := t.TempDir()
	q := open(t, dir)
	top := topic(t, publisher(t, q, dir), "orders")
	publish := func(from, to int) {
		t.Helper()
		for i := from; i < to; i++ {
			if _, err := top.Publish(t.Context(), wrapperspb.String(fmt.Sprint(i)), ID(fmt.Sprint(i))); err != nil {
				t.Fatal(err)
			}
		}
	}
	publish(0, 50)
	shut(t, q)
	before := filepath.Join(t.TempDir(), "before") // what is on disk for sure
	if err := os.CopyFS(before, os.DirFS(filepath.Join(dir, "jetstream"))); err != nil {
		t.Fatal(err)
	}
	q = open(t, dir)
	pub := publisher(t, q, dir)
	top = topic(t, pub, "orders")
	publish(50, 75)
	var rest []text
	for i := 75; i < 100; i++ {
		rest = append(rest, wrapperspb.String(fmt.Sprint(i)))
	}
	if _, err := top.PublishAll(t.Context(), rest, ID("all")); err != nil {
		t.Fatal(err)
	}
	gone := topic(t, pub, "gone")
	if _, err := gone.Publish(t.Context(), wrapperspb.String("x")); err != nil {
		t.Fatal(err)
	}
	if err := q.js.DeleteStream(t.Context(), "gone"); err != nil {
		t.Fatal(err)
	}
	topic(t, q, "gone")
	made := filepath.Join(t.TempDir(), "made")
	if err := os.CopyFS(made, os.DirFS(filepath.Join(dir, "jetstream", "$G", "streams", "gone"))); err != nil {
		t.Fatal(err)
	}
	shut(t, q)
	replaceTree(t, filepath.Join(dir, "jetstream"), before)
	if err := os.CopyFS(filepath.Join(dir, "jetstream", "$G", "streams", "gone"), os.DirFS(made)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		q = open(t, dir)
		all := stored(t, q, "orders")
		for i := range 100 {
			id := fmt.Sprint(i)
			if i >= 75 {
				id = fmt.Sprintf("all-%d", i-75)
			}
			if m := all[uint64(i+1)]; m == nil || m.Header.Get(headerID) != id {
				t.Errorf("message %d: %v", i, m)
			}
		}
		if n := len(stored(t, q, "gone")); len(all) != 100 || n != 0 {
			t.Errorf("%d messages, %d of a stream that was deleted", len(all), n)
		}
		shut(t, q)
	}
}

// copyStore copies the server's folder: what is on disk for sure.
func copyStore(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "before")
	if err := os.CopyFS(to, os.DirFS(filepath.Join(dir, "jetstream"))); err != nil {
		t.Fatal(err)
	}
	return to
}

// TestRestoreOnce: what is put back has other sequences than the log says where messages had none in it. It is put back once, however often and late the queue is
// opened again.
func TestRestoreOnce(t *testing.T) {
	dir := t.TempDir()
	short := func(s *topicSettings) { s.window = 200 * time.Millisecond }
	q := open(t, dir)
	topic(t, q, "orders", short)
	shut(t, q)
	before := copyStore(t, dir)
	q = open(t, dir)
	top := topic(t, q, "orders", short)
	for i := range 10 {
		if i >= 3 && i < 6 { // stored, and the power goes before the log has it
			m, err := top.envelope(wrapperspb.String("unlogged"), publishing{}, time.Now())
			if err == nil {
				_, err = q.store(t.Context(), m, false)
			}
			if err != nil {
				t.Fatal(err)
			}
			continue
		}
		if _, err := top.Publish(t.Context(), wrapperspb.String(fmt.Sprint(i)), ID(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	shut(t, q)
	replaceTree(t, filepath.Join(dir, "jetstream"), before)
	for range 3 {
		q = open(t, dir)
		ids := map[string]int{}
		for _, m := range stored(t, q, "orders") {
			ids[m.Header.Get(headerID)]++
		}
		for id, n := range ids {
			if n != 1 || len(ids) != 7 {
				t.Errorf("message %s is there %d times, of %d", id, n, len(ids))
			}
		}
		shut(t, q)
		time.Sleep(300 * time.Millisecond) // the server forgets the IDs
	}
}

// TestRestoreFirst: what was published again with the ID of another message does not take its place.
func TestRestoreFirst(t *testing.T) {
	dir := t.TempDir()
	q := open(t, dir)
	topic(t, q, "orders")
	shut(t, q)
	before := copyStore(t, dir)
	q = open(t, dir)
	top := topic(t, q, "orders")
	for _, v := range []string{"first", "second"} {
		if _, err := top.Publish(t.Context(), wrapperspb.String(v), ID("x-0")); err != nil {
			t.Fatal(err)
		}
	}
	if rs, err := top.PublishAll(t.Context(), []text{wrapperspb.String("third"), wrapperspb.String("fourth")}, ID("x")); err != nil || !rs[0].Duplicate || rs[1].Duplicate {
		t.Fatal(rs, err)
	}
	shut(t, q)
	replaceTree(t, filepath.Join(dir, "jetstream"), before)
	q = open(t, dir)
	all := stored(t, q, "orders")
	if len(all) != 2 || !strings.HasSuffix(string(all[1].Data), "first") || !strings.HasSuffix(string(all[2].Data), "fourth") {
		t.Errorf("%v", all)
	}
	shut(t, q)
}

// TestRestoreDiscarded: a dead letter that was discarded is not there after a power cut that takes its deletion.
func TestRestoreDiscarded(t *testing.T) {
	dir := t.TempDir()
	q := open(t, dir)
	top := topic(t, q, "orders")
	publish(t, top, "a")
	sub := subscribe(t, top, "g", func(context.Context, *Msg[text]) error { return Reject(errors.New("no"), "bad") })
	until(t, func() bool { st, err := sub.Stats(t.Context()); return err == nil && st.Dead == 1 && st.InFlight == 0 })
	drained(t, sub)
	shut(t, q)
	before := copyStore(t, dir)
	q = open(t, dir)
	if n, err := topic(t, q, "orders").DeadLetters("g").Discard(t.Context(), nil); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	shut(t, q)
	replaceTree(t, filepath.Join(dir, "jetstream"), before)
	q = open(t, dir)
	if all, err := topic(t, q, "orders").DeadLetters("g").List(t.Context(), 10, nil); len(all) != 0 || err != nil {
		t.Errorf("%v, %v", all, err)
	}
	shut(t, q)
}

func replaceTree(t *testing.T, dir, with string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(dir, os.DirFS(with)); err != nil {
		t.Fatal(err)
	}
}

// TestModes: nobody else reads what is in a queue.
func TestModes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	q := open(t, dir)
	if _, err := topic(t, q, "orders").Publish(t.Context(), wrapperspb.String("x")); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if err := filepath.WalkDir(filepath.Join(dir, "redo"), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v", path, info.Mode())
		}
		return err
	}); err != nil {
		t.Error(err)
	}
}

// TestDamagedStore damages the server's files, as disks and people do: what the log still has comes back.
func TestDamagedStore(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, stream string){
		"a bit of a block": func(t *testing.T, stream string) { flip(t, filepath.Join(stream, "msgs", "1.blk"), 5000) },
		"a truncated block": func(t *testing.T, stream string) {
			if err := os.Truncate(filepath.Join(stream, "msgs", "1.blk"), 5000); err != nil {
				t.Fatal(err)
			}
		},
		"a block that is gone": func(t *testing.T, stream string) {
			if err := os.Remove(filepath.Join(stream, "msgs", "1.blk")); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			q := open(t, dir)
			top := topic(t, q, "orders")
			for i := range 100 {
				if _, err := top.Publish(t.Context(), wrapperspb.String(fmt.Sprint(i)), ID(fmt.Sprint(i))); err != nil {
					t.Fatal(err)
				}
			}
			shut(t, q)
			stream := filepath.Join(dir, "jetstream", "$G", "streams", "orders")
			damage(t, stream)
			if err := os.Remove(filepath.Join(stream, "msgs", "index.db")); err != nil { // or it hides the damage for a while
				t.Fatal(err)
			}
			q = open(t, dir)
			var ids []string
			all := stored(t, q, "orders")
			for _, seq := range slices.Sorted(maps.Keys(all)) {
				ids = append(ids, all[seq].Header.Get(headerID))
			}
			for i := range 100 {
				if !slices.Contains(ids, fmt.Sprint(i)) {
					t.Errorf("message %d is absent", i)
				}
			}
			if len(ids) != 100 {
				t.Errorf("%d messages", len(ids))
			}
		})
	}
}

// TestDamagedLog: a hole in the log is told, with what to do about it, and nothing is changed.
func TestDamagedLog(t *testing.T) {
	dir := t.TempDir()
	q := open(t, dir)
	top := topic(t, q, "orders")
	for range 3 {
		if _, err := top.Publish(t.Context(), wrapperspb.String("x")); err != nil {
			t.Fatal(err)
		}
	}
	shut(t, q)
	flip(t, filepath.Join(dir, "redo", "1.log"), 2*4096+20)
	for range 2 {
		_, err := Open(t.Context(), Config{Dir: dir, Logger: quiet()})
		if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "1.log") || !strings.Contains(err.Error(), "move the folder "+filepath.Join(dir, "redo")) {
			t.Errorf("%v", err)
		}
	}
}

func flip(t *testing.T, path string, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
}
