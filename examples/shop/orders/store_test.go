package main

import (
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	ordersv1 "github.com/stile-ipc/stile/examples/shop/proto/shop/orders/v1"
)

// TestStore: with a store mailer is not called, and orders are there after the next start.
func TestStore(t *testing.T) {
	folder := t.TempDir()
	b := &backends{}
	open := func() (*server, func()) {
		store, err := openStore(t.Context(), folder)
		if err != nil {
			t.Fatal(err)
		}
		return &server{inventory: inventoryFake{b}, pricing: pricingFake{b}, mailer: mailerFake{b}, store: store, book: newBook(1)}, func() {
			if err := store.close(); err != nil {
				t.Error(err)
			}
		}
	}
	s, shut := open()
	var placed []*ordersv1.Order
	for range 3 {
		got, err := s.PlaceOrder(t.Context(), &ordersv1.PlaceOrderRequest{
			Customer: " ada@example.com ", Items: []*ordersv1.OrderItem{{Sku: "a", Quantity: 1, Name: "A", Thumbnail: []byte{1}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		placed = append(placed, got.GetOrder())
	}
	shut()
	if len(b.calls) != 3*2 {
		t.Errorf("calls: %q", b.calls)
	}
	s, shut = open()
	for _, want := range placed {
		got, err := s.GetOrder(t.Context(), &ordersv1.GetOrderRequest{OrderId: want.GetOrderId()})
		if err != nil || !proto.Equal(got.GetOrder(), want) {
			t.Errorf("%v, %v, want %v", got, err, want)
		}
	}
	if _, err := s.GetOrder(t.Context(), &ordersv1.GetOrderRequest{OrderId: "none"}); status.Code(err) != codes.NotFound {
		t.Error(err)
	}
	if n, _, err := s.store.outbox.Pending(t.Context()); err != nil || n != 0 {
		t.Errorf("%d pending, %v", n, err)
	}
	shut()
	if _, err := s.PlaceOrder(t.Context(), &ordersv1.PlaceOrderRequest{Customer: "ada@example.com", Items: []*ordersv1.OrderItem{{Sku: "a", Quantity: 1}}}); status.Code(err) != codes.Unavailable || b.calls[len(b.calls)-1] != "Release" {
		t.Errorf("after its end: %v, calls %q", err, b.calls)
	}
}
