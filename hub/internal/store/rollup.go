package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
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
	return damaged, errors.Join(append(errs, s.fitTraces(ctx, now), s.fitLoads(ctx, now), s.fitRecords(ctx, now), s.tidyQueues(ctx, now), s.fitEvents(ctx), s.fitReported(ctx, now), s.fit(ctx))...)
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
		all, _, err := windows(ctx, s.view, w.Start, w.End())
		if err != nil {
			return damaged, err
		}
		m, bad, err := s.loadAll(ctx, s.view, slices.DeleteFunc(all, func(part Window) bool { return part.Long != short }))
		if err != nil {
			return damaged, err
		}
		damaged += len(bad)
		if err := s.transact(ctx, func(tx *writing) error { return s.put(ctx, tx, w, m) }); err != nil {
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
	starts, err := s.ints(ctx, "SELECT start FROM windows WHERE level = ? AND start + level <= ?", seconds(level), before.Unix())
	if err != nil || len(starts) == 0 {
		return err
	}
	return s.transact(ctx, func(tx *writing) error {
		for _, start := range starts {
			if err := drop(ctx, tx.Tx, seconds(level), start); err != nil {
				return err
			}
		}
		return nil
	})
}

// fit takes away windows until the file is not too large: the oldest of the finest of those that a longer one tells of, too, and when there are none, the oldest
// of all. Then routes that no window has, and gives room back.
func (s *Store) fit(ctx context.Context) error {
	err := s.transact(ctx, func(tx *writing) error {
		for {
			var used, windows int64
			if err := tx.QueryRowContext(ctx, `SELECT (page_count - freelist_count) * page_size, (SELECT count(*) FROM windows)
				FROM pragma_page_count, pragma_freelist_count, pragma_page_size`).Scan(&used, &windows); err != nil {
				return err
			}
			if used <= s.most || windows <= 1 {
				return nil
			}
			var level, start int64
			if err := tx.QueryRowContext(ctx, `SELECT level, start FROM (SELECT level, start, EXISTS (SELECT 1 FROM windows WHERE level > w.level AND start <= w.start AND start + level > w.start) AS told FROM windows AS w)
				ORDER BY told DESC, CASE WHEN told THEN level END, start LIMIT 1`).Scan(&level, &start); err != nil {
				return err
			}
			if err := drop(ctx, tx.Tx, level, start); err != nil {
				return err
			}
		}
	})
	if err != nil {
		return err
	}
	if err := s.forgetRoutes(ctx); err != nil {
		return err
	}
	_, err = s.db.ExecContext(ctx, "PRAGMA incremental_vacuum")
	return err
}

// forgetRoutes takes away those that no window can have.
func (s *Store) forgetRoutes(ctx context.Context) error {
	done, err := s.db.ExecContext(ctx, "DELETE FROM routes WHERE seen + ? < coalesce((SELECT min(start) FROM windows), ?)", seenEvery, int64(math.MaxInt64))
	if err != nil {
		return err
	}
	if n, err := done.RowsAffected(); err != nil || n > 0 {
		s.known.forget()
		return err
	}
	return nil
}
