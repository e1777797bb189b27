package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"

	_ "modernc.org/sqlite" // registers the driver

	"github.com/stile-ipc/stile/examples/shop/internal/seed"
	inventoryv1 "github.com/stile-ipc/stile/examples/shop/proto/shop/inventory/v1"
)

var (
	errNoProduct = errors.New("no such product")
	errTooLittle = errors.New("too little stock")
)

const schema = `
CREATE TABLE IF NOT EXISTS stock (
	sku       TEXT PRIMARY KEY,
	available INTEGER NOT NULL CHECK (available >= 0)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS reservations (
	id       TEXT NOT NULL,
	sku      TEXT NOT NULL,
	quantity INTEGER NOT NULL,
	PRIMARY KEY (id, sku)
) WITHOUT ROWID`

// store keeps one connection for writing, because SQLite has one writer at a
// time and waiting for a connection is cheaper than waiting for its lock.
type store struct {
	write, read *sql.DB
	stock       *sql.Stmt
}

func openStore(ctx context.Context, path string) (*store, error) {
	dsn := url.URL{Scheme: "file", Opaque: url.PathEscape(path), RawQuery: url.Values{
		"_txlock": {"immediate"},
		"_pragma": {"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(NORMAL)"},
	}.Encode()}
	write, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	write.SetMaxOpenConns(1)
	read, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		_ = write.Close()
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	read.SetMaxOpenConns(4)
	read.SetMaxIdleConns(4)
	s := &store{write: write, read: read}
	if _, err := write.ExecContext(ctx, schema); err != nil {
		s.close()
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	s.stock, err = read.PrepareContext(ctx, "SELECT available FROM stock WHERE sku = ?")
	if err != nil {
		s.close()
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return s, nil
}

func (s *store) close() {
	_ = s.read.Close()
	_ = s.write.Close()
}

// seed adds the products that the database does not have.
func (s *store) seed(ctx context.Context, products int, stock int64) error {
	err := s.transact(ctx, func(tx *sql.Tx) error {
		for i := range products {
			_, err := tx.ExecContext(ctx, "INSERT INTO stock (sku, available) VALUES (?, ?) ON CONFLICT DO NOTHING", seed.SKU(i), stock)
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("seed inventory: %w", err)
	}
	return nil
}

func (s *store) available(ctx context.Context, sku string) (int64, error) {
	var available int64
	err := s.stock.QueryRowContext(ctx, sku).Scan(&available)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, fmt.Errorf("%w: %q", errNoProduct, sku)
	}
	return available, err
}

// reserve takes the items out of the stock unless reservation id exists.
func (s *store) reserve(ctx context.Context, id string, items []*inventoryv1.Item) error {
	return s.transact(ctx, func(tx *sql.Tx) error {
		var exists bool
		err := tx.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM reservations WHERE id = ?)", id).Scan(&exists)
		if err != nil || exists {
			return err
		}
		for _, item := range items {
			if err := take(ctx, tx, item); err != nil {
				return err
			}
			_, err := tx.ExecContext(ctx, "INSERT INTO reservations (id, sku, quantity) VALUES (?, ?, ?)", id, item.GetSku(), item.GetQuantity())
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func take(ctx context.Context, tx *sql.Tx, item *inventoryv1.Item) error {
	var left int64
	err := tx.QueryRowContext(ctx, "SELECT available FROM stock WHERE sku = ?", item.GetSku()).Scan(&left)
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("%w: %q", errNoProduct, item.GetSku())
	}
	if err != nil {
		return err
	}
	if left < item.GetQuantity() {
		return fmt.Errorf("%w: %d of %q left, %d wanted", errTooLittle, left, item.GetSku(), item.GetQuantity())
	}
	_, err = tx.ExecContext(ctx, "UPDATE stock SET available = available - ? WHERE sku = ?", item.GetQuantity(), item.GetSku())
	return err
}

// release gives back what reservation id holds.
func (s *store) release(ctx context.Context, id string) error {
	return s.transact(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE stock SET available = available + r.quantity
			FROM (SELECT sku, quantity FROM reservations WHERE id = ?) AS r WHERE stock.sku = r.sku`, id)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, "DELETE FROM reservations WHERE id = ?", id)
		return err
	})
}

func (s *store) transact(ctx context.Context, do func(*sql.Tx) error) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := do(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}
