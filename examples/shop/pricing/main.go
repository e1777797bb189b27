// Command pricing knows what the shop's products cost.
package main

import (
	"context"
	"flag"

	"google.golang.org/grpc"

	"github.com/stile-ipc/stile/examples/shop/internal/rpc"
	"github.com/stile-ipc/stile/examples/shop/internal/seed"
	pricingv1 "github.com/stile-ipc/stile/examples/shop/proto/shop/pricing/v1"
)

func main() {
	cfg := rpc.Flags("127.0.0.1:7103")
	products := flag.Int("products", 200, "how many products the price list has")
	rpc.Main("pricing", cfg, func(ctx context.Context) error {
		return rpc.Serve(ctx, cfg, func(r grpc.ServiceRegistrar) {
			pricingv1.RegisterPricingServiceServer(r, newServer(seed.Products(*products)))
		})
	})
}
