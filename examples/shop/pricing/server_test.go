package main

import (
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/stile-ipc/stile/examples/shop/internal/seed"
	pricingv1 "github.com/stile-ipc/stile/examples/shop/proto/shop/pricing/v1"
)

func TestQuote(t *testing.T) {
	s := newServer([]seed.Product{{SKU: "a", UnitCents: 999}, {SKU: "b", UnitCents: 50}})
	quote, err := s.Quote(t.Context(), &pricingv1.QuoteRequest{Items: []*pricingv1.QuoteItem{
		{Sku: "a", Quantity: 9}, {Sku: "a", Quantity: 10}, {Sku: "b", Quantity: 100},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []int64{8991, 9490, 4500} {
		if got := quote.GetLines()[i].GetAmountCents(); got != want {
			t.Errorf("line %d costs %d, want %d", i, got, want)
		}
	}
	if quote.GetTotalCents() != 8991+9490+4500 {
		t.Errorf("total %d", quote.GetTotalCents())
	}
}

func TestQuoteRefuses(t *testing.T) {
	s := newServer([]seed.Product{{SKU: "a", UnitCents: 999}})
	for name, c := range map[string]struct {
		items []*pricingv1.QuoteItem
		want  codes.Code
	}{
		"nothing":   {nil, codes.InvalidArgument},
		"no sku":    {[]*pricingv1.QuoteItem{{Quantity: 1}}, codes.InvalidArgument},
		"unknown":   {[]*pricingv1.QuoteItem{{Sku: "z", Quantity: 1}}, codes.NotFound},
		"none of a": {[]*pricingv1.QuoteItem{{Sku: "a"}}, codes.InvalidArgument},
		"too many":  {[]*pricingv1.QuoteItem{{Sku: "a", Quantity: 1001}}, codes.InvalidArgument},
	} {
		if _, err := s.Quote(t.Context(), &pricingv1.QuoteRequest{Items: c.items}); status.Code(err) != c.want {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}
