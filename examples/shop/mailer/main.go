// Command mailer writes e-mail to the shop's customers.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"google.golang.org/grpc"

	"github.com/stile-ipc/stile/examples/shop/internal/rpc"
	mailerv1 "github.com/stile-ipc/stile/examples/shop/proto/shop/mailer/v1"
)

func main() {
	cfg := rpc.Flags("127.0.0.1:7105")
	s := &server{}
	flag.StringVar(&s.outbox, "outbox", rpc.Env("SHOP_OUTBOX", ""), "`folder` to deliver messages to; empty delivers to nobody (SHOP_OUTBOX)")
	flag.DurationVar(&s.delay, "delay", 0, "how long the next mail server takes to accept a message")
	folder := flag.String("queue", rpc.Env("SHOP_QUEUE", ""), "`folder` of the queue of orders, to hear of placed orders instead of being called (SHOP_QUEUE)")
	rpc.Main("mailer", cfg, func(ctx context.Context) error {
		if s.outbox != "" {
			if err := os.MkdirAll(s.outbox, 0o700); err != nil {
				return fmt.Errorf("make outbox: %w", err)
			}
		}
		if *folder != "" {
			return s.serveQueue(ctx, cfg, *folder)
		}
		return rpc.Serve(ctx, cfg, func(r grpc.ServiceRegistrar) {
			mailerv1.RegisterMailerServiceServer(r, s)
		})
	})
}
