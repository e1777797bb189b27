package shoptest_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stile-ipc/stile/examples/shop/shoptest"
	"github.com/stile-ipc/stile/routemap"
)

// TestPlanted: what is known to be wrong with the shop is found and named, and nothing else: by traces all of it, and without any all but what the gateway does in
// a request of HTTP.
func TestPlanted(t *testing.T) {
	const orders, service = "shop.orders.v1.OrdersService/PlaceOrder", "shop.mailer.v1.MailerService/SendOrderConfirmation"
	serial := "serial orders → pricing shop.pricing.v1.PricingService/Quote: shop.inventory.v1.InventoryService/Reserve, shop.pricing.v1.PricingService/Quote"
	unused := "unused orders → mailer " + service + ": "
	hops := []string{"gateway → catalog shop.catalog.v1.CatalogService/GetProducts (answer)", "gateway → orders " + orders, "orders → mailer " + service}
	for name, c := range map[string]struct {
		traces bool
		want   []string
	}{
		"alone":         {false, []string{"carried orders → mailer " + service + ": " + strings.Join(hops[1:], ", "), serial, unused}},
		"beside traces": {true, []string{"carried orders → mailer " + service + ": " + strings.Join(hops, ", "), "n+1 gateway → pricing shop.pricing.v1.PricingService/GetPrice: ", serial, unused}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			h := openHub(t, dir)
			env := []string{"STILE=on", "STILE_HUB=" + h.Addrs()["OTLP/gRPC"]}
			if c.traces {
				env = append(env, "OTEL_EXPORTER_OTLP_ENDPOINT=http://"+h.Addrs()["OTLP/gRPC"])
			}
			shop := shoptest.Start(t, shoptest.Config{Bin: bin, Data: t.TempDir(), Env: env})
			for i := range 20 {
				var body any
				ask(t, shop, "GET", "/products?limit=8", "", &body)
				ask(t, shop, "GET", fmt.Sprintf("/products/sku-%04d", i+1), "", &body)
				order := fmt.Sprintf(`{"customer":"ada@example.com","items":[{"id":"sku-%04d","quantity":1},{"id":"sku-%04d","quantity":3}]}`, 2*i+1, 2*i+2)
				if code := ask(t, shop, "POST", "/orders", order, &body); code != 201 {
					t.Fatalf("order: %d, %v", code, body)
				}
			}
			shop.Stop(t) // which reports the rest
			closeHub(t, h)
			h = openHub(t, dir)
			defer closeHub(t, h)
			var got []string
			for _, f := range hubMap(t, h).Findings {
				if f.Kind == routemap.Duplicated && strings.HasSuffix(f.Operation, "/ListProducts") {
					continue // it is true: the same list is asked for again and again
				}
				if got = append(got, fmt.Sprintf("%s %s → %s %s: %s", f.Kind, f.From, f.To, f.Operation, strings.Join(f.Steps, ", "))); len(f.Evidence) == 0 {
					t.Errorf("%s: no trace shows it", f.Kind)
				}
				t.Log(f.Text, f.Values)
			}
			slices.Sort(got)
			if !slices.Equal(got, c.want) {
				t.Errorf("found %s\nwant %s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
}
