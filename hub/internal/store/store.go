// Package store keeps maps of windows of time in one SQLite file: finest first, of 10 s, made coarser with age, and within a number of bytes.
package store

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
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

// Store is the file. It is safe for concurrent use by one that writes and others that read.
type Store struct {
	db   *sql.DB // whose transactions write
	view *sql.DB // whose transactions read, while others write
	lock *os.File
	most int64 // bytes
}

// schema is of version 1, as PRAGMA user_version has it. Times are seconds since 1970.
const schema = `
CREATE TABLE routes (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE);
CREATE TABLE windows (level INTEGER NOT NULL, start INTEGER NOT NULL, rest BLOB NOT NULL, bytes INTEGER NOT NULL, PRIMARY KEY (level, start)) WITHOUT ROWID;
CREATE TABLE stats (level INTEGER NOT NULL, start INTEGER NOT NULL, route INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (level, start, route)) WITHOUT ROWID;
CREATE INDEX stats_of_route ON stats (route, level, start);
CREATE TABLE samples (start INTEGER PRIMARY KEY, seen INTEGER NOT NULL, kept INTEGER NOT NULL, bytes INTEGER NOT NULL);
CREATE TABLE blocks (start INTEGER NOT NULL, block INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (start, block));
CREATE TABLE traces (trace BLOB NOT NULL, start INTEGER NOT NULL, block INTEGER NOT NULL, place INTEGER NOT NULL, spans INTEGER NOT NULL, PRIMARY KEY (trace, start, block)) WITHOUT ROWID;
CREATE INDEX traces_of_window ON traces (start);
PRAGMA user_version = 1;
`

const version = 1

// Open opens the store of a folder, which is made if it is not there; it keeps up to most bytes of windows. [ErrInUse] is returned while another process has it.
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
	path := filepath.Join(dir, "hub.db")
	s := &Store{lock: lock, most: most}
	if err := s.open(ctx, path); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), s.Close())
	}
	return s, nil
}

func (s *Store) open(ctx context.Context, path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) // SQLite would make it for all to read
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	const settings = "_pragma=busy_timeout(10000)&_pragma=auto_vacuum(INCREMENTAL)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)"
	at := url.URL{Scheme: "file", Path: path, RawQuery: settings + "&_txlock=immediate"}
	if s.db, err = sql.Open("sqlite", at.String()); err != nil {
		return err
	}
	at.RawQuery = settings
	if s.view, err = sql.Open("sqlite", at.String()); err != nil {
		return err
	}
	var has int
	if err := s.db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&has); err != nil {
		return fmt.Errorf("%w: if it is damaged, move it away, and the hub begins anew", err)
	}
	switch has {
	case version:
		return nil
	case 0:
		_, err := s.db.ExecContext(ctx, "BEGIN IMMEDIATE;"+schema+"COMMIT;")
		return err
	}
	return fmt.Errorf("it is of version %d, and this program reads %d: use the program that has written it, or another folder", has, version)
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

