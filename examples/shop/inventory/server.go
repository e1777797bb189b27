package main

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	inventoryv1 "github.com/stile-ipc/stile/examples/shop/proto/shop/inventory/v1"
)

const (
	maxItems    = 50
	maxQuantity = 1000
)

type server struct {
	inventoryv1.UnimplementedInventoryServiceServer
	store *store
}

func (s *server) GetStock(ctx context.Context, req *inventoryv1.GetStockRequest) (*inventoryv1.GetStockResponse, error) {
	available, err := s.store.available(ctx, req.GetSku())
	if err != nil {
		return nil, statusOf(ctx, err)
	}
	return &inventoryv1.GetStockResponse{Available: available}, nil
}

func (s *server) Reserve(ctx context.Context, req *inventoryv1.ReserveRequest) (*inventoryv1.ReserveResponse, error) {
	if err := validate(req); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if err := s.store.reserve(ctx, req.GetReservationId(), req.GetItems()); err != nil {
		return nil, statusOf(ctx, err)
	}
	return &inventoryv1.ReserveResponse{}, nil
}

func (s *server) Release(ctx context.Context, req *inventoryv1.ReleaseRequest) (*inventoryv1.ReleaseResponse, error) {
	if req.GetReservationId() == "" {
		return nil, status.Error(codes.InvalidArgument, "reservation_id is empty")
	}
	if err := s.store.release(ctx, req.GetReservationId()); err != nil {
		return nil, statusOf(ctx, err)
	}
	return &inventoryv1.ReleaseResponse{}, nil
}

func statusOf(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, errNoProduct):
		return status.Error(codes.NotFound, err.Error())
	case errors.Is(err, errTooLittle):
		return status.Error(codes.FailedPrecondition, err.Error())
	case ctx.Err() != nil:
		return status.FromContextError(ctx.Err()).Err()
	default:
		return status.Errorf(codes.Internal, "inventory store: %v", err)
	}
}
