package main

import (
	"path/filepath"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	inventoryv1 "github.com/stile-ipc/stile/examples/shop/proto/shop/inventory/v1"
)

func newTestServer(t *testing.T, path string, stock int64) *server {
	t.Helper()
	store, err := openStore(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.close)
	if err := store.seed(t.Context(), 3, stock); err != nil {
		t.Fatal(err)
	}
	return &server{store: store}
}

func reserve(t *testing.T, s *server, id string, items ...*inventoryv1.Item) codes.Code {
	t.Helper()
	_, err := s.Reserve(t.Context(), &inventoryv1.ReserveRequest{ReservationId: id, Items: items})
	return status.Code(err)
}

func stock(t *testing.T, s *server, sku string) int64 {
	t.Helper()
	resp, err := s.GetStock(t.Context(), &inventoryv1.GetStockRequest{Sku: sku})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetAvailable()
}

func TestReserveIsIdempotentAndWhole(t *testing.T) {
	s := newTestServer(t, filepath.Join(t.TempDir(), "a b?#%.db"), 10)
	one := &inventoryv1.Item{Sku: "sku-0001", Quantity: 4}
	for range 2 {
		if code := reserve(t, s, "r1", one); code != codes.OK {
			t.Fatal(code)
		}
	}
	if got := stock(t, s, "sku-0001"); got != 6 {
		t.Errorf("%d left after one reservation made twice, want 6", got)
	}
	if code := reserve(t, s, "r2", one, &inventoryv1.Item{Sku: "sku-0002", Quantity: 11}); code != codes.FailedPrecondition {
		t.Errorf("reserve too much: %v", code)
	}
	if code := reserve(t, s, "r3", one, &inventoryv1.Item{Sku: "sku-0009", Quantity: 1}); code != codes.NotFound {
		t.Errorf("reserve what does not exist: %v", code)
	}
	if got := stock(t, s, "sku-0001"); got != 6 {
		t.Errorf("%d left after refused reservations, want 6", got)
	}
	for range 2 {
		if _, err := s.Release(t.Context(), &inventoryv1.ReleaseRequest{ReservationId: "r1"}); err != nil {
			t.Fatal(err)
		}
	}
	if got := stock(t, s, "sku-0001"); got != 10 {
		t.Errorf("%d left after the release, want 10", got)
	}
}

// TestTwoProcesses has two stores on one file, as during a restart.
func TestTwoProcesses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "inventory.db")
	servers := []*server{newTestServer(t, path, 20), newTestServer(t, path, 99)}
	var (
		wait  sync.WaitGroup
		mu    sync.Mutex
		count = map[codes.Code]int{}
	)
	for i := range 40 {
		wait.Go(func() {
			code := reserve(t, servers[i%2], string(rune('a'+i)), &inventoryv1.Item{Sku: "sku-0003", Quantity: 1})
			mu.Lock()
			defer mu.Unlock()
			count[code]++
		})
	}
	wait.Wait()
	if count[codes.OK] != 20 || count[codes.FailedPrecondition] != 20 {
		t.Errorf("outcomes %v, want 20 OK and 20 FailedPrecondition", count)
	}
	if got := stock(t, servers[0], "sku-0003"); got != 0 {
		t.Errorf("%d left, want 0", got)
	}
}

func TestReserveRefuses(t *testing.T) {
	s := newTestServer(t, filepath.Join(t.TempDir(), "inventory.db"), 10)
	item := &inventoryv1.Item{Sku: "sku-0001", Quantity: 1}
	for name, req := range map[string]*inventoryv1.ReserveRequest{
		"no id":             {Items: []*inventoryv1.Item{item}},
		"no items":          {ReservationId: "r"},
		"item twice":        {ReservationId: "r", Items: []*inventoryv1.Item{item, item}},
		"negative quantity": {ReservationId: "r", Items: []*inventoryv1.Item{{Sku: "sku-0001", Quantity: -1}}},
		"too many items":    {ReservationId: "r", Items: make([]*inventoryv1.Item, maxItems+1)},
	} {
		if _, err := s.Reserve(t.Context(), req); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v, want InvalidArgument", name, err)
		}
	}
}
