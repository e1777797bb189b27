package store

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/stile-ipc/stile/internal/packed"
)

// Load is what a process, or a host, used in stretches of time that follow each other.
type Load struct {
	ID      string // of the process or the host
	Host    string // the process's, by ID; a host's own
	Service string
	Name    string // of the host
	PID     int64

	From    time.Time
	Took    []uint64              // µs
	Columns [LoadColumns][]uint64 // each as long as Took; nil: all are 0
}

// LoadColumns is how many numbers there are of each stretch; what they mean is the writer's affair.
const LoadColumns = 11

// maxStretches is how many stretches a Load has at most.
const maxStretches = 1_000

// Until is when the last stretch ends.
func (l *Load) Until() time.Time {
	us := uint64(0)
	for _, took := range l.Took {
		us += took
	}
	return l.From.Add(time.Duration(us) * time.Microsecond)
}

const (
	loadsKept = time.Hour // as windows of 10 s
	loadShare = 8         // which part of all bytes loads may have
	loadRow   = 100       // about how many bytes one has beside its numbers
)

// loadTables are of version 3, too, and made where they are not. Times are ns, but for that of sizes.
const loadTables = `
CREATE TABLE IF NOT EXISTS loads (first INTEGER NOT NULL, id TEXT NOT NULL, until INTEGER NOT NULL, host TEXT NOT NULL, service TEXT NOT NULL, name TEXT NOT NULL, pid INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (first, id)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS loads_by_id ON loads (id, first);
CREATE TABLE IF NOT EXISTS load_sizes (start INTEGER PRIMARY KEY, bytes INTEGER NOT NULL);
`

// PutLoads keeps loads, all or none.
func (s *Store) PutLoads(ctx context.Context, all []Load) error {
	if len(all) == 0 {
		return nil
	}
	return s.transact(ctx, func(tx *writing) error {
		put, err := tx.PrepareContext(ctx, "REPLACE INTO loads (first, id, until, host, service, name, pid, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?)")
		if err != nil {
			return err
		}
		defer put.Close()
		sizes := map[int64]int{}
		var data []byte
		for i := range all {
			l := &all[i]
			data = l.appendPacked(data[:0])
			if _, err := put.ExecContext(ctx, l.From.UnixNano(), l.ID, l.Until().UnixNano(), l.Host, l.Service, l.Name, l.PID, data); err != nil {
				return err
			}
			sizes[l.From.Truncate(Finest).Unix()] += len(data) + loadRow
		}
		for start, bytes := range sizes {
			if _, err := tx.ExecContext(ctx, "INSERT INTO load_sizes (start, bytes) VALUES (?, ?) ON CONFLICT (start) DO UPDATE SET bytes = bytes + excluded.bytes", start, bytes); err != nil {
				return err
			}
		}
		return nil
	})
}

// fitLoads takes away the loads that are too old, and the oldest of those that are too much.
func (s *Store) fitLoads(ctx context.Context, now time.Time) error {
	return s.transact(ctx, func(tx *writing) error {
		before := now.Add(-loadsKept).Truncate(Finest).Unix()
		var last int64
		err := tx.QueryRowContext(ctx, "SELECT start FROM (SELECT start, sum(bytes) OVER (ORDER BY start DESC) AS total FROM load_sizes) WHERE total > ? ORDER BY start DESC LIMIT 1", s.most/loadShare).Scan(&last)
		switch {
		case err == nil:
			before = max(before, last+seconds(Finest))
		case !errors.Is(err, sql.ErrNoRows):
			return err
		}
		if _, err := tx.ExecContext(ctx, "DELETE FROM loads WHERE first < ?", before*int64(time.Second)); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, "DELETE FROM load_sizes WHERE start < ?", before)
		return err
	})
}

// Loads calls found with what was used in a stretch of time, in order: all of it, or that of an ID. What it is given is its own. damaged are those that cannot be read.
func (s *Store) Loads(ctx context.Context, from, to time.Time, id string, found func(Load)) (damaged int, err error) {
	query, args := "SELECT first, id, host, service, name, pid, data FROM loads WHERE first >= ? AND first < ? AND until > ?", []any{from.Add(-MaxLoad).UnixNano(), to.UnixNano(), from.UnixNano()}
	if id != "" {
		query, args = query+" AND id = ?", append(args, id)
	}
	rows, err := s.view.QueryContext(ctx, query+" ORDER BY first", args...)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	for rows.Next() {
		var first int64
		var l Load
		var data sql.RawBytes
		if err := rows.Scan(&first, &l.ID, &l.Host, &l.Service, &l.Name, &l.PID, &data); err != nil {
			return damaged, err
		}
		l.From = time.Unix(0, first).UTC()
		if l.readPacked(data) != nil {
			damaged++
			continue
		}
		found(l)
	}
	return damaged, rows.Err()
}

// MaxLoad is how long the stretches of a Load are together, at most.
const MaxLoad = 10 * time.Minute

// Check tells what is wrong with a load, if anything is.
func (l *Load) Check() error {
	us := uint64(0)
	for _, took := range l.Took {
		if us += min(took, 1<<40); us > uint64(MaxLoad/time.Microsecond) {
			return fmt.Errorf("it is of more than %s", MaxLoad)
		}
	}
	if len(l.Took) > maxStretches {
		return fmt.Errorf("%d stretches; %d at most", len(l.Took), maxStretches)
	}
	for i, c := range l.Columns {
		if len(c) != 0 && len(c) != len(l.Took) {
			return fmt.Errorf("column %d has %d numbers for %d stretches", i, len(c), len(l.Took))
		}
	}
	return nil
}

// appendPacked appends the numbers: how many stretches, how long they are, and of each column that is not all 0 its place and its numbers.
func (l *Load) appendPacked(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(l.Took)))
	column := func(all []uint64) {
		for _, n := range all {
			b = binary.AppendUvarint(b, n)
		}
	}
	column(l.Took)
	for i, c := range l.Columns {
		if len(c) > 0 {
			b = binary.AppendUvarint(b, uint64(i))
			column(c)
		}
	}
	return packed.Seal(b)
}

func (l *Load) readPacked(data []byte) error {
	data, err := packed.Open(data)
	if err != nil {
		return err
	}
	r := packed.NewReader(data)
	n := min(r.Count(1), maxStretches)
	column := func() []uint64 {
		all := make([]uint64, n)
		for i := range all {
			all[i] = r.Uint()
		}
		return all
	}
	l.Took = column()
	for n > 0 && r.Len() > 0 && r.Err() == nil {
		i := r.Below(LoadColumns)
		l.Columns[i] = column()
	}
	if err := r.End(); err != nil {
		return err
	}
	return l.Check()
}
