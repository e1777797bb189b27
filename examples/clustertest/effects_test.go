package clustertest

import (
	"context"
	"database/sql"
	"testing"

	_ "modernc.org/sqlite"

	"github.com/stile-ipc/stile/queue"
)

// openDB opens a database in which handlers have their effects. A process that is killed takes nothing of it; a power cut is none of these tests.
func openDB(ctx context.Context, path string) (*sql.DB, *queue.SQLInbox, error) {
	db, err := sql.Open("sqlite", "file:"+path+"?_txlock=immediate&_pragma=busy_timeout(20000)&_pragma=journal_mode(WAL)&_pragma=synchronous(OFF)")
	if err != nil {
		return nil, nil, err
	}
	db.SetMaxOpenConns(4)
	if _, err := db.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS effects (at INTEGER PRIMARY KEY AUTOINCREMENT, who TEXT NOT NULL, what TEXT NOT NULL)"); err != nil {
		return nil, nil, err
	}
	inbox, err := queue.NewSQLInbox(ctx, db, queue.SQLite, "")
	return db, inbox, err
}

func database(t *testing.T, path string) (*sql.DB, *queue.SQLInbox) {
	t.Helper()
	db, inbox, err := openDB(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db, inbox
}

// effect is a handler whose effect is in the transaction of the inbox.
func effect(who string) queue.Handler[text] {
	return func(ctx context.Context, m *queue.Msg[text]) error {
		_, err := queue.Tx(ctx).ExecContext(ctx, "INSERT INTO effects (who, what) VALUES (?, ?)", who, m.Value.GetValue())
		return err
	}
}

// effects returns what was done, in the order in which it was.
func effects(t *testing.T, db *sql.DB) (all []string) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), "SELECT what FROM effects ORDER BY at")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var what string
		if err := rows.Scan(&what); err != nil {
			t.Fatal(err)
		}
		all = append(all, what)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// howMany counts the effects.
func howMany(t *testing.T, db *sql.DB) (n int) {
	t.Helper()
	if err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM effects").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}
