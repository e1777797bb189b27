package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/proto"
	_ "modernc.org/sqlite" // registers the driver

	"github.com/stile-ipc/stile/examples/shop/internal/events"
	"github.com/stile-ipc/stile/examples/shop/internal/rpc"
	ordersv1 "github.com/stile-ipc/stile/examples/shop/proto/shop/orders/v1"
	"github.com/stile-ipc/stile/queue"
)

// closeLimit is how long ending waits for the topic to have what the outbox has; the rest goes out after the next start.
const closeLimit = 5 * time.Second

// store keeps placed orders in a folder, and tells of each in the topic orders.placed, whose server it is.
type store struct {
	db     *sql.DB
	queue  *queue.Queue
	outbox *queue.Outbox[*ordersv1.OrderPlaced]
}

func openStore(ctx context.Context, folder string) (_ *store, err error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	s := new(store)
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("open %s: %w", folder, err), s.close())
		}
	}()
	dsn := url.URL{Scheme: "file", Opaque: url.PathEscape(filepath.Join(folder, "orders.db")), RawQuery: url.Values{
		"_txlock": {"immediate"},
		"_pragma": {"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(FULL)"},
	}.Encode()}
	if s.db, err = sql.Open("sqlite", dsn.String()); err != nil {
		return nil, err
	}
	s.db.SetMaxOpenConns(1) // SQLite has one writer at a time: here they queue, there they would ask again and again
	if _, err = s.db.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID"); err != nil {
		return nil, err
	}
	if s.queue, err = queue.Open(ctx, queue.Config{Dir: filepath.Join(folder, "queue")}); err != nil {
		return nil, err
	}
	topic, err := events.OrdersPlaced(s.queue)
	if err != nil {
		return nil, err
	}
	s.outbox, err = queue.NewOutbox(ctx, s.db, queue.SQLite, topic, "")
	return s, err
}

// place keeps an order, and the message that tells of it, or neither.
func (s *store) place(ctx context.Context, order *ordersv1.Order, items []*ordersv1.OrderItem) error {
	body, err := proto.Marshal(order)
	if err != nil {
		return err
	}
	placed := &ordersv1.OrderPlaced{Order: order}
	for _, item := range items {
		placed.Thumbnails = append(placed.Thumbnails, item.GetThumbnail())
	}
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.ExecContext(ctx, "INSERT INTO orders (id, body) VALUES (?, ?)", order.GetOrderId(), body); err != nil {
		return err
	}
	ctx, span := rpc.StartMessage(ctx, trace.SpanKindProducer, "orders.placed", "send")
	defer span.End()
	if err := s.outbox.Publish(ctx, tx, placed, queue.ID(order.GetOrderId())); err != nil {
		return err
	}
	return tx.Commit()
}

// get returns an order, or nil if there is none of that id.
func (s *store) get(ctx context.Context, id string) (*ordersv1.Order, error) {
	var body []byte
	err := s.db.QueryRowContext(ctx, "SELECT body FROM orders WHERE id = ?", id).Scan(&body)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	order := new(ordersv1.Order)
	return order, proto.Unmarshal(body, order)
}

func (s *store) close() error {
	var errs []error
	if s.outbox != nil {
		ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
		defer cancel()
		if err := s.outbox.Close(ctx); err != nil {
			slog.Warn("e-mails go out after the next start", "error", err)
		}
	}
	if s.queue != nil {
		errs = append(errs, s.queue.Close())
	}
	if s.db != nil {
		errs = append(errs, s.db.Close())
	}
	return errors.Join(errs...)
}
