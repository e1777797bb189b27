package databases

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/wrapperspb"
	_ "modernc.org/sqlite"

	"github.com/stile-ipc/stile/queue"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("DATABASES_TEST_ORDERS"); dir != "" { // a process that is going to be killed
		takeOrders(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

// watchdog ends what would never end.
const watchdog = time.Minute

// base is a database that a test has for itself.
type base struct {
	dialect queue.Dialect
	driver  string
	source  string
}

// each runs a test with each database that there is.
func each(t *testing.T, test func(t *testing.T, b base)) {
	t.Run("SQLite", func(t *testing.T) { test(t, sqlite(t)) })
	if dsn := os.Getenv("STILE_POSTGRES"); dsn != "" {
		t.Run("PostgreSQL", func(t *testing.T) { test(t, postgres(t, dsn)) })
	}
}

// sqlite has transactions that take the write lock at once.
func sqlite(t *testing.T) base {
	return base{queue.SQLite, "sqlite", "file:" + filepath.Join(t.TempDir(), "test.db") + "?_txlock=immediate&_pragma=busy_timeout(20000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)"}
}

func postgres(t *testing.T, dsn string) base {
	schema := fmt.Sprintf("test_%d", rand.Uint64())
	admin := base{queue.PostgreSQL, "pgx", dsn}.open(t)
	execute(t, admin, "CREATE SCHEMA "+schema)
	t.Cleanup(func() { execute(t, admin, "DROP SCHEMA "+schema+" CASCADE") })
	return base{queue.PostgreSQL, "pgx", dsn + " search_path=" + schema}
}

func (b base) open(t *testing.T) *sql.DB {
	t.Helper()
	db, err := sql.Open(b.driver, b.source)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(8)
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

type execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

func execute(t *testing.T, db execer, query string, args ...any) {
	t.Helper()
	if _, err := db.ExecContext(context.Background(), query, args...); err != nil {
		t.Fatal(err)
	}
}

type (
	text   = *wrapperspb.StringValue
	topic  = *queue.Topic[text]
	outbox = *queue.Outbox[text]
)

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func openQueue(t *testing.T, dir string) *queue.Queue {
	t.Helper()
	q, err := queue.Open(context.Background(), queue.Config{Dir: dir, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = q.Close() })
	return q
}

// byPrefix is the key of messages such as "key 17".
func byPrefix(m text) string {
	var key string
	_, _ = fmt.Sscan(m.GetValue(), &key)
	return key
}

func openTopic(t *testing.T, q *queue.Queue, opts ...queue.TopicOption) topic {
	t.Helper()
	top, err := queue.NewTopic[text](q, "orders.placed", append([]queue.TopicOption{queue.KeyBy(byPrefix)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	return top
}

func openOutbox(t *testing.T, b base, db *sql.DB, top topic) outbox {
	t.Helper()
	o, err := queue.NewOutbox(t.Context(), db, b.dialect, top, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // when the test has not closed it
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = o.Close(ctx)
	})
	return o
}

func closeOutbox(t *testing.T, o outbox) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), watchdog)
	defer cancel()
	if err := o.Close(ctx); err != nil {
		t.Fatal(err)
	}
}

func begin(t *testing.T, db *sql.DB) *sql.Tx {
	t.Helper()
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	return tx
}

// write publishes messages in one transaction.
func write(t *testing.T, db *sql.DB, o outbox, values ...string) {
	t.Helper()
	tx := begin(t, db)
	for _, v := range values {
		if err := o.Publish(t.Context(), tx, wrapperspb.String(v)); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
}

// until waits for something to be so.
func until(t *testing.T, what string, so func() bool) {
	t.Helper()
	for limit := time.Now().Add(watchdog); !so(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("it does not happen: " + what)
		}
	}
}

func relayed(t *testing.T, o outbox) {
	t.Helper()
	until(t, "the outbox is empty", func() bool {
		n, _, err := o.Pending(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		return n == 0
	})
}

// comes waits for a message.
func comes(t *testing.T, top topic, value string) {
	t.Helper()
	got := make(chan struct{})
	var once sync.Once
	sub, err := top.Subscribe(t.Context(), fmt.Sprint("waiter", rand.Uint32()), func(_ context.Context, m *queue.Msg[text]) error {
		if m.Value.GetValue() == value {
			once.Do(func() { close(got) })
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Stop()
	select {
	case <-got:
	case <-time.After(watchdog):
		t.Fatalf("%q does not come", value)
	}
}

// arrived returns all messages of a topic, in their order.
func arrived(t *testing.T, top topic) []*queue.Msg[text] {
	t.Helper()
	got := make(chan *queue.Msg[text], 1_000_000)
	sub, err := top.Subscribe(t.Context(), fmt.Sprint("reader", rand.Uint32()), func(_ context.Context, m *queue.Msg[text]) error {
		got <- m
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	until(t, "all is read", func() bool {
		st, err := sub.Stats(context.Background())
		return err == nil && st.Lag == 0 && st.InFlight == 0
	})
	sub.Stop()
	close(got)
	bySeq := map[uint64]*queue.Msg[text]{}
	for m := range got {
		bySeq[m.Sequence] = m
	}
	var all []*queue.Msg[text]
	for _, m := range bySeq {
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b *queue.Msg[text]) int { return int(int64(a.Sequence - b.Sequence)) })
	return all
}

func values(all []*queue.Msg[text]) []string {
	var out []string
	for _, m := range all {
		out = append(out, m.Value.GetValue())
	}
	return out
}
