package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/stile-ipc/stile/examples/shop/internal/events"
	"github.com/stile-ipc/stile/examples/shop/internal/rpc"
	mailerv1 "github.com/stile-ipc/stile/examples/shop/proto/shop/mailer/v1"
	ordersv1 "github.com/stile-ipc/stile/examples/shop/proto/shop/orders/v1"
	"github.com/stile-ipc/stile/queue"
)

const (
	senders    = 32
	askAgain   = 200 * time.Millisecond // for the queue
	attempts   = 8
	firstWait  = time.Second
	longerWait = time.Minute
)

// serveQueue sends an e-mail for each placed order that the queue of a folder tells of. What it serves is its health.
func (s *server) serveQueue(ctx context.Context, cfg *rpc.Config, folder string) error {
	both, ctx := errgroup.WithContext(ctx)
	both.Go(func() error { return rpc.Serve(ctx, cfg, func(grpc.ServiceRegistrar) {}) })
	both.Go(func() error { return s.follow(ctx, cfg.Drain, folder) })
	return both.Wait()
}

func (s *server) follow(ctx context.Context, drain time.Duration, folder string) (err error) {
	q, sub := s.subscribed(ctx, folder)
	if sub == nil {
		return nil
	}
	defer func() { err = errors.Join(err, q.Close()) }()
	slog.Info("subscribed", "queue", folder)
	<-ctx.Done()
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	if err := sub.Drain(limited); err != nil {
		slog.Warn("orders given back", "error", err)
	}
	return nil
}

// subscribed waits for the program orders, which has the queue, and returns nil only when ctx ends.
func (s *server) subscribed(ctx context.Context, folder string) (*queue.Queue, *queue.Subscription) {
	for vain := 0; ; vain++ {
		q, sub, err := s.subscribe(ctx, folder)
		if err == nil {
			return q, sub
		}
		if vain == 0 {
			slog.Warn("no queue; trying again", "queue", folder, "error", err)
		}
		select {
		case <-time.After(askAgain):
		case <-ctx.Done():
			return nil, nil
		}
	}
}

func (s *server) subscribe(ctx context.Context, folder string) (*queue.Queue, *queue.Subscription, error) {
	folder, err := filepath.Abs(folder)
	if err != nil {
		return nil, nil, err
	}
	q, err := queue.Open(ctx, queue.Config{URL: "unix://" + folder})
	if err != nil {
		return nil, nil, err
	}
	topic, err := events.OrdersPlaced(q)
	if err != nil {
		return nil, nil, errors.Join(err, q.Close())
	}
	// What was fetched is sent also after ctx has ended, hence WithoutCancel.
	sub, err := topic.Subscribe(context.WithoutCancel(ctx), "mailer", s.confirm, queue.Workers(senders), queue.Retry(attempts, firstWait, longerWait))
	if err != nil {
		return nil, nil, errors.Join(err, q.Close())
	}
	return q, sub, nil
}

// confirm sends the e-mail for a placed order. An order that comes again has its e-mail already, for that is named after it.
func (s *server) confirm(ctx context.Context, m *queue.Msg[*ordersv1.OrderPlaced]) error {
	if m.ID != filepath.Base(m.ID) {
		return queue.Reject(nil, "no name for a file")
	}
	ctx, span := rpc.StartMessage(ctx, trace.SpanKindConsumer, m.Topic, "process")
	defer span.End()
	order := m.Value.GetOrder()
	if s.outbox != "" {
		if _, err := os.Stat(s.path(m.ID)); err == nil {
			return nil
		}
	}
	req := &mailerv1.SendOrderConfirmationRequest{To: order.GetCustomer(), OrderId: order.GetOrderId(), TotalCents: order.GetTotalCents()}
	for i, line := range order.GetLines() {
		confirmed := &mailerv1.ConfirmationLine{Name: line.GetName(), Quantity: line.GetQuantity(), AmountCents: line.GetAmountCents()}
		if i < len(m.Value.GetThumbnails()) {
			confirmed.Thumbnail = m.Value.GetThumbnails()[i]
		}
		req.Lines = append(req.Lines, confirmed)
	}
	err := s.send(ctx, m.ID, req)
	if status.Code(err) == codes.InvalidArgument {
		return queue.Reject(err, "no order to confirm")
	}
	return err
}
