package main

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	catalogv1 "github.com/stile-ipc/stile/examples/shop/proto/shop/catalog/v1"
)

const (
	defaultLimit = 20
	maxLimit     = 100
)

type server struct {
	catalogv1.UnimplementedCatalogServiceServer
	store *store
}

func (s *server) ListProducts(ctx context.Context, req *catalogv1.ListProductsRequest) (*catalogv1.ListProductsResponse, error) {
	limit := int(req.GetLimit())
	switch {
	case limit < 0:
		return nil, status.Errorf(codes.InvalidArgument, "limit %d is negative", limit)
	case limit == 0:
		limit = defaultLimit
	case limit > maxLimit:
		limit = maxLimit
	}
	products, err := s.store.list(ctx, limit)
	if err != nil {
		return nil, storeError(ctx, err)
	}
	return &catalogv1.ListProductsResponse{Products: products}, nil
}

func (s *server) GetProduct(ctx context.Context, req *catalogv1.GetProductRequest) (*catalogv1.GetProductResponse, error) {
	products, err := s.find(ctx, []string{req.GetSku()})
	if err != nil {
		return nil, err
	}
	return &catalogv1.GetProductResponse{Product: products[0]}, nil
}

func (s *server) GetProducts(ctx context.Context, req *catalogv1.GetProductsRequest) (*catalogv1.GetProductsResponse, error) {
	if n := len(req.GetSkus()); n == 0 || n > maxLimit {
		return nil, status.Errorf(codes.InvalidArgument, "%d skus, want 1 to %d", n, maxLimit)
	}
	products, err := s.find(ctx, req.GetSkus())
	if err != nil {
		return nil, err
	}
	return &catalogv1.GetProductsResponse{Products: products}, nil
}

func (s *server) find(ctx context.Context, skus []string) ([]*catalogv1.Product, error) {
	found, err := s.store.get(ctx, skus)
	if err != nil {
		return nil, storeError(ctx, err)
	}
	products := make([]*catalogv1.Product, len(skus))
	for i, sku := range skus {
		if sku == "" {
			return nil, status.Error(codes.InvalidArgument, "sku is empty")
		}
		if products[i] = found[sku]; products[i] == nil {
			return nil, status.Errorf(codes.NotFound, "no product %q", sku)
		}
	}
	return products, nil
}

// storeError tells a caller that gave up from a database that failed.
func storeError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return status.FromContextError(ctx.Err()).Err()
	}
	return status.Errorf(codes.Internal, "catalog store: %v", err)
}
