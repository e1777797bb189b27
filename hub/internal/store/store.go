// Package store keeps maps of windows of time in one SQLite file: finest first, of 10 s, made coarser with age, and within a number of bytes.
package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"

	_ "modernc.org/sqlite"

	"github.com/stile-ipc/stile/internal/filelock"
	"github.com/stile-ipc/stile/routemap"
)

// Finest is how long a window is that is put.
const Finest = 10 * time.Second

// Level is how long windows are, and for how long they are kept.
type Level struct {
	Window time.Duration
	Kept   time.Duration
}

// Levels are those that there are, the finest first. Each is a multiple of the one before.
func Levels() []Level {
	return []Level{{Finest, time.Hour}, {time.Minute, 24 * time.Hour}, {time.Hour, 90 * 24 * time.Hour}}
}

// ErrInUse: another process has the folder.
var ErrInUse = errors.New("another hub has the folder")

// Store is the file. It is safe for concurrent use by one that writes, others that read, and others that put events.
type Store struct {
	db   *sql.DB // whose transactions write
	view *sql.DB // whose transactions read, while others write
	lock *os.File
	most int64 // bytes

	known    known
	policies map[policyKey]time.Time // when it was put that they are in force; who writes has it

	// Moved is where a file of an earlier version was moved, which this program does not read; empty: there was none.
	Moved string
}

// schema is of version 3, as PRAGMA user_version has it. Times are seconds since 1970; name and service are IDs of routes.
const schema = `
CREATE TABLE routes (id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE, name INTEGER NOT NULL, service INTEGER NOT NULL, seen INTEGER NOT NULL);
CREATE INDEX routes_by_name ON routes (name);
CREATE INDEX routes_by_service ON routes (service);
CREATE TABLE windows (level INTEGER NOT NULL, start INTEGER NOT NULL, bytes INTEGER NOT NULL, PRIMARY KEY (level, start)) WITHOUT ROWID;
CREATE TABLE chunks (level INTEGER NOT NULL, start INTEGER NOT NULL, chunk INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (level, start, chunk));
CREATE TABLE gone (level INTEGER PRIMARY KEY, until INTEGER NOT NULL);
CREATE TABLE samples (start INTEGER PRIMARY KEY, seen INTEGER NOT NULL, kept INTEGER NOT NULL, bytes INTEGER NOT NULL);
CREATE TABLE blocks (start INTEGER NOT NULL, block INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (start, block));
CREATE TABLE traces (trace BLOB NOT NULL, start INTEGER NOT NULL, block INTEGER NOT NULL, place INTEGER NOT NULL, spans INTEGER NOT NULL, PRIMARY KEY (trace, start, block)) WITHOUT ROWID;
CREATE INDEX traces_of_window ON traces (start);
CREATE TABLE events (id INTEGER PRIMARY KEY AUTOINCREMENT, first INTEGER NOT NULL, last INTEGER NOT NULL, count INTEGER NOT NULL, service TEXT NOT NULL, host TEXT NOT NULL, pid INTEGER NOT NULL,
	kind TEXT NOT NULL, subject TEXT NOT NULL, detail TEXT NOT NULL, trace TEXT NOT NULL, error INTEGER NOT NULL);
CREATE INDEX events_by_time ON events (first);
CREATE TABLE reported (process BLOB PRIMARY KEY, sequence INTEGER NOT NULL, seen INTEGER NOT NULL) WITHOUT ROWID;
PRAGMA user_version = 3;
`

const version = 3

// Open opens the store of a folder, which is made if it is not there; its file has up to most bytes, or little more while it is written. [ErrInUse] is returned while another process has it.
func Open(ctx context.Context, dir string, most int64) (*Store, error) {
	dir, err := filepath.Abs(dir) // a URL has no other
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := filelock.Lock(filepath.Join(dir, "lock"))
	if errors.Is(err, filelock.ErrLocked) {
		err = ErrInUse
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	s := &Store{lock: lock, most: most}
	path := filepath.Join(dir, fileName)
	if err := s.open(ctx, path); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), s.Close())
	}
	return s, nil
}

const fileName = "hub.db"

func (s *Store) open(ctx context.Context, path string) error {
	has, err := s.connect(ctx, path)
	if err != nil {
		return err
	}
	if has > 0 && has < version {
		if err := s.moveAway(ctx, path, has); err != nil {
			return err
		}
		if has, err = s.connect(ctx, path); err != nil {
			return err
		}
	}
	switch has {
	case version:
		_, err := s.db.ExecContext(ctx, loadTables+queueTables+policyTables+recordTables)
		return err
	case 0:
		_, err := s.db.ExecContext(ctx, "BEGIN IMMEDIATE;"+schema+loadTables+queueTables+policyTables+recordTables+"COMMIT;")
		return err
	}
	return fmt.Errorf("it is of version %d, and this program reads %d: use the program that has written it, or another folder", has, version)
}

