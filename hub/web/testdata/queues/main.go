// Queues has an embedded queue with dead letters, and tells a hub of it: queues HUB FOLDER. It says "ready" when it has, handles all from the line "mend" on, publishes
// a message for each other line, and ends with its input.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/stile-ipc/stile"
	"github.com/stile-ipc/stile/queue"
)

type text = *wrapperspb.StringValue

func main() {
	if err := run(context.Background(), os.Args[1], os.Args[2]); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, hub, dir string) error {
	stop, err := stile.ReportTo(hub)
	if err != nil {
		return err
	}
	defer stop(ctx)
	q, err := queue.Open(ctx, queue.Config{Dir: dir})
	if err != nil {
		return err
	}
	defer q.Close()
	return serve(ctx, q)
}

const letters = 7

func serve(ctx context.Context, q *queue.Queue) error {
	orders, err := queue.NewTopic[text](q, "orders.placed", queue.KeyBy(func(m text) string { return "customer-" + m.GetValue()[:1] }))
	if err != nil {
		return err
	}
	unread, err := queue.NewTopic[text](q, "unread", queue.Keep(time.Hour, 16<<10))
	for err == nil {
		_, err = unread.Publish(ctx, wrapperspb.String("until it is full"))
	}
	if !errors.Is(err, queue.ErrFull) {
		return err
	}
	var mended atomic.Bool
	billing, err := orders.Subscribe(ctx, "billing", func(_ context.Context, m *queue.Msg[text]) error {
		if !mended.Load() && strings.HasPrefix(m.Value.GetValue(), "bad") {
			return queue.Reject(errors.New(`no such address: <img src=x onerror="alert(1)">`), "bad address")
		}
		return nil
	})
	if err != nil {
		return err
	}
	defer func() { _ = billing.Drain(ctx) }()
	audit, err := orders.Subscribe(ctx, "audit", func(ctx context.Context, _ *queue.Msg[text]) error { <-ctx.Done(); return ctx.Err() }, queue.Workers(1))
	if err != nil {
		return err
	}
	defer func() {
		ended, cancel := context.WithCancel(ctx)
		cancel()
		_ = audit.Drain(ended)
	}()
	for i := range letters {
		if _, err := orders.Publish(ctx, wrapperspb.String(fmt.Sprintf("bad %d <script>alert(1)</script> \u202e\x01", i)), queue.ID(fmt.Sprint("order-", i))); err != nil {
			return err
		}
	}
	for {
		st, err := billing.Stats(ctx)
		if err != nil {
			return err
		}
		if st.Dead == letters {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	fmt.Println("ready")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		if lines.Text() == "mend" {
			mended.Store(true)
			continue
		}
		if _, err := orders.Publish(ctx, wrapperspb.String(lines.Text())); err != nil {
			return err
		}
	}
	return lines.Err()
}
