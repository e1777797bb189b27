package main

import (
	"errors"
	"fmt"

	inventoryv1 "github.com/stile-ipc/stile/examples/shop/proto/shop/inventory/v1"
)

func validate(req *inventoryv1.ReserveRequest) error {
	if req.GetReservationId() == "" {
		return errors.New("reservation_id is empty")
	}
	if n := len(req.GetItems()); n == 0 || n > maxItems {
		return fmt.Errorf("%d items, want 1 to %d", n, maxItems)
	}
	seen := make(map[string]bool, len(req.GetItems()))
	for _, item := range req.GetItems() {
		if q := item.GetQuantity(); q < 1 || q > maxQuantity {
			return fmt.Errorf("quantity %d of %q, want 1 to %d", q, item.GetSku(), maxQuantity)
		}
		if seen[item.GetSku()] {
			return fmt.Errorf("product %q is listed twice", item.GetSku())
		}
		seen[item.GetSku()] = true
	}
	return nil
}
