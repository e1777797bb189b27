package main

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/mail"

	catalogv1 "github.com/stile-ipc/stile/examples/shop/proto/shop/catalog/v1"
	ordersv1 "github.com/stile-ipc/stile/examples/shop/proto/shop/orders/v1"
)

const (
	maxBody     = 64 << 10
	maxItems    = 50
	maxQuantity = 1000
)

type orderRequest struct {
	Customer string      `json:"customer"`
	Items    []orderItem `json:"items"`
}

type orderItem struct {
	ID       string `json:"id"`
	Quantity int64  `json:"quantity"`
}

type orderPage struct {
	ID         string      `json:"id"`
	Customer   string      `json:"customer"`
	Lines      []orderLine `json:"lines"`
	TotalCents int64       `json:"total_cents"`
}

type orderLine struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	Quantity    int64  `json:"quantity"`
	AmountCents int64  `json:"amount_cents"`
}

func (a *api) placeOrder(r *http.Request) (int, any, error) {
	wanted, err := parseOrder(r.Body)
	if err != nil {
		return 0, nil, err
	}
	skus := make([]string, len(wanted.Items))
	for i, item := range wanted.Items {
		skus[i] = item.ID
	}
	found, err := a.catalog.GetProducts(r.Context(), &catalogv1.GetProductsRequest{Skus: skus})
	if err != nil {
		return 0, nil, err
	}
	req := &ordersv1.PlaceOrderRequest{Customer: wanted.Customer}
	for i, p := range found.GetProducts() {
		req.Items = append(req.Items, &ordersv1.OrderItem{
			Sku: p.GetSku(), Quantity: wanted.Items[i].Quantity, Name: p.GetName(), Thumbnail: p.GetThumbnail(),
		})
	}
	placed, err := a.orders.PlaceOrder(r.Context(), req)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusCreated, pageOf(placed.GetOrder()), nil
}

func (a *api) getOrder(r *http.Request) (int, any, error) {
	resp, err := a.orders.GetOrder(r.Context(), &ordersv1.GetOrderRequest{OrderId: r.PathValue("id")})
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, pageOf(resp.GetOrder()), nil
}

func pageOf(order *ordersv1.Order) orderPage {
	page := orderPage{ID: order.GetOrderId(), Customer: order.GetCustomer(), TotalCents: order.GetTotalCents()}
	for _, line := range order.GetLines() {
		page.Lines = append(page.Lines, orderLine{
			ID: line.GetSku(), Name: line.GetName(), Quantity: line.GetQuantity(), AmountCents: line.GetAmountCents(),
		})
	}
	return page
}

func parseOrder(body io.Reader) (*orderRequest, error) {
	decoder := json.NewDecoder(body)
	decoder.DisallowUnknownFields()
	order := &orderRequest{}
	if err := decoder.Decode(order); err != nil {
		if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
			return nil, &httpError{http.StatusRequestEntityTooLarge, "INVALID_ARGUMENT", "the body is larger than 64 KiB"}
		}
		return nil, badRequest("the body is not an order: %v", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, badRequest("there is more after the order")
	}
	return order, order.validate()
}

func (o *orderRequest) validate() error {
	if o.Customer == "" {
		return badRequest("customer is missing")
	}
	if _, err := mail.ParseAddress(o.Customer); err != nil {
		return badRequest("customer %q is not an e-mail address", o.Customer)
	}
	if n := len(o.Items); n == 0 || n > maxItems {
		return badRequest("%d items, want 1 to %d", n, maxItems)
	}
	seen := make(map[string]bool, len(o.Items))
	for i, item := range o.Items {
		if item.ID == "" {
			return badRequest("items[%d] has no id", i)
		}
		if item.Quantity < 1 || item.Quantity > maxQuantity {
			return badRequest("quantity of %q is %d, want 1 to %d", item.ID, item.Quantity, maxQuantity)
		}
		if seen[item.ID] {
			return badRequest("%q is listed twice", item.ID)
		}
		seen[item.ID] = true
	}
	return nil
}
