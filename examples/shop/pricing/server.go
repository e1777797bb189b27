package main

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/stile-ipc/stile/examples/shop/internal/seed"
	pricingv1 "github.com/stile-ipc/stile/examples/shop/proto/shop/pricing/v1"
)

const (
	maxItems    = 100
	maxQuantity = 1000
)

// server answers from a price list that does not change while it runs.
type server struct {
	pricingv1.UnimplementedPricingServiceServer
	unitCents map[string]int64
}

func newServer(products []seed.Product) *server {
	s := &server{unitCents: make(map[string]int64, len(products))}
	for _, p := range products {
		s.unitCents[p.SKU] = p.UnitCents
	}
	return s
}

func (s *server) GetPrice(_ context.Context, req *pricingv1.GetPriceRequest) (*pricingv1.GetPriceResponse, error) {
	unit, err := s.price(req.GetSku())
	if err != nil {
		return nil, err
	}
	return &pricingv1.GetPriceResponse{UnitCents: unit}, nil
}

func (s *server) Quote(_ context.Context, req *pricingv1.QuoteRequest) (*pricingv1.QuoteResponse, error) {
	if n := len(req.GetItems()); n == 0 || n > maxItems {
		return nil, status.Errorf(codes.InvalidArgument, "%d items, want 1 to %d", n, maxItems)
	}
	resp := &pricingv1.QuoteResponse{}
	for _, item := range req.GetItems() {
		if q := item.GetQuantity(); q < 1 || q > maxQuantity {
			return nil, status.Errorf(codes.InvalidArgument, "quantity %d of %q, want 1 to %d", q, item.GetSku(), maxQuantity)
		}
		unit, err := s.price(item.GetSku())
		if err != nil {
			return nil, err
		}
		amount := discounted(unit*item.GetQuantity(), item.GetQuantity())
		resp.TotalCents += amount
		resp.Lines = append(resp.Lines, &pricingv1.QuotedLine{
			Sku: item.GetSku(), Quantity: item.GetQuantity(), UnitCents: unit, AmountCents: amount,
		})
	}
	return resp, nil
}

func (s *server) price(sku string) (int64, error) {
	if sku == "" {
		return 0, status.Error(codes.InvalidArgument, "sku is empty")
	}
	unit, ok := s.unitCents[sku]
	if !ok {
		return 0, status.Errorf(codes.NotFound, "no price for product %q", sku)
	}
	return unit, nil
}

// discounted takes 5 % off from 10 units and 10 % from 100, rounded down.
func discounted(cents, quantity int64) int64 {
	switch {
	case quantity >= 100:
		return cents * 90 / 100
	case quantity >= 10:
		return cents * 95 / 100
	default:
		return cents
	}
}
