package store

import (
	"context"
	"database/sql"
	"time"

	"github.com/stile-ipc/stile/internal/packed"
)

// Record is what is kept of a window of a process, beside the map. What its data mean is the writer's affair.
type Record struct {
	ID       string // of the process
	Service  string
	Host     string // its name
	PID      int64
	From, To time.Time
	Data     []byte
}

const (
	recordsKept = time.Hour // as windows of 10 s
	recordShare = 16        // which part of all bytes records may have
	recordRow   = 100       // about how many bytes one has beside its data
)

// recordTables are of version 3, too, and made where they are not. Times are ns.
const recordTables = `
CREATE TABLE IF NOT EXISTS records (first INTEGER NOT NULL, id TEXT NOT NULL, until INTEGER NOT NULL, service TEXT NOT NULL, host TEXT NOT NULL, pid INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (first, id)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS records_by_id ON records (id, first);
`

// PutRecords keeps records, all or none.
func (s *Store) PutRecords(ctx context.Context, all []Record) error {
	if len(all) == 0 {
		return nil
	}
	return s.transact(ctx, func(tx *writing) error {
		put, err := tx.PrepareContext(ctx, "REPLACE INTO records (first, id, until, service, host, pid, data) VALUES (?, ?, ?, ?, ?, ?, ?)")
		if err != nil {
			return err
		}
		defer put.Close()
		var data []byte
		for i := range all {
			r := &all[i]
			data = packed.Seal(append(data[:0], r.Data...))
			if _, err := put.ExecContext(ctx, r.From.UnixNano(), r.ID, r.To.UnixNano(), r.Service, r.Host, r.PID, data); err != nil {
				return err
			}
		}
		return nil
	})
}

// fitRecords takes away the records that are too old, and the oldest of those that are too much.
func (s *Store) fitRecords(ctx context.Context, now time.Time) error {
	_, err := s.db.ExecContext(ctx, `DELETE FROM records WHERE first < ? OR first <= (SELECT coalesce(max(first), -1) FROM (SELECT first,
		sum(? + octet_length(service) + octet_length(host) + octet_length(data)) OVER (ORDER BY first DESC, id) AS total FROM records) WHERE total > ?)`,
		now.Add(-recordsKept).UnixNano(), recordRow, s.most/recordShare)
	return err
}

// Records calls found with those of windows that began in a stretch of time, in order, limit at most: all, or of a process. damaged are those that cannot be read.
func (s *Store) Records(ctx context.Context, from, to time.Time, id string, limit int, found func(Record) error) (damaged int, err error) {
	query, args := "SELECT first, id, until, service, host, pid, data FROM records WHERE first >= ? AND first < ?", []any{from.UnixNano(), to.UnixNano()}
	if id != "" {
		query, args = query+" AND id = ?", append(args, id)
	}
	rows, err := s.view.QueryContext(ctx, query+" ORDER BY first, id LIMIT ?", append(args, limit)...)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	for rows.Next() {
		var first, until int64
		var r Record
		var data sql.RawBytes
		if err := rows.Scan(&first, &r.ID, &until, &r.Service, &r.Host, &r.PID, &data); err != nil {
			return damaged, err
		}
		r.From, r.To = time.Unix(0, first).UTC(), time.Unix(0, until).UTC()
		if r.Data, err = packed.Open(data); err == nil {
			err = found(r)
		}
		if err != nil {
			damaged++
		}
	}
	return damaged, rows.Err()
}
