// Package queue has durable typed topics on NATS JetStream: embedded in the process, on one folder, or on a cluster.
//
//	q, err := queue.Open(ctx, queue.Config{Dir: "data"})
//	orders, err := queue.NewTopic[*ordersv1.Placed](q, "orders")
//	receipt, err := orders.Publish(ctx, &ordersv1.Placed{…}, queue.ID(requestID))
//	sub, err := orders.Subscribe(ctx, "billing", func(ctx context.Context, m *queue.Msg[*ordersv1.Placed]) error { … })
//
// A receipt says that the message is kept as the topic's [Durability] has it. A message is delivered to each group of
// subscribers until a handler of the group returns nil for it, which after a crash can be more than once.
//
// A topic is a stream of the same name, in which dots are ~: any NATS client can read it.
package queue
