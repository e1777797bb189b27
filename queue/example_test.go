package queue_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/stile-ipc/stile/queue"
)

// A topic in a folder: a message is published, handled, and, when it cannot be, found among the dead letters.
func Example() {
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
	orders, err := queue.NewTopic[*wrapperspb.StringValue](q, "orders")
	if err != nil {
		log.Fatal(err)
	}
	receipt, err := orders.Publish(ctx, wrapperspb.String("two lamps"), queue.ID("order-1"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("kept as", receipt.Sequence)

	handled := make(chan string)
	sub, err := orders.Subscribe(ctx, "billing", func(_ context.Context, m *queue.Msg[*wrapperspb.StringValue]) error {
		handled <- m.ID
		return queue.Reject(errors.New("no such street"), "bad address")
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("handled", <-handled)
	if err := sub.Drain(ctx); err != nil {
		log.Fatal(err)
	}
	dead, err := orders.DeadLetters("billing").List(ctx, 10, nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("dead:", dead[0].ID, dead[0].Reason, dead[0].Error)
	// Output:
	// kept as 1
	// handled order-1
	// dead: order-1 bad address no such street
}

// The handler's effects are in the inbox's transaction, so that they happen once.
func ExampleOnce() {
	charge := func(ctx context.Context, m *queue.Msg[*wrapperspb.StringValue]) error {
		_, err := queue.Tx(ctx).ExecContext(ctx, "INSERT INTO charges (invoice) VALUES (?)", m.ID)
		return err
	}
	subscribe := func(ctx context.Context, topic *queue.Topic[*wrapperspb.StringValue], inbox *queue.SQLInbox) (*queue.Subscription, error) {
		return topic.Subscribe(ctx, "billing", charge, queue.Once(inbox), queue.Retry(5, time.Second, time.Minute))
	}
	_ = subscribe
}

// An order and the message that tells of it are kept together, or neither is.
func ExampleOutbox() {
	place := func(ctx context.Context, db *sql.DB, outbox *queue.Outbox[*wrapperspb.StringValue], id string) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		if _, err := tx.ExecContext(ctx, "INSERT INTO orders (id) VALUES (?)", id); err != nil {
			return err
		}
		if err := outbox.Publish(ctx, tx, wrapperspb.String(id), queue.ID(id)); err != nil {
			return err
		}
		return tx.Commit()
	}
	_ = place // with the outbox that NewOutbox(ctx, db, queue.SQLite, orders, "") returns
}
