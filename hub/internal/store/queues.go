package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/stile-ipc/stile/routemap"
)

// Queues are those of a window.
type Queues map[routemap.QueueKey]*routemap.QueueStats

// QueueWindow is what is known of queues in a stretch of time.
type QueueWindow struct {
	Start  time.Time
	Long   time.Duration
	Queues Queues
}

// End is when it ends.
func (w QueueWindow) End() time.Time { return w.Start.Add(w.Long) }

// Then adds what came after it.
func (q Queues) Then(o Queues) {
	for k, s := range o {
		if q[k] == nil {
			q[k] = new(routemap.QueueStats)
		}
		q[k].Then(s)
	}
}

// queueShare is which part of all bytes queues may have.
const queueShare = 8

// queueTables are of version 3, too, and made where they are not.
const queueTables = `CREATE TABLE IF NOT EXISTS queues (level INTEGER NOT NULL, start INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (level, start));`

// PutQueues keeps what is known of queues in a window of the length [Finest]. One that is there, and longer ones, go on with it.
func (s *Store) PutQueues(ctx context.Context, start time.Time, q Queues) error {
	if len(q) == 0 {
		return nil
	}
	return s.transact(ctx, func(tx *writing) error {
		for _, l := range Levels() {
			at := start.Truncate(l.Window)
			all, err := queuesAt(ctx, tx.Tx, l.Window, at)
			if err != nil && !errors.Is(err, errDamaged) {
				return err
			}
			if all == nil && l.Window != Finest {
				continue
			}
			if all == nil {
				all = Queues{}
			}
			all.Then(q)
			if err := putQueues(ctx, tx.Tx, l.Window, at, all); err != nil {
				return err
			}
		}
		return nil
	})
}

func putQueues(ctx context.Context, tx *sql.Tx, level time.Duration, start time.Time, q Queues) error {
	_, err := tx.ExecContext(ctx, "REPLACE INTO queues (level, start, data) VALUES (?, ?, ?)", seconds(level), start.Unix(), routemap.PackQueues(q))
	return err
}

// queuesAt returns those of a window; nil: there are none.
func queuesAt(ctx context.Context, q querier, level time.Duration, start time.Time) (Queues, error) {
	var data []byte
	err := q.QueryRowContext(ctx, "SELECT data FROM queues WHERE level = ? AND start = ?", seconds(level), start.Unix()).Scan(&data)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return unpackQueues(data)
}

func unpackQueues(data []byte) (Queues, error) {
	all, err := routemap.UnpackQueues(data)
	if err != nil {
		return nil, fmt.Errorf("queues: %w", errDamaged)
	}
	return all, nil
}

// Queues returns the windows of a stretch of time, in order: the shortest that there are, and longer ones of the time before. Those that are damaged are left out, and counted.
func (s *Store) Queues(ctx context.Context, from, to time.Time) (all []QueueWindow, damaged int, err error) {
	tx, err := s.view.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, 0, err
	}
	defer tx.Rollback()
	until := to
	for _, l := range Levels() {
		some, bad, err := queuesOf(ctx, tx, l.Window, from, until)
		if err != nil {
			return nil, 0, err
		}
		damaged += bad
		all = append(some, all...)
		var first sql.NullInt64 // shorter ones tell of the time from then on
		if err := tx.QueryRowContext(ctx, "SELECT min(start) FROM queues WHERE level = ?", seconds(l.Window)).Scan(&first); err != nil {
			return nil, 0, err
		}
		if first.Valid && first.Int64 < until.Unix() {
			until = time.Unix(first.Int64, 0)
		}
	}
	return all, damaged, nil
}

// queuesOf returns the windows of a level that end after from and, but for the last of the finest, by until.
func queuesOf(ctx context.Context, q querier, level time.Duration, from, until time.Time) (all []QueueWindow, damaged int, err error) {
	last := until.Unix() - seconds(level)
	if level == Finest {
		last = until.Add(time.Second-1).Unix() - 1
	}
	rows, err := q.QueryContext(ctx, "SELECT start, data FROM queues WHERE level = ?1 AND start + ?1 > ?2 AND start <= ?3 ORDER BY start", seconds(level), from.Unix(), last)
	if err != nil {
		return nil, 0, err
	}
	defer rows.Close()
	for rows.Next() {
		var start int64
		var data []byte
		if err := rows.Scan(&start, &data); err != nil {
			return nil, 0, err
		}
		of, err := unpackQueues(data)
		if err != nil {
			damaged++
			continue
		}
		all = append(all, QueueWindow{time.Unix(start, 0).UTC(), level, of})
	}
	return all, damaged, rows.Err()
}