// connect opens the file, which is made if it is not there, and tells its version.
func (s *Store) connect(ctx context.Context, path string) (has int, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) // SQLite would make it for all to read
	if err != nil {
		return 0, err
	}
	if err := f.Close(); err != nil {
		return 0, err
	}
	const settings = "_pragma=busy_timeout(10000)&_pragma=page_size(16384)&_pragma=auto_vacuum(INCREMENTAL)&_pragma=journal_mode(WAL)&_pragma=journal_size_limit(4194304)&_pragma=synchronous(FULL)"
	at := url.URL{Scheme: "file", Path: path, RawQuery: settings + "&_txlock=immediate"}
	if s.db, err = sql.Open("sqlite", at.String()); err != nil {
		return 0, err
	}
	at.RawQuery = settings
	if s.view, err = sql.Open("sqlite", at.String()); err != nil {
		return 0, err
	}
	if err := s.db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&has); err != nil {
		return 0, fmt.Errorf("%w: if it is damaged, move it away, and the hub begins anew", err)
	}
	return has, nil
}

// moveAway renames a file of an earlier version, which nobody has released a program for.
func (s *Store) moveAway(ctx context.Context, path string, has int) error {
	to := fmt.Sprintf("%s.v%d", path, has)
	if _, err := os.Lstat(to); err == nil {
		return fmt.Errorf("it is of version %d, which this program does not read, and cannot be moved to %s: there is one already", has, to)
	}
	var busy, frames, done int
	if err := s.db.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &frames, &done); err != nil || busy != 0 {
		return errors.Join(fmt.Errorf("it is of version %d, and somebody reads it", has), err)
	}
	if err := errors.Join(s.view.Close(), s.db.Close()); err != nil {
		return err
	}
	s.Moved = to
	return os.Rename(path, to)
}

// Close closes the file, and lets others have the folder.
func (s *Store) Close() error {
	var errs []error
	for _, db := range []*sql.DB{s.view, s.db} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(append(errs, s.lock.Close())...)
}

// Window is a stretch of time that the store has.
type Window struct {
	Start time.Time     `json:"start"`
	Long  time.Duration `json:"ns"`
	Bytes int64         `json:"bytes"`
}

// String says which it is.
func (w Window) String() string {
	return fmt.Sprintf("the window of %s that is %s long", w.Start.UTC().Format(time.RFC3339), w.Long)
}

// End is when it ends.
func (w Window) End() time.Time { return w.Start.Add(w.Long) }

