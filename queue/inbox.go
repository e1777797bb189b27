package queue

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"time"
)

// InboxKey names what is done once: a message, for a group.
type InboxKey struct{ Topic, Group, ID string }

// Inbox remembers what was done. Its methods are safe for concurrent use.
type Inbox interface {
	// Once calls f, and remembers that it returned nil together with what it has done; or returns nil if it was
	// remembered already.
	Once(ctx context.Context, key InboxKey, f func(ctx context.Context) error) error
}

// Dialect is a database's language.
type Dialect int

// Databases that SQLInbox speaks to.
const (
	SQLite Dialect = iota
	PostgreSQL
)

// SQLInbox is an inbox in a table of a database. The handler runs in a transaction, which it gets from [Tx]: what it does there is done if
// and only if the message is remembered.
type SQLInbox struct {
	db      *sql.DB
	table   string
	insert  string
	cleanup string
}

var tableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,62}$`)

// NewSQLInbox returns an inbox in a table, by default stile_inbox, which is made if it is not there.
func NewSQLInbox(ctx context.Context, db *sql.DB, dialect Dialect, table string) (*SQLInbox, error) {
	if table == "" {
		table = "stile_inbox"
	}
	if !tableName.MatchString(table) {
		return nil, fmt.Errorf("queue: inbox: a table cannot be called %q here", table)
	}
	if db == nil {
		return nil, errors.New("queue: inbox: there is no database")
	}
	i := &SQLInbox{db: db, table: table}
	switch dialect {
	case SQLite:
		i.insert = "INSERT INTO " + table + " (topic, grp, id, at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
		i.cleanup = "DELETE FROM " + table + " WHERE at < ?"
	case PostgreSQL:
		i.insert = "INSERT INTO " + table + " (topic, grp, id, at) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING"
		i.cleanup = "DELETE FROM " + table + " WHERE at < $1"
	default:
		return nil, fmt.Errorf("queue: inbox: no dialect has number %d", dialect)
	}
	err := createTable(ctx, db, "CREATE TABLE IF NOT EXISTS "+table+" (topic VARCHAR(128) NOT NULL, grp VARCHAR(64) NOT NULL, id VARCHAR(512) NOT NULL, at BIGINT NOT NULL, PRIMARY KEY (topic, grp, id))")
	if err != nil {
		return nil, fmt.Errorf("queue: inbox: %w", err)
	}
	return i, nil
}

// Once implements [Inbox].
func (i *SQLInbox) Once(ctx context.Context, key InboxKey, f func(ctx context.Context) error) (err error) {
	tx, err := i.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("queue: inbox: %w", err)
	}
	committed := false
	defer func() { // also when the handler panics
		if !committed {
			err = errors.Join(err, rolledBack(tx))
		}
	}()
	res, err := tx.ExecContext(ctx, i.insert, key.Topic, key.Group, key.ID, time.Now().UnixNano())
	if err != nil {
		return fmt.Errorf("queue: inbox: %w", err)
	}
	n, err := res.RowsAffected()
	if err != nil || n == 0 { // 0: it is remembered
		return err
	}
	if err := f(context.WithValue(ctx, txKey{}, tx)); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("queue: inbox: %w", err)
	}
	committed = true
	return nil
}

func rolledBack(tx *sql.Tx) error {
	if err := tx.Rollback(); err != nil && !errors.Is(err, sql.ErrTxDone) {
		return fmt.Errorf("queue: inbox: %w", err)
	}
	return nil
}

// Forget forgets what is older than age, which is longer than any topic keeps its messages. It returns how many messages those were.
func (i *SQLInbox) Forget(ctx context.Context, age time.Duration) (int64, error) {
	res, err := i.db.ExecContext(ctx, i.cleanup, time.Now().Add(-age).UnixNano())
	if err != nil {
		return 0, fmt.Errorf("queue: inbox: %w", err)
	}
	return res.RowsAffected()
}

type txKey struct{}

// Tx returns the transaction of a handler whose subscription has a [SQLInbox], or nil. The handler neither commits it nor
// rolls it back.
func Tx(ctx context.Context) *sql.Tx {
	tx, _ := ctx.Value(txKey{}).(*sql.Tx)
	return tx
}
