// Command inventory counts the shop's stock and holds it for orders, in SQLite.
package main

import (
	"context"
	"flag"

	"google.golang.org/grpc"

	"github.com/stile-ipc/stile/examples/shop/internal/rpc"
	inventoryv1 "github.com/stile-ipc/stile/examples/shop/proto/shop/inventory/v1"
)

func main() {
	cfg := rpc.Flags("127.0.0.1:7102")
	path := flag.String("db", rpc.Env("SHOP_INVENTORY_DB", "inventory.db"), "SQLite `file` (SHOP_INVENTORY_DB)")
	products := flag.Int("products", 200, "how many products to put into an empty database")
	stock := flag.Int64("stock", 1_000_000_000, "units of each product to put into an empty database")
	rpc.Main("inventory", cfg, func(ctx context.Context) error {
		store, err := openStore(ctx, *path)
		if err != nil {
			return err
		}
		defer store.close()
		if err := store.seed(ctx, *products, *stock); err != nil {
			return err
		}
		return rpc.Serve(ctx, cfg, func(r grpc.ServiceRegistrar) {
			inventoryv1.RegisterInventoryServiceServer(r, &server{store: store})
		})
	})
}
