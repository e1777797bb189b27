package main

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"strings"

	_ "modernc.org/sqlite" // registers the driver

	"github.com/stile-ipc/stile/examples/shop/internal/seed"
	catalogv1 "github.com/stile-ipc/stile/examples/shop/proto/shop/catalog/v1"
)

const schema = `
CREATE TABLE IF NOT EXISTS products (
	sku         TEXT PRIMARY KEY,
	name        TEXT NOT NULL,
	category    TEXT NOT NULL,
	description TEXT NOT NULL,
	thumbnail   BLOB NOT NULL
) WITHOUT ROWID`

const columns = "sku, name, category, description, thumbnail"

type store struct {
	db      *sql.DB
	listing *sql.Stmt
}

func openStore(ctx context.Context, path string) (*store, error) {
	dsn := url.URL{Scheme: "file", Opaque: url.PathEscape(path), RawQuery: url.Values{
		"_txlock": {"immediate"},
		"_pragma": {"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(NORMAL)"},
	}.Encode()}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	db.SetMaxOpenConns(4)
	db.SetMaxIdleConns(4)
	s := &store{db: db}
	if _, err := db.ExecContext(ctx, schema); err != nil {
		s.close()
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	s.listing, err = db.PrepareContext(ctx, "SELECT "+columns+" FROM products ORDER BY sku LIMIT ?")
	if err != nil {
		s.close()
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return s, nil
}

func (s *store) close() { _ = s.db.Close() }

// seed adds the products that the database does not have.
func (s *store) seed(ctx context.Context, products []seed.Product) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("seed catalog: %w", err)
	}
	defer func() { _ = tx.Rollback() }()
	insert, err := tx.PrepareContext(ctx, "INSERT INTO products ("+columns+") VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING")
	if err != nil {
		return fmt.Errorf("seed catalog: %w", err)
	}
	defer func() { _ = insert.Close() }()
	for _, p := range products {
		if _, err := insert.ExecContext(ctx, p.SKU, p.Name, p.Category, p.Description, p.Thumbnail); err != nil {
			return fmt.Errorf("seed catalog: %w", err)
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("seed catalog: %w", err)
	}
	return nil
}

func (s *store) list(ctx context.Context, limit int) ([]*catalogv1.Product, error) {
	rows, err := s.listing.QueryContext(ctx, limit)
	if err != nil {
		return nil, err
	}
	return scan(rows)
}

// get returns the products that exist, by SKU.
func (s *store) get(ctx context.Context, skus []string) (map[string]*catalogv1.Product, error) {
	args := make([]any, len(skus))
	for i, sku := range skus {
		args[i] = sku
	}
	marks := strings.TrimSuffix(strings.Repeat("?,", len(skus)), ",")
	rows, err := s.db.QueryContext(ctx, "SELECT "+columns+" FROM products WHERE sku IN ("+marks+")", args...)
	if err != nil {
		return nil, err
	}
	products, err := scan(rows)
	if err != nil {
		return nil, err
	}
	found := make(map[string]*catalogv1.Product, len(products))
	for _, p := range products {
		found[p.GetSku()] = p
	}
	return found, nil
}

func scan(rows *sql.Rows) ([]*catalogv1.Product, error) {
	defer func() { _ = rows.Close() }()
	var products []*catalogv1.Product
	for rows.Next() {
		p := &catalogv1.Product{}
		if err := rows.Scan(&p.Sku, &p.Name, &p.Category, &p.Description, &p.Thumbnail); err != nil {
			return nil, err
		}
		products = append(products, p)
	}
	return products, rows.Err()
}
