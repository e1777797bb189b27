// Command catalog serves the descriptions of what the shop sells, from SQLite.
package main

import (
	"context"
	"flag"

	"google.golang.org/grpc"

	"github.com/stile-ipc/stile/examples/shop/internal/rpc"
	"github.com/stile-ipc/stile/examples/shop/internal/seed"
	catalogv1 "github.com/stile-ipc/stile/examples/shop/proto/shop/catalog/v1"
)

func main() {
	cfg := rpc.Flags("127.0.0.1:7101")
	path := flag.String("db", rpc.Env("SHOP_CATALOG_DB", "catalog.db"), "SQLite `file` (SHOP_CATALOG_DB)")
	products := flag.Int("products", 200, "how many products to put into an empty database")
	rpc.Main("catalog", cfg, func(ctx context.Context) error {
		store, err := openStore(ctx, *path)
		if err != nil {
			return err
		}
		defer store.close()
		if err := store.seed(ctx, seed.Products(*products)); err != nil {
			return err
		}
		return rpc.Serve(ctx, cfg, func(r grpc.ServiceRegistrar) {
			catalogv1.RegisterCatalogServiceServer(r, &server{store: store})
		})
	})
}
