// Package store keeps maps of windows of time in one SQLite file: finest first, of 10 s, made coarser with age, and within a number of bytes.
package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
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
PRAGMA user_version = 1;
`

const version = 1

// Open opens the store of a folder, which is made if it is not there; it keeps up to most bytes of windows. [ErrInUse] is returned while another process has it.
func Open(ctx context.Context, dir string, most int64) (*Store, error) {
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

// End is when it ends.
func (w Window) End() time.Time { return w.Start.Add(w.Long) }

// Put keeps a map of a window of the length [Finest], on disk when it returns. One that is there is merged with it.
func (s *Store) Put(ctx context.Context, start time.Time, m *routemap.Map) error {
	return s.transact(ctx, func(tx *sql.Tx) error {
		has := Window{Start: start, Long: Finest}
		if err := load(ctx, tx, has, m); err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		return put(ctx, tx, has, m)
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

// load merges a window into a map; sql.ErrNoRows: it is not there.
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
			return err
		}
		if err := m.LoadRoute(k, data); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	return m.Load(rest)
}

// Read merges the windows of a stretch of time, the longest that lie within it, and returns them in order. A finest window counts if any of it is in the stretch.
func (s *Store) Read(ctx context.Context, from, to time.Time) (*routemap.Map, []Window, error) {
	tx, err := s.view.BeginTx(ctx, &sql.TxOptions{ReadOnly: true}) // of one moment: windows go while they are read
	if err != nil {
		return nil, nil, err
	}
	defer tx.Rollback()
	all, err := windows(ctx, tx, from, to)
	if err != nil {
		return nil, nil, err
	}
	m := routemap.New()
	chosen := cover(all)
	for _, w := range chosen {
		if err := load(ctx, tx, w, m); err != nil {
			return nil, nil, fmt.Errorf("window of %s, %s long: %w", w.Start.UTC().Format(time.RFC3339), w.Long, err)
		}
	}
	if n := len(chosen); n > 0 {
		m.Between(chosen[0].Start, chosen[n-1].End())
	}
	return m, chosen, nil
}

// windows are those within a stretch of time, whose ends are those of finest windows, by when they begin and the longest first.
func windows(ctx context.Context, q querier, from, to time.Time) (all []Window, err error) {
	rows, err := q.QueryContext(ctx, "SELECT level, start, bytes FROM windows WHERE start >= ? AND start + level <= ? ORDER BY start, level DESC", from.Truncate(Finest).Unix(), to.Add(Finest-1).Truncate(Finest).Unix())
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

// cover leaves out windows that a longer one has in it.
func cover(all []Window) (chosen []Window) {
	var end time.Time
	for _, w := range all {
		if !w.Start.Before(end) {
			chosen, end = append(chosen, w), w.End()
		}
	}
	return chosen
}

// Windows are those of a stretch of time, as Read would merge them.
func (s *Store) Windows(ctx context.Context, from, to time.Time) ([]Window, error) {
	all, err := windows(ctx, s.view, from, to)
	return cover(all), err
}

// Usage is what the store has.
type Usage struct {
	Windows int64 `json:"windows"`
	Bytes   int64 `json:"bytes"`
	Most    int64 `json:"most"`
}

// Usage tells what the store has.
func (s *Store) Usage(ctx context.Context) (Usage, error) {
	u := Usage{Most: s.most}
	err := s.view.QueryRowContext(ctx, "SELECT count(*), coalesce(sum(bytes), 0) FROM windows").Scan(&u.Windows, &u.Bytes)
	return u, err
}
