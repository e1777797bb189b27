package main

import (
	"path/filepath"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/stile-ipc/stile/examples/shop/internal/seed"
	catalogv1 "github.com/stile-ipc/stile/examples/shop/proto/shop/catalog/v1"
)

func newTestServer(t *testing.T) *server {
	t.Helper()
	store, err := openStore(t.Context(), filepath.Join(t.TempDir(), "catalog.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.close)
	for range 2 { // the second time finds everything there
		if err := store.seed(t.Context(), seed.Products(120)); err != nil {
			t.Fatal(err)
		}
	}
	return &server{store: store}
}

func TestListProducts(t *testing.T) {
	s := newTestServer(t)
	for limit, want := range map[int32]int{0: 20, 1: 1, 100: 100, 2_000_000_000: 100} {
		resp, err := s.ListProducts(t.Context(), &catalogv1.ListProductsRequest{Limit: limit})
		if err != nil || len(resp.GetProducts()) != want {
			t.Errorf("limit %d: %d products, %v; want %d", limit, len(resp.GetProducts()), err, want)
		}
	}
	if _, err := s.ListProducts(t.Context(), &catalogv1.ListProductsRequest{Limit: -1}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("limit -1: %v", err)
	}
}

func TestGetProducts(t *testing.T) {
	s := newTestServer(t)
	want := []string{"sku-0003", "sku-0001", "sku-0003"}
	resp, err := s.GetProducts(t.Context(), &catalogv1.GetProductsRequest{Skus: want})
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range resp.GetProducts() {
		if p.GetSku() != want[i] || len(p.GetThumbnail()) < 1024 {
			t.Errorf("product %d is %s with a thumbnail of %d bytes", i, p.GetSku(), len(p.GetThumbnail()))
		}
	}
	for name, c := range map[string]struct {
		skus []string
		want codes.Code
	}{
		"nothing":  {nil, codes.InvalidArgument},
		"too many": {make([]string, 101), codes.InvalidArgument},
		"no name":  {[]string{"sku-0001", ""}, codes.InvalidArgument},
		"unknown":  {[]string{"sku-0001", "'; DROP TABLE products; --"}, codes.NotFound},
	} {
		if _, err := s.GetProducts(t.Context(), &catalogv1.GetProductsRequest{Skus: c.skus}); status.Code(err) != c.want {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}
