// Package events has the topics in which the shop's programs tell each other what has happened.
package events

import (
	ordersv1 "github.com/stile-ipc/stile/examples/shop/proto/shop/orders/v1"
	"github.com/stile-ipc/stile/queue"
)

// OrdersPlaced is the topic of orders that were placed.
func OrdersPlaced(q *queue.Queue) (*queue.Topic[*ordersv1.OrderPlaced], error) {
	return queue.NewTopic[*ordersv1.OrderPlaced](q, "orders.placed")
}
