// Command gateway is the shop's front door: HTTP and JSON outside, gRPC inside.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"google.golang.org/grpc"

	"github.com/stile-ipc/stile/examples/shop/internal/rpc"
	catalogv1 "github.com/stile-ipc/stile/examples/shop/proto/shop/catalog/v1"
	inventoryv1 "github.com/stile-ipc/stile/examples/shop/proto/shop/inventory/v1"
	ordersv1 "github.com/stile-ipc/stile/examples/shop/proto/shop/orders/v1"
	pricingv1 "github.com/stile-ipc/stile/examples/shop/proto/shop/pricing/v1"
)

func main() {
	cfg := rpc.Flags("127.0.0.1:7100")
	catalog := flag.String("catalog", rpc.Env("SHOP_CATALOG", "127.0.0.1:7101"), "`target` of catalog (SHOP_CATALOG)")
	inventory := flag.String("inventory", rpc.Env("SHOP_INVENTORY", "127.0.0.1:7102"), "`target` of inventory (SHOP_INVENTORY)")
	pricing := flag.String("pricing", rpc.Env("SHOP_PRICING", "127.0.0.1:7103"), "`target` of pricing (SHOP_PRICING)")
	orders := flag.String("orders", rpc.Env("SHOP_ORDERS", "127.0.0.1:7104"), "`target` of orders (SHOP_ORDERS)")
	timeout := flag.Duration("timeout", 5*time.Second, "how long a request may take")
	rpc.Main("gateway", cfg, func(ctx context.Context) error {
		catalogConn, err := rpc.Dial(cfg, *catalog)
		if err != nil {
			return fmt.Errorf("dial catalog: %w", err)
		}
		defer catalogConn.Close()
		inventoryConn, err := rpc.Dial(cfg, *inventory)
		if err != nil {
			return fmt.Errorf("dial inventory: %w", err)
		}
		defer inventoryConn.Close()
		pricingConn, err := rpc.Dial(cfg, *pricing)
		if err != nil {
			return fmt.Errorf("dial pricing: %w", err)
		}
		defer pricingConn.Close()
		ordersConn, err := rpc.Dial(cfg, *orders)
		if err != nil {
			return fmt.Errorf("dial orders: %w", err)
		}
		defer ordersConn.Close()

		api := &api{
			catalog:   catalogv1.NewCatalogServiceClient(catalogConn),
			inventory: inventoryv1.NewInventoryServiceClient(inventoryConn),
			pricing:   pricingv1.NewPricingServiceClient(pricingConn),
			orders:    ordersv1.NewOrdersServiceClient(ordersConn),
			timeout:   *timeout,
			services: map[string]*grpc.ClientConn{
				"catalog": catalogConn, "inventory": inventoryConn, "pricing": pricingConn, "orders": ordersConn,
			},
		}
		return serve(ctx, cfg, api.routes())
	})
}

// serve is rpc.Serve for HTTP.
func serve(ctx context.Context, cfg *rpc.Config, handler http.Handler) error {
	srv := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 15 * time.Second, IdleTimeout: time.Minute}
	lis, err := rpc.Listen(cfg.Listen)
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(lis) }()
	if err := rpc.Ready(lis); err != nil {
		_ = srv.Close()
		<-served
		return err
	}

	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	slog.Info("draining", "limit", cfg.Drain)
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), cfg.Drain)
	defer cancel()
	if err := srv.Shutdown(limit); err != nil {
		_ = srv.Close()
		slog.Warn("requests were cut off", "error", err)
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	slog.Info("stopped")
	return nil
}
