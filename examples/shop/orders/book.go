package main

import (
	"sync"

	ordersv1 "github.com/stile-ipc/stile/examples/shop/proto/shop/orders/v1"
)

// book keeps the newest orders. It is safe for concurrent use; the orders in
// it are not changed any more.
type book struct {
	mu     sync.Mutex
	orders map[string]*ordersv1.Order
	ids    []string // a ring: next is the oldest once it is full
	next   int
}

func newBook(keep int) *book {
	return &book{orders: make(map[string]*ordersv1.Order), ids: make([]string, max(keep, 1))}
}

func (b *book) add(order *ordersv1.Order) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.orders, b.ids[b.next])
	b.orders[order.GetOrderId()] = order
	b.ids[b.next] = order.GetOrderId()
	b.next = (b.next + 1) % len(b.ids)
}

func (b *book) get(id string) (*ordersv1.Order, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	order, ok := b.orders[id]
	return order, ok
}