// Put keeps a map of a window of the length [Finest], traces of it (nil: none) and which windows of processes are in it, on disk when it returns. One that is there is merged with it, and so are
// longer ones that were made of it.
func (s *Store) Put(ctx context.Context, start time.Time, m *routemap.Map, t *Traces, reported Reported) error {
	return s.transact(ctx, func(tx *writing) error {
		if err := putReported(ctx, tx.Tx, start, reported); err != nil {
			return err
		}
		if err := putTraces(ctx, tx.Tx, start.Truncate(Finest), t); err != nil {
			return err
		}
		for _, l := range Levels() {
			w := Window{Start: start.Truncate(l.Window), Long: l.Window}
			all, has := m, routemap.New() // m stays as it is: it may be put again
			switch err := s.load(ctx, tx, w, has); {
			case err == nil:
				has.Merge(m)
				all = has
			case errors.Is(err, sql.ErrNoRows) && l.Window != Finest:
				continue
			case !errors.Is(err, sql.ErrNoRows) && !errors.Is(err, errDamaged):
				return err
			}
			if err := s.put(ctx, tx, w, all); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *Store) transact(ctx context.Context, f func(*writing) error) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	w := &writing{tx, map[routemap.Key]numbered{}}
	if err := f(w); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	s.known.note(w.numbers)
	return nil
}

func seconds(d time.Duration) int64 { return int64(d / time.Second) }

// querier is a database, or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// errDamaged: a window cannot be read, and others can.
var errDamaged = errors.New("it is damaged")

// Read merges the windows of a stretch of time: the longest that lie within it, and for what they leave out those that reach beyond it. It returns them in
// order, and how many more are damaged and left out.
func (s *Store) Read(ctx context.Context, from, to time.Time) (m *routemap.Map, chosen []Window, damaged int, err error) {
	tx, err := s.view.BeginTx(ctx, &sql.TxOptions{ReadOnly: true}) // of one moment: windows go while they are read
	if err != nil {
		return nil, nil, 0, err
	}
	defer tx.Rollback()
	all, gone, err := windows(ctx, tx, from, to)
	if err != nil {
		return nil, nil, 0, err
	}
	chosen = cover(all, gone, from, to)
	m, bad, err := s.loadAll(ctx, tx, chosen)
	if err != nil {
		return nil, nil, 0, err
	}
	chosen = slices.DeleteFunc(chosen, func(w Window) bool { return slices.Contains(bad, w) })
	if n := len(chosen); n > 0 {
		m.Between(chosen[0].Start, chosen[n-1].End())
	}
	return m, chosen, len(bad), nil
}

// windows are those of which any lies in a stretch of time, by when they begin and the longest first, and until when others went.
func windows(ctx context.Context, q querier, from, to time.Time) (all []Window, gone gone, err error) {
	rows, err := q.QueryContext(ctx, "SELECT level, start, bytes FROM windows WHERE start + level > ? AND start < ? ORDER BY start, level DESC", from.Unix(), to.Add(time.Second-1).Unix())
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var level, start, size int64
		if err := rows.Scan(&level, &start, &size); err != nil {
			return nil, nil, err
		}
		all = append(all, Window{time.Unix(start, 0).UTC(), time.Duration(level) * time.Second, size})
	}
	if err := rows.Err(); err != nil {
		return nil, nil, err
	}
	gone, err = goneOf(ctx, q)
	return all, gone, err
}

// gone is until when windows of each level were taken away, the oldest first.
type gone map[time.Duration]time.Time

func goneOf(ctx context.Context, q querier) (gone, error) {
	rows, err := q.QueryContext(ctx, "SELECT level, until FROM gone")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	all := gone{}
	for rows.Next() {
		var level, until int64
		if err := rows.Scan(&level, &until); err != nil {
			return nil, err
		}
		all[time.Duration(level)*time.Second] = time.Unix(until, 0)
	}
	return all, rows.Err()
}

// told tells whether shorter windows than one, of a level or of any, tell all that it does from a time on.
func (g gone) told(w Window, from time.Time, level time.Duration) bool {
	if from.Before(w.Start) {
		from = w.Start
	}
	return level < w.Long && !from.Before(g[level])
}

// cover chooses windows that do not overlap: the longest that lie within a stretch of time, whose ends are those of finest windows, and then those of others that
// overlap none of them, the shortest first: where shorter ones went, not where nothing came.
func cover(all []Window, gone gone, from, to time.Time) (chosen []Window) {
	from, to = from.Truncate(Finest), to.Add(Finest-1).Truncate(Finest)
	var end time.Time
	var beyond []Window
	for _, w := range all {
		switch {
		case w.Start.Before(from) || w.End().After(to):
			if !slices.ContainsFunc(Levels(), func(l Level) bool { return gone.told(w, from, l.Window) }) {
				beyond = append(beyond, w)
			}
		case !w.Start.Before(end):
			chosen, end = append(chosen, w), w.End()
		}
	}
	slices.SortStableFunc(beyond, func(a, b Window) int { return cmp.Compare(a.Long, b.Long) })
	for _, w := range beyond {
		if !slices.ContainsFunc(chosen, func(c Window) bool { return c.Start.Before(w.End()) && w.Start.Before(c.End()) }) {
			chosen = append(chosen, w)
		}
	}
	slices.SortFunc(chosen, func(a, b Window) int { return a.Start.Compare(b.Start) })
	return chosen
}

// Windows are those of a stretch of time, as Read would merge them.
func (s *Store) Windows(ctx context.Context, from, to time.Time) ([]Window, error) {
	all, gone, err := windows(ctx, s.view, from, to)
	return cover(all, gone, from, to), err
}

// Usage is what the store has.
type Usage struct {
	Windows int64 `json:"windows"`
	Bytes   int64 `json:"bytes"` // of the file
	Most    int64 `json:"most"`
	Traces  int64 `json:"traces"`     // that are kept whole
	Seen    int64 `json:"tracesSeen"` // of how many
}

// Usage tells what the store has.
func (s *Store) Usage(ctx context.Context) (Usage, error) {
	u := Usage{Most: s.most}
	err := s.view.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM windows), (SELECT coalesce(sum(kept), 0) FROM samples), (SELECT coalesce(sum(seen), 0) FROM samples),
		(SELECT page_count * page_size FROM pragma_page_count, pragma_page_size)`).Scan(&u.Windows, &u.Traces, &u.Seen, &u.Bytes)
	return u, err
}
