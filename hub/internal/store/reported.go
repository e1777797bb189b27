package store

import (
	"context"
	"database/sql"
	"time"
)

// Reported is by process the last of its windows that is kept.
type Reported = map[[16]byte]uint64

const reportedKept = 24 * time.Hour

// maxReported is of how many processes it is kept, of more of the last. Tests have it less.
var maxReported = 100_000

func putReported(ctx context.Context, tx *sql.Tx, start time.Time, all Reported) error {
	if len(all) == 0 {
		return nil
	}
	put, err := tx.PrepareContext(ctx, "REPLACE INTO reported (process, sequence, seen) VALUES (?, ?, ?)")
	if err != nil {
		return err
	}
	defer put.Close()
	for process, n := range all {
		if _, err := put.ExecContext(ctx, process[:], int64(n), start.Unix()); err != nil {
			return err
		}
	}
	return nil
}

// Reported returns what is kept of processes that have reported in the last day.
func (s *Store) Reported(ctx context.Context, now time.Time) (Reported, error) {
	rows, err := s.view.QueryContext(ctx, "SELECT process, sequence FROM reported WHERE seen >= ? ORDER BY seen DESC LIMIT ?", now.Add(-reportedKept).Unix(), maxReported)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	all := Reported{}
	for rows.Next() {
		var process []byte
		var n int64
		if err := rows.Scan(&process, &n); err != nil {
			return nil, err
		}
		all[[16]byte(append(process, make([]byte, 16)...))] = uint64(n)
	}
	return all, rows.Err()
}

// fitReported forgets processes that have not reported for a day, and those that did least lately of too many.
func (s *Store) fitReported(ctx context.Context, now time.Time) error {
	_, err := s.db.ExecContext(ctx, "DELETE FROM reported WHERE seen < ? OR process IN (SELECT process FROM reported ORDER BY seen DESC LIMIT -1 OFFSET ?)", now.Add(-reportedKept).Unix(), maxReported)
	return err
}