// tidyQueues makes longer windows, and takes away what is too old, or too much.
func (s *Store) tidyQueues(ctx context.Context, now time.Time) error {
	levels := Levels()
	for i := 1; i < len(levels); i++ {
		if err := s.rollUpQueues(ctx, levels[i-1].Window, levels[i].Window, now); err != nil {
			return fmt.Errorf("queues, windows of %s: %w", levels[i].Window, err)
		}
	}
	return s.transact(ctx, func(tx *writing) error {
		for i, l := range levels {
			before := now.Add(-l.Kept)
			if i+1 < len(levels) {
				before = before.Truncate(levels[i+1].Window) // longer ones tell of the time before, and no shorter one beside them
			}
			if _, err := tx.ExecContext(ctx, "DELETE FROM queues WHERE level = ? AND start < ?", seconds(l.Window), before.Unix()); err != nil {
				return err
			}
		}
		return fitQueues(ctx, tx.Tx, s.most/queueShare)
	})
}

// fitQueues takes away what is more than so many bytes: the oldest of the finest that longer ones tell of, too, up to where one of these ends, and then the oldest.
func fitQueues(ctx context.Context, tx *sql.Tx, most int64) error {
	var used int64
	if err := tx.QueryRowContext(ctx, "SELECT coalesce(sum(length(data)), 0) FROM queues").Scan(&used); err != nil {
		return err
	}
	levels := Levels()
	for i := 0; i+1 < len(levels) && used > most; i++ {
		short, long := seconds(levels[i].Window), seconds(levels[i+1].Window)
		var until, bytes int64
		err := tx.QueryRowContext(ctx, `SELECT at + ?2, total FROM (SELECT at, sum(bytes) OVER (ORDER BY at) AS total FROM
			(SELECT start / ?2 * ?2 AS at, sum(length(data)) AS bytes FROM queues AS w WHERE level = ?1 AND EXISTS (SELECT 1 FROM queues WHERE level = ?2 AND start = w.start / ?2 * ?2) GROUP BY at))
			ORDER BY total < ?3, abs(total - ?3) LIMIT 1`, short, long, used-most).Scan(&until, &bytes)
		if errors.Is(err, sql.ErrNoRows) {
			continue
		}
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "DELETE FROM queues WHERE level = ? AND start < ?", short, until); err != nil {
			return err
		}
		used -= bytes
	}
	_, err := tx.ExecContext(ctx, `DELETE FROM queues WHERE (level, start) IN
		(SELECT level, start FROM (SELECT level, start, sum(length(data)) OVER (ORDER BY start DESC, level DESC) AS total FROM queues) WHERE total > ?)`, most)
	return err
}

func (s *Store) rollUpQueues(ctx context.Context, short, long time.Duration, now time.Time) error {
	starts, err := s.ints(ctx, `SELECT DISTINCT start / ?2 * ?2 AS at FROM queues AS w WHERE level = ?1 AND start / ?2 * ?2 + ?2 <= ?3
		AND NOT EXISTS (SELECT 1 FROM queues WHERE level = ?2 AND start = w.start / ?2 * ?2) ORDER BY at`, seconds(short), seconds(long), now.Unix())
	if err != nil {
		return err
	}
	for part := range slices.Chunk(starts, 60) {
		if err := s.transact(ctx, func(tx *writing) error {
			for _, at := range part {
				start := time.Unix(at, 0)
				some, _, err := queuesOf(ctx, tx.Tx, short, start, start.Add(long))
				if err != nil {
					return err
				}
				all := Queues{}
				for _, w := range some {
					all.Then(w.Queues)
				}
				if err := putQueues(ctx, tx.Tx, long, start, all); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}
