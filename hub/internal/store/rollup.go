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

// Tidy makes longer windows of those that have come to their end by now, and takes away what is too old, or too much. One that is damaged is left out of longer
// ones, and damaged tells how many were.
func (s *Store) Tidy(ctx context.Context, now time.Time) (damaged int, err error) {
	levels := Levels()
	var errs []error
	for i := 1; i < len(levels); i++ {
		bad, err := s.rollUp(ctx, levels[i-1].Window, levels[i].Window, now)
		damaged += bad
		if err != nil {
			errs = append(errs, fmt.Errorf("windows of %s: %w", levels[i].Window, err))
		}
	}
	for _, l := range levels {
		errs = append(errs, s.forget(ctx, l.Window, now.Add(-l.Kept)))
	}
	return damaged, errors.Join(append(errs, s.fitTraces(ctx, now), s.fit(ctx))...)
}

// rollUp makes the long windows that are over and not there, of what there is of the short ones in them.
func (s *Store) rollUp(ctx context.Context, short, long time.Duration, now time.Time) (damaged int, err error) {
	starts, err := s.ints(ctx, `SELECT DISTINCT start / ?2 * ?2 AS at FROM windows AS w WHERE level = ?1 AND start / ?2 * ?2 + ?2 <= ?3
		AND NOT EXISTS (SELECT 1 FROM windows WHERE level = ?2 AND start = w.start / ?2 * ?2) ORDER BY at`, seconds(short), seconds(long), now.Unix())
	if err != nil {
		return 0, err
	}
	for _, at := range starts {
		w := Window{Start: time.Unix(at, 0), Long: long}
		err := s.transact(ctx, func(tx *sql.Tx) error {
			all, err := windows(ctx, tx, w.Start, w.End())
			if err != nil {
				return err
			}
			m := routemap.New()
			bad, err := loadAll(ctx, tx, slices.DeleteFunc(all, func(part Window) bool { return part.Long != short }), m)
			if err != nil {
				return err
			}
			damaged += len(bad)
			return put(ctx, tx, w, m)
		})
		if err != nil {
			return damaged, err
		}
	}
	return damaged, nil
}

func (s *Store) ints(ctx context.Context, query string, args ...any) (all []int64, err error) {
	rows, err := s.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var n int64
		if err := rows.Scan(&n); err != nil {
			return nil, err
		}
		all = append(all, n)
	}
	return all, rows.Err()
}

// forget takes away the windows of a level that ended before a time.
func (s *Store) forget(ctx context.Context, level time.Duration, before time.Time) error {
	return s.transact(ctx, func(tx *sql.Tx) error {
		for _, table := range []string{"stats", "windows"} {
			if _, err := tx.ExecContext(ctx, "DELETE FROM "+table+" WHERE level = ? AND start + level <= ?", seconds(level), before.Unix()); err != nil {
				return err
			}
		}
		return nil
	})
}

// fit takes away windows until what is left is not too much: the oldest of the finest of those that a longer one tells of, too, and when there are none, the oldest
// of all. Then routes that no window has, and gives room back.
func (s *Store) fit(ctx context.Context) error {
	for {
		u, err := s.Usage(ctx)
		if err != nil {
			return err
		}
		if u.Bytes <= s.most || u.Windows <= 1 {
			break
		}
		err = s.transact(ctx, func(tx *sql.Tx) error {
			var level, start int64
			if err := tx.QueryRowContext(ctx, `SELECT level, start FROM (SELECT level, start, EXISTS (SELECT 1 FROM windows WHERE level > w.level AND start <= w.start AND start + level > w.start) AS told FROM windows AS w)
				ORDER BY told DESC, CASE WHEN told THEN level END, start LIMIT 1`).Scan(&level, &start); err != nil {
				return err
			}
			for _, table := range []string{"stats", "windows"} {
				if _, err := tx.ExecContext(ctx, "DELETE FROM "+table+" WHERE level = ? AND start = ?", level, start); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if _, err := s.db.ExecContext(ctx, "DELETE FROM routes WHERE id NOT IN (SELECT route FROM stats)"); err != nil {
		return err
	}
	_, err := s.db.ExecContext(ctx, "PRAGMA incremental_vacuum")
	return err
}
