package databases

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/stile-ipc/stile/queue"
)

// takeOrders is a process that takes orders until it is killed. Each is a row, and a message about it; one in four is rolled back.
func takeOrders(dir string) {
	if err := takeOrdersForever(dir); err != nil {
		fmt.Println("fault", err)
		os.Exit(1)
	}
}

func takeOrdersForever(dir string) error {
	ctx := context.Background()
	q, err := queue.Open(ctx, queue.Config{Dir: filepath.Join(dir, "queue"), Logger: quiet()})
	if err != nil {
		return err
	}
	top, err := queue.NewTopic[text](q, "orders.placed", queue.KeyBy(byPrefix))
	if err != nil {
		return err
	}
	db, err := sql.Open(os.Getenv("DATABASES_TEST_DRIVER"), os.Getenv("DATABASES_TEST_SOURCE"))
	if err != nil {
		return err
	}
	dialect := queue.SQLite
	if os.Getenv("DATABASES_TEST_DRIVER") == "pgx" {
		dialect = queue.PostgreSQL
	}
	o, err := queue.NewOutbox(ctx, db, dialect, top, "")
	if err != nil {
		return err
	}
	fmt.Println("ready")
	errs := make(chan error)
	for worker := range 4 {
		go func() {
			for {
				if err := takeOrder(ctx, db, o, fmt.Sprintf("key%d %d", worker, rand.Uint64())); err != nil {
					errs <- err
					return
				}
			}
		}()
	}
	return <-errs
}

func takeOrder(ctx context.Context, db *sql.DB, o outbox, id string) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, "INSERT INTO orders (id) VALUES ('"+id+"')"); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	if err := o.Publish(ctx, tx, wrapperspb.String(id), queue.ID(id)); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	if rand.IntN(4) == 0 {
		return tx.Rollback()
	}
	return tx.Commit()
}

// TestKilled kills the process that takes orders, which is also the relay and the server: in the end each order that was committed has its
// message, once, and there is none of others.
func TestKilled(t *testing.T) {
	kills := 6
	if n, err := strconv.Atoi(os.Getenv("QUEUE_KILLS")); err == nil {
		kills = n
	}
	each(t, func(t *testing.T, b base) {
		dir, db := t.TempDir(), b.open(t)
		execute(t, db, "CREATE TABLE orders (id VARCHAR(100) PRIMARY KEY)")
		for range kills {
			killWhileTaking(t, b, dir)
		}
		left := 0
		if err := db.QueryRow("SELECT count(*) FROM stile_outbox").Scan(&left); err != nil {
			t.Fatal(err)
		}
		top := openTopic(t, openQueue(t, filepath.Join(dir, "queue")))
		o := openOutbox(t, b, db, top)
		closeOutbox(t, o)
		got := map[string]int{}
		for _, m := range arrived(t, top) {
			if got[m.ID]++; m.ID != m.Value.GetValue() {
				t.Errorf("%s has %s", m.ID, m.Value.GetValue())
			}
		}
		orders := ordersOf(t, db)
		for id := range orders {
			if got[id] != 1 {
				t.Errorf("order %s has %d messages", id, got[id])
			}
		}
		for id := range got {
			if !orders[id] {
				t.Errorf("a message %s has no order", id)
			}
		}
		t.Logf("%d kills, %d orders, %d messages; the last kill left %d rows", kills, len(orders), len(got), left)
		if len(orders) < kills {
			t.Error("these are too few")
		}
	})
}

func killWhileTaking(t *testing.T, b base, dir string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "DATABASES_TEST_ORDERS="+dir, "DATABASES_TEST_DRIVER="+b.driver, "DATABASES_TEST_SOURCE="+b.source)
	out := newFirstLine()
	cmd.Stdout, cmd.Stderr = out, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-out.had:
	case <-time.After(watchdog):
		t.Error("the process does nothing")
	}
	time.Sleep(time.Duration(rand.IntN(2000)) * time.Millisecond) // the moment is random
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err == nil || strings.Contains(out.String(), "fault") {
		t.Fatalf("it ended before: %s", out)
	}
}

// firstLine is what a process says.
type firstLine struct {
	strings.Builder
	had chan struct{} // closed with the first line
}

func newFirstLine() *firstLine { return &firstLine{had: make(chan struct{})} }

func (f *firstLine) Write(p []byte) (int, error) {
	if f.Len() == 0 {
		close(f.had)
	}
	return f.Builder.Write(p)
}

func ordersOf(t *testing.T, db *sql.DB) map[string]bool {
	t.Helper()
	rows, err := db.Query("SELECT id FROM orders")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	all := map[string]bool{}
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			t.Fatal(err)
		}
		all[id] = true
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}
