package queue_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/stile-ipc/stile/queue"
)

// A reminder that is delayed, and one that is taken back.
func ExampleDelay() {
	dir, err := os.MkdirTemp("", "queue")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ctx := context.Background()
	q, err := queue.Open(ctx, queue.Config{Dir: dir})
	if err != nil {
		log.Fatal(err)
	}
	defer q.Close()
	reminders, err := queue.NewTopic[*wrapperspb.StringValue](q, "reminders")
	if err != nil {
		log.Fatal(err)
	}
	for id, delay := range map[string]time.Duration{"pay": 100 * time.Millisecond, "renew": 30 * 24 * time.Hour} {
		if _, err := reminders.Publish(ctx, wrapperspb.String(id), queue.ID(id), queue.Delay(delay)); err != nil {
			log.Fatal(err)
		}
	}
	done, err := reminders.Cancel(ctx, "renew")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("cancelled:", done)
	came := make(chan string)
	sub, err := reminders.Subscribe(ctx, "mailer", func(_ context.Context, m *queue.Msg[*wrapperspb.StringValue]) error {
		came <- m.ID
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("due:", <-came)
	if err := sub.Drain(ctx); err != nil {
		log.Fatal(err)
	}
	// Output:
	// cancelled: true
	// due: pay
}

// A handler that writes many rows at once and tells which of them cannot be.
func ExampleTopic_SubscribeBatch() {
	insert := func(m *queue.Msg[*wrapperspb.StringValue]) error { return nil }
	export := func(ctx context.Context, ms []*queue.Msg[*wrapperspb.StringValue]) error {
		errs := map[int]error{}
		for i, m := range ms {
			if err := insert(m); err != nil {
				errs[i] = queue.Reject(err, "no such column")
			}
		}
		return queue.Failed(errs)
	}
	subscribe := func(ctx context.Context, topic *queue.Topic[*wrapperspb.StringValue]) (*queue.Subscription, error) {
		return topic.SubscribeBatch(ctx, "export", export, queue.Latency(50*time.Millisecond), queue.BatchSize(1000, 4<<20))
	}
	_ = subscribe
}