// Put keeps a map of a window of the length [Finest], and traces of it (nil: none), on disk when it returns. One that is there is merged with it, and so are
// longer ones that were made of it.
func (s *Store) Put(ctx context.Context, start time.Time, m *routemap.Map, t *Traces) error {
	return s.transact(ctx, func(tx *sql.Tx) error {
		if err := putTraces(ctx, tx, start.Truncate(Finest), t); err != nil {
			return err
		}
		for _, l := range Levels() {
			w := Window{Start: start.Truncate(l.Window), Long: l.Window}
			all, has := m, routemap.New() // m stays as it is: it may be put again
			switch err := load(ctx, tx, w, has); {
			case err == nil:
				has.Merge(m)
				all = has
			case errors.Is(err, sql.ErrNoRows) && l.Window != Finest:
				continue
			case !errors.Is(err, sql.ErrNoRows) && !errors.Is(err, errDamaged):
				return err
			}
			if err := put(ctx, tx, w, all); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *Store) transact(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := f(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

func put(ctx context.Context, tx *sql.Tx, w Window, m *routemap.Map) error {
	id, err := tx.PrepareContext(ctx, "INSERT INTO routes (key) VALUES (?) ON CONFLICT (key) DO UPDATE SET key = key RETURNING id")
	if err != nil {
		return err
	}
	defer id.Close()
	row, err := tx.PrepareContext(ctx, "REPLACE INTO stats (level, start, route, data) VALUES (?, ?, ?, ?)")
	if err != nil {
		return err
	}
	defer row.Close()
	level, start, size := seconds(w.Long), w.Start.Unix(), 0
	rest, err := m.Store(func(k routemap.Key, data []byte) error {
		key, err := json.Marshal(k)
		if err != nil {
			return err
		}
		var route int64
		if err := id.QueryRowContext(ctx, string(key)).Scan(&route); err != nil {
			return err
		}
		size += len(data)
		_, err = row.ExecContext(ctx, level, start, route, data)
		return err
	})
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, "REPLACE INTO windows (level, start, rest, bytes) VALUES (?, ?, ?, ?)", level, start, rest, size+len(rest))
	return err
}

func seconds(d time.Duration) int64 { return int64(d / time.Second) }

// querier is a database, or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// errDamaged: a window cannot be read, and others can.
var errDamaged = errors.New("it is damaged")

// load merges a window into a map; sql.ErrNoRows: it is not there. Of one that is damaged some may be in the map.
func load(ctx context.Context, q querier, w Window, m *routemap.Map) error {
	level, start := seconds(w.Long), w.Start.Unix()
	var rest []byte
	if err := q.QueryRowContext(ctx, "SELECT rest FROM windows WHERE level = ? AND start = ?", level, start).Scan(&rest); err != nil {
		return err
	}
	rows, err := q.QueryContext(ctx, "SELECT key, data FROM stats JOIN routes ON id = route WHERE level = ? AND start = ?", level, start)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var key, data []byte
		if err := rows.Scan(&key, &data); err != nil {
			return err
		}
		var k routemap.Key
		if err := json.Unmarshal(key, &k); err != nil {
			return fmt.Errorf("%w: %w", errDamaged, err)
		}
		if err := m.LoadRoute(k, data); err != nil {
			return fmt.Errorf("%w: %w", errDamaged, err)
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if err := m.Load(rest); err != nil {
		return fmt.Errorf("%w: %w", errDamaged, err)
	}
	return nil
}

// loadAll merges windows into a map, but for those that are damaged, which it returns.
func loadAll(ctx context.Context, q querier, all []Window, m *routemap.Map) (damaged []Window, err error) {
	for _, w := range all {
		one := routemap.New()
		switch err := load(ctx, q, w, one); {
		case errors.Is(err, errDamaged):
			damaged = append(damaged, w)
		case err != nil:
			return damaged, fmt.Errorf("%s: %w", w, err)
		default:
			m.Merge(one)
		}
	}
	return damaged, nil
}

// Read merges the windows of a stretch of time: the longest that lie within it, and for what they leave out those that reach beyond it. It returns them in
// order, and how many more are damaged and left out.
func (s *Store) Read(ctx context.Context, from, to time.Time) (m *routemap.Map, chosen []Window, damaged int, err error) {
	tx, err := s.view.BeginTx(ctx, &sql.TxOptions{ReadOnly: true}) // of one moment: windows go while they are read
	if err != nil {
		return nil, nil, 0, err
	}
	defer tx.Rollback()
	all, err := windows(ctx, tx, from, to)
	if err != nil {
		return nil, nil, 0, err
	}
	m = routemap.New()
	chosen = cover(all, from, to)
	bad, err := loadAll(ctx, tx, chosen, m)
	if err != nil {
		return nil, nil, 0, err
	}
	chosen = slices.DeleteFunc(chosen, func(w Window) bool { return slices.Contains(bad, w) })
	if n := len(chosen); n > 0 {
		m.Between(chosen[0].Start, chosen[n-1].End())
	}
	return m, chosen, len(bad), nil
}

// windows are those of which any lies in a stretch of time, by when they begin and the longest first.
func windows(ctx context.Context, q querier, from, to time.Time) (all []Window, err error) {
	rows, err := q.QueryContext(ctx, "SELECT level, start, bytes FROM windows WHERE start + level > ? AND start < ? ORDER BY start, level DESC", from.Unix(), to.Add(time.Second-1).Unix())
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var level, start, size int64
		if err := rows.Scan(&level, &start, &size); err != nil {
			return nil, err
		}
		all = append(all, Window{time.Unix(start, 0).UTC(), time.Duration(level) * time.Second, size})
	}
	return all, rows.Err()
}

// cover chooses windows that do not overlap: the longest that lie within a stretch of time, whose ends are those of finest windows, and then those of others that
// overlap none of them, the shortest first.
func cover(all []Window, from, to time.Time) (chosen []Window) {
	from, to = from.Truncate(Finest), to.Add(Finest-1).Truncate(Finest)
	var end time.Time
	var beyond []Window
	for _, w := range all {
		switch {
		case w.Start.Before(from) || w.End().After(to):
			beyond = append(beyond, w)
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
	all, err := windows(ctx, s.view, from, to)
	return cover(all, from, to), err
}

// Usage is what the store has.
type Usage struct {
	Windows int64 `json:"windows"`
	Bytes   int64 `json:"bytes"`
	Most    int64 `json:"most"`
	Traces  int64 `json:"traces"`     // that are kept whole
	Seen    int64 `json:"tracesSeen"` // of how many
}

// Usage tells what the store has.
func (s *Store) Usage(ctx context.Context) (Usage, error) {
	u := Usage{Most: s.most}
	err := s.view.QueryRowContext(ctx, "SELECT count(*), coalesce(sum(bytes), 0), (SELECT coalesce(sum(kept), 0) FROM samples), (SELECT coalesce(sum(seen), 0) FROM samples) FROM windows").Scan(&u.Windows, &u.Bytes, &u.Traces, &u.Seen)
	return u, err
}
