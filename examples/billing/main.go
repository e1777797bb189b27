// Billing charges each invoice once, whatever happens: invoices are messages of a durable topic, and a charge is written in the
// transaction in which the inbox remembers the message. Kill it as often as you like and start it again.
//
//	go run ./billing --data /tmp/billing --invoices 1000
package main

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"
	_ "modernc.org/sqlite"

	"github.com/stile-ipc/stile/queue"
)

func main() {
	data := flag.String("data", "billing-data", "folder of the queue and the database")
	invoices := flag.Int("invoices", 1000, "how many there are")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *data, *invoices); err != nil {
		fmt.Fprintln(os.Stderr, "billing:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, data string, invoices int) (err error) {
	q, err := queue.Open(ctx, queue.Config{Dir: filepath.Join(data, "queue")})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, q.Close()) }()
	db, err := openDB(ctx, filepath.Join(data, "billing.db"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	inbox, err := queue.NewSQLInbox(ctx, db, queue.SQLite, "")
	if err != nil {
		return err
	}
	topic, err := queue.NewTopic[*wrapperspb.Int64Value](q, "invoices")
	if err != nil {
		return err
	}
	sub, err := topic.Subscribe(ctx, "billing", charge, queue.Once(inbox))
	if err != nil {
		return err
	}
	defer sub.Stop()
	if err := issue(ctx, db, topic, invoices); err != nil {
		return err
	}
	return report(ctx, db, sub, invoices)
}

// openDB opens the database. Its transactions take the write lock at once: there is nothing to be won by waiting for it later.
func openDB(ctx context.Context, path string) (*sql.DB, error) {
	db, err := sql.Open("sqlite", "file:"+path+"?_txlock=immediate&_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(4)
	_, err = db.ExecContext(ctx, `
		CREATE TABLE IF NOT EXISTS charges (invoice INTEGER NOT NULL);
		CREATE TABLE IF NOT EXISTS issued (last INTEGER NOT NULL)`)
	return db, err
}

// charge is the handler. Its effect is in the transaction of the inbox.
func charge(ctx context.Context, m *queue.Msg[*wrapperspb.Int64Value]) error {
	_, err := queue.Tx(ctx).ExecContext(ctx, "INSERT INTO charges (invoice) VALUES (?)", m.Value.GetValue())
	return err
}

// window is how many invoices are issued at the same time.
const window = 64

// issue publishes the invoices that are not known to have been. What was published before a crash and not noted is published again with
// the same ID, which the topic knows.
func issue(ctx context.Context, db *sql.DB, topic *queue.Topic[*wrapperspb.Int64Value], invoices int) error {
	var last int
	if err := db.QueryRowContext(ctx, "SELECT coalesce(max(last), 0) FROM issued").Scan(&last); err != nil {
		return err
	}
	for last < invoices {
		upto := min(last+window, invoices)
		errs := make([]error, upto-last)
		var all sync.WaitGroup
		for i := range errs {
			all.Go(func() {
				n := last + i + 1
				_, errs[i] = topic.Publish(ctx, wrapperspb.Int64(int64(n)), queue.ID("invoice-"+strconv.Itoa(n)))
			})
		}
		all.Wait()
		if err := errors.Join(errs...); err != nil {
			return err
		}
		if _, err := db.ExecContext(ctx, "INSERT INTO issued (last) VALUES (?)", upto); err != nil {
			return err
		}
		last = upto
	}
	return nil
}

// report waits until all is charged.
func report(ctx context.Context, db *sql.DB, sub *queue.Subscription, invoices int) error {
	for {
		st, err := sub.Stats(ctx)
		if err != nil {
			return err
		}
		if st.Lag == 0 && st.InFlight == 0 {
			break
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	var charges, charged int
	if err := db.QueryRowContext(ctx, "SELECT count(*), count(DISTINCT invoice) FROM charges").Scan(&charges, &charged); err != nil {
		return err
	}
	fmt.Printf("%d invoices, %d charged, %d charges\n", invoices, charged, charges)
	return nil
}
