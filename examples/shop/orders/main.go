// Command orders takes the shop's orders.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"

	"google.golang.org/grpc"

	"github.com/stile-ipc/stile/examples/shop/internal/rpc"
	inventoryv1 "github.com/stile-ipc/stile/examples/shop/proto/shop/inventory/v1"
	mailerv1 "github.com/stile-ipc/stile/examples/shop/proto/shop/mailer/v1"
	ordersv1 "github.com/stile-ipc/stile/examples/shop/proto/shop/orders/v1"
	pricingv1 "github.com/stile-ipc/stile/examples/shop/proto/shop/pricing/v1"
)

func main() {
	cfg := rpc.Flags("127.0.0.1:7104")
	inventory := flag.String("inventory", rpc.Env("SHOP_INVENTORY", "127.0.0.1:7102"), "`target` of inventory (SHOP_INVENTORY)")
	pricing := flag.String("pricing", rpc.Env("SHOP_PRICING", "127.0.0.1:7103"), "`target` of pricing (SHOP_PRICING)")
	mailer := flag.String("mailer", rpc.Env("SHOP_MAILER", "127.0.0.1:7105"), "`target` of mailer (SHOP_MAILER)")
	data := flag.String("data", rpc.Env("SHOP_DATA", ""), "`folder` of orders and their queue, from which mailer hears of them; empty keeps orders in memory and calls mailer (SHOP_DATA)")
	keep := flag.Int("keep", 10_000, "how many orders to keep at hand")
	rpc.Main("orders", cfg, func(ctx context.Context) (err error) {
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
		s := &server{
			inventory: inventoryv1.NewInventoryServiceClient(inventoryConn),
			pricing:   pricingv1.NewPricingServiceClient(pricingConn),
			book:      newBook(*keep),
		}
		if *data != "" {
			if s.store, err = openStore(ctx, *data); err != nil {
				return err
			}
			defer func() { err = errors.Join(err, s.store.close()) }()
		} else {
			mailerConn, err := rpc.Dial(cfg, *mailer)
			if err != nil {
				return fmt.Errorf("dial mailer: %w", err)
			}
			defer mailerConn.Close()
			s.mailer = mailerv1.NewMailerServiceClient(mailerConn)
		}
		return rpc.Serve(ctx, cfg, func(r grpc.ServiceRegistrar) {
			ordersv1.RegisterOrdersServiceServer(r, s)
		})
	})
}
