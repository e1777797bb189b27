package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/mail"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	inventoryv1 "github.com/stile-ipc/stile/examples/shop/proto/shop/inventory/v1"
	mailerv1 "github.com/stile-ipc/stile/examples/shop/proto/shop/mailer/v1"
	ordersv1 "github.com/stile-ipc/stile/examples/shop/proto/shop/orders/v1"
	pricingv1 "github.com/stile-ipc/stile/examples/shop/proto/shop/pricing/v1"
)

const (
	maxItems     = 50
	maxQuantity  = 1000
	releaseLimit = 2 * time.Second
)

type server struct {
	ordersv1.UnimplementedOrdersServiceServer
	inventory inventoryv1.InventoryServiceClient
	pricing   pricingv1.PricingServiceClient
	mailer    mailerv1.MailerServiceClient // called if there is no store
	store     *store
	book      *book
}

func (s *server) PlaceOrder(ctx context.Context, req *ordersv1.PlaceOrderRequest) (*ordersv1.PlaceOrderResponse, error) {
	if err := validate(req); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	id := orderID()
	if err := s.reserve(ctx, id, req.GetItems()); err != nil {
		if status.Code(err) != codes.FailedPrecondition && status.Code(err) != codes.NotFound {
			s.release(ctx, id)
		}
		return nil, err
	}
	quote, err := s.quote(ctx, req.GetItems())
	if err != nil {
		s.release(ctx, id)
		return nil, err
	}
	order := newOrder(id, req, quote)
	if err := s.record(ctx, order, req.GetItems()); err != nil {
		s.release(ctx, id)
		return nil, status.Errorf(codes.Unavailable, "record the order: %v", err)
	}
	s.book.add(order)
	return &ordersv1.PlaceOrderResponse{Order: order}, nil
}

func (s *server) GetOrder(ctx context.Context, req *ordersv1.GetOrderRequest) (*ordersv1.GetOrderResponse, error) {
	order, ok := s.book.get(req.GetOrderId())
	if !ok && s.store != nil {
		var err error
		if order, err = s.store.get(ctx, req.GetOrderId()); err != nil {
			return nil, status.Errorf(codes.Unavailable, "read the order: %v", err)
		}
	}
	if order == nil {
		return nil, status.Errorf(codes.NotFound, "no order %q", req.GetOrderId())
	}
	return &ordersv1.GetOrderResponse{Order: order}, nil
}

func (s *server) reserve(ctx context.Context, id string, items []*ordersv1.OrderItem) error {
	req := &inventoryv1.ReserveRequest{ReservationId: id}
	for _, item := range items {
		req.Items = append(req.Items, &inventoryv1.Item{Sku: item.GetSku(), Quantity: item.GetQuantity()})
	}
	_, err := s.inventory.Reserve(ctx, req)
	return err
}

// release runs to its end even if the caller has gone: stock must not stay
// held for an order that does not exist.
func (s *server) release(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseLimit)
	defer cancel()
	if _, err := s.inventory.Release(ctx, &inventoryv1.ReleaseRequest{ReservationId: id}); err != nil {
		slog.Error("stock stays reserved", "order", id, "error", err)
	}
}

func (s *server) quote(ctx context.Context, items []*ordersv1.OrderItem) (*pricingv1.QuoteResponse, error) {
	req := &pricingv1.QuoteRequest{}
	for _, item := range items {
		req.Items = append(req.Items, &pricingv1.QuoteItem{Sku: item.GetSku(), Quantity: item.GetQuantity()})
	}
	quote, err := s.pricing.Quote(ctx, req)
	if err != nil {
		return nil, err
	}
	if len(quote.GetLines()) != len(items) {
		return nil, status.Errorf(codes.Internal, "pricing quoted %d of %d items", len(quote.GetLines()), len(items))
	}
	return quote, nil
}

// record sees that the customer gets an e-mail: by a message that is kept together with the order, or by a call. What is begun
// is finished, even if the caller has gone: an order is either there or not.
func (s *server) record(ctx context.Context, order *ordersv1.Order, items []*ordersv1.OrderItem) error {
	if s.store != nil {
		return s.store.place(context.WithoutCancel(ctx), order, items)
	}
	s.confirm(ctx, order, items)
	return nil
}

// confirm does not fail the order: it is placed whether or not the e-mail goes out.
func (s *server) confirm(ctx context.Context, order *ordersv1.Order, items []*ordersv1.OrderItem) {
	req := &mailerv1.SendOrderConfirmationRequest{
		To: order.GetCustomer(), OrderId: order.GetOrderId(), TotalCents: order.GetTotalCents(),
	}
	for i, line := range order.GetLines() {
		req.Lines = append(req.Lines, &mailerv1.ConfirmationLine{
			Name: line.GetName(), Quantity: line.GetQuantity(), AmountCents: line.GetAmountCents(), Thumbnail: items[i].GetThumbnail(),
		})
	}
	if _, err := s.mailer.SendOrderConfirmation(ctx, req); err != nil {
		slog.Warn("order not confirmed", "order", order.GetOrderId(), "error", err)
	}
}

func newOrder(id string, req *ordersv1.PlaceOrderRequest, quote *pricingv1.QuoteResponse) *ordersv1.Order {
	order := &ordersv1.Order{OrderId: id, Customer: req.GetCustomer(), TotalCents: quote.GetTotalCents()}
	for i, item := range req.GetItems() {
		order.Lines = append(order.Lines, &ordersv1.OrderLine{
			Sku: item.GetSku(), Name: item.GetName(), Quantity: item.GetQuantity(), AmountCents: quote.GetLines()[i].GetAmountCents(),
		})
	}
	return order
}

func validate(req *ordersv1.PlaceOrderRequest) error {
	if req.GetCustomer() == "" {
		return errors.New("customer is empty")
	}
	if _, err := mail.ParseAddress(req.GetCustomer()); err != nil {
		return fmt.Errorf("customer is not an e-mail address: %w", err)
	}
	if n := len(req.GetItems()); n == 0 || n > maxItems {
		return fmt.Errorf("%d items, want 1 to %d", n, maxItems)
	}
	seen := make(map[string]bool, len(req.GetItems()))
	for _, item := range req.GetItems() {
		if item.GetSku() == "" {
			return errors.New("an item has no sku")
		}
		if q := item.GetQuantity(); q < 1 || q > maxQuantity {
			return fmt.Errorf("quantity %d of %q, want 1 to %d", q, item.GetSku(), maxQuantity)
		}
		if seen[item.GetSku()] {
			return fmt.Errorf("product %q is listed twice", item.GetSku())
		}
		seen[item.GetSku()] = true
	}
	return nil
}

func orderID() string {
	var id [12]byte
	_, _ = rand.Read(id[:]) // never fails
	return "order-" + hex.EncodeToString(id[:])
}
