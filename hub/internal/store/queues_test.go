package store

import (
	"database/sql"
	"path/filepath"
	"testing"
	"time"

	"github.com/stile-ipc/stile/routemap"
)

// queuesFor is one queue with a message more in each window.
func queuesFor(n int) Queues {
	w := routemap.QueueSample{QueueStats: routemap.QueueStats{Lag: uint64(n), Measured: int64(Finest), Published: 1, At: int64(n), Where: "unix:/q"}, Long: Finest, Left: uint64(n)}.Window()
	return Queues{{Topic: "orders", Created: 5, Group: "g"}: &w}
}

// sumOf is how many messages were published in windows, and how many windows of 10 s these are.
func sumOf(t *testing.T, all []QueueWindow) (published, windows uint64) {
	t.Helper()
	for i, w := range all {
		if i > 0 && w.Start.Before(all[i-1].End()) {
			t.Errorf("the window of %s begins before that of %s has ended", w.Start, all[i-1].Start)
		}
		for _, s := range w.Queues {
			published, windows = published+s.Published, windows+s.Windows
		}
	}
	return published, windows
}

// TestQueues: what is known of queues is kept for each 10 s, then for longer; a stretch of time has each window once.
func TestQueues(t *testing.T) {
	s := open(t, t.TempDir(), 1<<30)
	begin := time.Date(2026, 3, 1, 9, 30, 20, 0, time.UTC)
	const windows = 6 * 130
	for i := range windows {
		if err := s.PutQueues(t.Context(), begin.Add(time.Duration(i)*Finest), queuesFor(i)); err != nil {
			t.Fatal(err)
		}
		if i%37 == 0 {
			if err := s.tidyQueues(t.Context(), begin.Add(time.Duration(i+1)*Finest)); err != nil {
				t.Fatal(err)
			}
		}
	}
	end := begin.Add(windows * Finest)
	check := func(from, to time.Time, want uint64) {
		t.Helper()
		all, damaged, err := s.Queues(t.Context(), from, to)
		if published, n := sumOf(t, all); err != nil || damaged != 0 || published != want || n != want {
			t.Errorf("from %s to %s: %d messages in %d windows, want %d; %d damaged, %v", from, to, published, n, want, damaged, err)
		}
	}
	check(begin, end, windows)
	check(end.Add(-time.Minute), end, 6)
	check(end.Add(-2*time.Hour), end, 720+2) // they begin within a minute
	check(begin.Add(-time.Hour), begin, 0)
	all, _, err := s.Queues(t.Context(), begin, end)
	if err != nil {
		t.Fatal(err)
	}
	levels := map[time.Duration]int{}
	for _, w := range all {
		levels[w.Long]++
	}
	if levels[Finest] < 360 || levels[Finest] > 360+50 || levels[time.Minute] < 50 {
		t.Errorf("%v", levels)
	}
	last := all[len(all)-1].Queues[routemap.QueueKey{Topic: "orders", Created: 5, Group: "g"}]
	if last.Lag != windows-1 || last.Where != "unix:/q" {
		t.Errorf("%+v", last)
	}
	s.most = 50_000
	if err := s.tidyQueues(t.Context(), end); err != nil {
		t.Fatal(err)
	}
	all, _, err = s.Queues(t.Context(), begin, end)
	if size := queueBytes(t, s); err != nil || size > s.most/queueShare || len(all) == 0 || !all[len(all)-1].End().Equal(end) {
		t.Errorf("%d bytes, %d windows, %v", size, len(all), err)
	}
}

func queueBytes(t *testing.T, s *Store) (n int64) {
	t.Helper()
	if err := s.view.QueryRowContext(t.Context(), "SELECT coalesce(sum(length(data)), 0) FROM queues").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestQueuesShare: where there are too many bytes of queues, what goes first are the oldest of the finest windows that longer ones tell of, and not the long history; no window is told of twice
// then, and none is missing.
func TestQueuesShare(t *testing.T) {
	s := open(t, t.TempDir(), 1<<30)
	const hours, windows = 30, 6*60 + 6*7 // of 10 s, after the hours
	if err := s.transact(t.Context(), func(tx *writing) error {
		for h := range hours {
			if err := putQueues(t.Context(), tx.Tx, time.Hour, begin.Truncate(time.Hour).Add(time.Duration(h)*time.Hour), queuesFor(h)); err != nil {
				return err
			}
		}
		for i := range windows {
			if err := putQueues(t.Context(), tx.Tx, Finest, begin.Truncate(time.Hour).Add(hours*time.Hour+time.Duration(i)*Finest), queuesFor(i)); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	from := begin.Truncate(time.Hour)
	end := from.Add(hours*time.Hour + windows*Finest)
	levels := func() map[time.Duration]int {
		t.Helper()
		all, damaged, err := s.Queues(t.Context(), from, end)
		if published, _ := sumOf(t, all); err != nil || damaged != 0 || published != hours+windows {
			t.Errorf("%d messages, want %d; %d damaged, %v", published, hours+windows, damaged, err)
		}
		got := map[time.Duration]int{}
		for _, w := range all {
			got[w.Long]++
		}
		return got
	}
	if err := s.tidyQueues(t.Context(), end); err != nil {
		t.Fatal(err)
	}
	whole := queueBytes(t, s)
	for _, c := range []struct {
		part  int64 // of 8
		check func(map[time.Duration]int) bool
	}{
		{7, func(got map[time.Duration]int) bool {
			return got[Finest] > 200 && got[Finest] < windows && got[Finest]%6 == 0
		}},
		{2, func(got map[time.Duration]int) bool {
			return got[Finest] > 0 && got[Finest] < 150 && got[time.Minute] > 30
		}},
		{1, func(got map[time.Duration]int) bool {
			return got[Finest] == 0 && got[time.Minute] == 7 && got[time.Hour] == hours+1
		}},
	} {
		s.most = whole * c.part / 8 * queueShare
		if err := s.tidyQueues(t.Context(), end); err != nil {
			t.Fatal(err)
		}
		if got, size := levels(), queueBytes(t, s); !c.check(got) || size > s.most/queueShare {
			t.Errorf("%d of 8: %v of %d bytes", c.part, got, size)
		}
	}
}

// TestQueuesAgain: a window that comes twice goes on, and one that is damaged is left out and told.
func TestQueuesAgain(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, 1<<30)
	at := time.Unix(1e9, 0)
	for i := range 2 {
		for _, start := range []time.Time{at, at.Add(Finest)} {
			if err := s.PutQueues(t.Context(), start, queuesFor(i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := s.db.Exec("UPDATE queues SET data = substr(data, 2) WHERE start = ?", at.Unix()); err != nil {
		t.Fatal(err)
	}
	all, damaged, err := s.Queues(t.Context(), at, at.Add(time.Minute))
	if published, _ := sumOf(t, all); err != nil || damaged != 1 || published != 2 {
		t.Errorf("%d messages, %d damaged, %v", published, damaged, err)
	}
	if err := s.PutQueues(t.Context(), at, queuesFor(0)); err != nil {
		t.Error(err)
	}
	if _, damaged, err = s.Queues(t.Context(), at, at.Add(time.Minute)); damaged != 0 || err != nil {
		t.Errorf("%d damaged, %v", damaged, err)
	}
}

// TestQueuesAdded: a file of before there were queues has them when it is opened.
func TestQueuesAdded(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(t.Context(), dir, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", filepath.Join(dir, fileName))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("DROP TABLE queues"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, 1<<30)
	if err := s.PutQueues(t.Context(), time.Unix(1e9, 0), queuesFor(1)); err != nil {
		t.Error(err)
	}
}
