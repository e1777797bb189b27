package main

import (
	"net/http"
	"strconv"

	"golang.org/x/sync/errgroup"

	catalogv1 "github.com/stile-ipc/stile/examples/shop/proto/shop/catalog/v1"
	inventoryv1 "github.com/stile-ipc/stile/examples/shop/proto/shop/inventory/v1"
	pricingv1 "github.com/stile-ipc/stile/examples/shop/proto/shop/pricing/v1"
)

const maxProducts = 100

type productSummary struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	Category   string `json:"category"`
	PriceCents int64  `json:"price_cents"`
}

type productList struct {
	Products []productSummary `json:"products"`
}

type productPage struct {
	productSummary
	Description string `json:"description"`
	Thumbnail   []byte `json:"thumbnail"`
	Available   int64  `json:"available"`
}

func (a *api) listProducts(r *http.Request) (int, any, error) {
	limit, err := parseLimit(r.URL.Query().Get("limit"))
	if err != nil {
		return 0, nil, err
	}
	listed, err := a.catalog.ListProducts(r.Context(), &catalogv1.ListProductsRequest{Limit: limit})
	if err != nil {
		return 0, nil, err
	}
	list := productList{Products: []productSummary{}}
	for _, p := range listed.GetProducts() {
		price, err := a.pricing.GetPrice(r.Context(), &pricingv1.GetPriceRequest{Sku: p.GetSku()})
		if err != nil {
			return 0, nil, err
		}
		list.Products = append(list.Products, summary(p, price))
	}
	return http.StatusOK, list, nil
}

func (a *api) getProduct(r *http.Request) (int, any, error) {
	sku := r.PathValue("id")
	var (
		product *catalogv1.GetProductResponse
		price   *pricingv1.GetPriceResponse
		stock   *inventoryv1.GetStockResponse
	)
	group, ctx := errgroup.WithContext(r.Context())
	group.Go(func() (err error) {
		product, err = a.catalog.GetProduct(ctx, &catalogv1.GetProductRequest{Sku: sku})
		return err
	})
	group.Go(func() (err error) {
		price, err = a.pricing.GetPrice(ctx, &pricingv1.GetPriceRequest{Sku: sku})
		return err
	})
	group.Go(func() (err error) {
		stock, err = a.inventory.GetStock(ctx, &inventoryv1.GetStockRequest{Sku: sku})
		return err
	})
	if err := group.Wait(); err != nil {
		return 0, nil, err
	}
	p := product.GetProduct()
	return http.StatusOK, productPage{
		productSummary: summary(p, price),
		Description:    p.GetDescription(),
		Thumbnail:      p.GetThumbnail(),
		Available:      stock.GetAvailable(),
	}, nil
}

func summary(p *catalogv1.Product, price *pricingv1.GetPriceResponse) productSummary {
	return productSummary{ID: p.GetSku(), Name: p.GetName(), Category: p.GetCategory(), PriceCents: price.GetUnitCents()}
}

// parseLimit returns 0, which leaves it to the catalog, where none is given.
func parseLimit(text string) (int32, error) {
	if text == "" {
		return 0, nil
	}
	limit, err := strconv.Atoi(text)
	if err != nil || limit < 1 || limit > maxProducts {
		return 0, badRequest("limit is %q, want a number from 1 to %d", text, maxProducts)
	}
	return int32(limit), nil
}
