package main

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	inventoryv1 "github.com/stile-ipc/stile/examples/shop/proto/shop/inventory/v1"
	mailerv1 "github.com/stile-ipc/stile/examples/shop/proto/shop/mailer/v1"
	ordersv1 "github.com/stile-ipc/stile/examples/shop/proto/shop/orders/v1"
	pricingv1 "github.com/stile-ipc/stile/examples/shop/proto/shop/pricing/v1"
)

// backends answers for inventory, pricing and mailer, and notes the calls.
type backends struct {
	calls []string
	fail  map[string]error
}

func (b *backends) call(name string) error {
	b.calls = append(b.calls, name)
	return b.fail[name]
}

type inventoryFake struct{ *backends }

func (f inventoryFake) GetStock(context.Context, *inventoryv1.GetStockRequest, ...grpc.CallOption) (*inventoryv1.GetStockResponse, error) {
	return &inventoryv1.GetStockResponse{}, f.call("GetStock")
}

func (f inventoryFake) Reserve(context.Context, *inventoryv1.ReserveRequest, ...grpc.CallOption) (*inventoryv1.ReserveResponse, error) {
	return &inventoryv1.ReserveResponse{}, f.call("Reserve")
}

func (f inventoryFake) Release(ctx context.Context, _ *inventoryv1.ReleaseRequest, _ ...grpc.CallOption) (*inventoryv1.ReleaseResponse, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return &inventoryv1.ReleaseResponse{}, f.call("Release")
}

type pricingFake struct{ *backends }

func (f pricingFake) GetPrice(context.Context, *pricingv1.GetPriceRequest, ...grpc.CallOption) (*pricingv1.GetPriceResponse, error) {
	return &pricingv1.GetPriceResponse{}, f.call("GetPrice")
}

func (f pricingFake) Quote(_ context.Context, req *pricingv1.QuoteRequest, _ ...grpc.CallOption) (*pricingv1.QuoteResponse, error) {
	quote := &pricingv1.QuoteResponse{TotalCents: 7}
	for _, item := range req.GetItems() {
		quote.Lines = append(quote.Lines, &pricingv1.QuotedLine{Sku: item.GetSku(), AmountCents: 7})
	}
	return quote, f.call("Quote")
}

type mailerFake struct{ *backends }

func (f mailerFake) SendOrderConfirmation(context.Context, *mailerv1.SendOrderConfirmationRequest, ...grpc.CallOption) (*mailerv1.SendOrderConfirmationResponse, error) {
	return &mailerv1.SendOrderConfirmationResponse{}, f.call("Send")
}

func TestPlaceOrder(t *testing.T) {
	unavailable := status.Error(codes.Unavailable, "gone")
	for _, c := range []struct {
		name  string
		fail  map[string]error
		want  codes.Code
		calls []string
	}{
		{"all well", nil, codes.OK, []string{"Reserve", "Quote", "Send"}},
		{"no stock", map[string]error{"Reserve": status.Error(codes.FailedPrecondition, "too little")}, codes.FailedPrecondition, []string{"Reserve"}},
		{"perhaps reserved", map[string]error{"Reserve": unavailable}, codes.Unavailable, []string{"Reserve", "Release"}},
		{"no price", map[string]error{"Quote": unavailable}, codes.Unavailable, []string{"Reserve", "Quote", "Release"}},
		{"no e-mail", map[string]error{"Send": unavailable}, codes.OK, []string{"Reserve", "Quote", "Send"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := &backends{fail: c.fail}
			s := &server{inventory: inventoryFake{b}, pricing: pricingFake{b}, mailer: mailerFake{b}, book: newBook(2)}
			placed, err := s.PlaceOrder(t.Context(), &ordersv1.PlaceOrderRequest{
				Customer: "ada@example.com", Items: []*ordersv1.OrderItem{{Sku: "a", Quantity: 1, Name: "A"}},
			})
			if status.Code(err) != c.want || !slices.Equal(b.calls, c.calls) {
				t.Fatalf("%v after %v, want %v after %v", err, b.calls, c.want, c.calls)
			}
			if err != nil {
				return
			}
			if _, err := s.GetOrder(t.Context(), &ordersv1.GetOrderRequest{OrderId: placed.GetOrder().GetOrderId()}); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestPlaceOrderRefuses(t *testing.T) {
	item := &ordersv1.OrderItem{Sku: "a", Quantity: 1}
	for name, req := range map[string]*ordersv1.PlaceOrderRequest{
		"nobody":     {Items: []*ordersv1.OrderItem{item}},
		"no address": {Customer: "ada", Items: []*ordersv1.OrderItem{item}},
		"nothing":    {Customer: "ada@example.com"},
		"no sku":     {Customer: "ada@example.com", Items: []*ordersv1.OrderItem{{Quantity: 1}}},
		"none of a":  {Customer: "ada@example.com", Items: []*ordersv1.OrderItem{{Sku: "a"}}},
		"twice":      {Customer: "ada@example.com", Items: []*ordersv1.OrderItem{item, item}},
		"too many":   {Customer: "ada@example.com", Items: make([]*ordersv1.OrderItem, maxItems+1)},
	} {
		if _, err := new(server).PlaceOrder(t.Context(), req); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v, want InvalidArgument", name, err)
		}
	}
}

func TestBookForgetsTheOldest(t *testing.T) {
	b := newBook(3)
	for i := range 5 {
		b.add(&ordersv1.Order{OrderId: fmt.Sprint(i)})
	}
	for i := range 5 {
		if _, ok := b.get(fmt.Sprint(i)); ok != (i >= 2) {
			t.Errorf("order %d: kept %v", i, ok)
		}
	}
	if len(b.orders) != 3 {
		t.Errorf("%d orders kept, want 3", len(b.orders))
	}
}
