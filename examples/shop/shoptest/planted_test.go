package shoptest_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stile-ipc/stile/examples/shop/shoptest"
	"github.com/stile-ipc/stile/hub"
)

// Planted faults, as a map tells of them.
const (
	placing  = "shop.orders.v1.OrdersService/PlaceOrder"
	mailing  = "shop.mailer.v1.MailerService/SendOrderConfirmation"
	prices   = "gateway → pricing shop.pricing.v1.PricingService/GetPrice"
	plusOne  = "n+1 " + prices
	carried  = "carried orders → mailer " + mailing + ": gateway → catalog shop.catalog.v1.CatalogService/GetProducts (answer), gateway → orders " + placing + ", orders → mailer " + mailing
	inOrders = "carried orders → mailer " + mailing + ": gateway → orders " + placing + ", orders → mailer " + mailing // where no trace begins with the request
	serial   = "serial orders → pricing shop.pricing.v1.PricingService/Quote: shop.inventory.v1.InventoryService/Reserve, shop.pricing.v1.PricingService/Quote"
	unused   = "unused orders → mailer " + mailing
)

// What else is true of what is asked here: all ask for the same list, and an order is nearly all that the gateway waits for when somebody places one.
const (
	sameList   = "duplicated gateway → catalog shop.catalog.v1.CatalogService/ListProducts"
	wholeOrder = "gateway → orders " + placing
)

// TestPlanted: what is known to be wrong with the shop is found and named: by traces all four, and without any all but what the gateway does in a request of HTTP. Nothing else is found but what is
// true of what is asked here, and no other blocking points are flagged than the prices that are asked for one after the other, and the order. Each call takes 10 ms, so that no other part of the
// machine has a share in that.
func TestPlanted(t *testing.T) {
	for name, c := range map[string]struct {
		traces         bool
		found, flagged []string
	}{
		"alone":         {false, []string{inOrders, serial, unused, sameList}, nil},
		"beside traces": {true, []string{plusOne, carried, serial, unused, sameList}, []string{prices, wholeOrder}},
	} {
		t.Run(name, func(t *testing.T) {
			m := ofPlanted(t, c.traces)
			var found, flagged []string
			for _, f := range m.Findings {
				one := fmt.Sprintf("%s %s → %s %s", f.Kind, f.From, f.To, f.Operation)
				if len(f.Steps) > 0 {
					one += ": " + strings.Join(f.Steps, ", ")
				}
				if found = append(found, one); len(f.Evidence) == 0 {
					t.Errorf("%s: no trace shows it", one)
				}
				t.Log(f.Text, f.Values)
			}
			for _, b := range m.Blocking {
				if b.Flagged {
					flagged = append(flagged, b.Key.String())
				}
			}
			same(t, "found", found, c.found)
			same(t, "flagged", flagged, c.flagged)
		})
	}
}

func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	slices.Sort(got)
	if want = slices.Sorted(slices.Values(want)); !slices.Equal(got, want) {
		t.Errorf("%s:\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// ofPlanted is the map of a shop that is asked for lists, pages and orders.
func ofPlanted(t *testing.T, traces bool) hub.Map {
	t.Helper()
	dir := t.TempDir()
	h := openHub(t, dir)
	slow := filepath.Join(t.TempDir(), "faults")
	if err := os.WriteFile(slow, []byte("delay=10ms"), 0o600); err != nil {
		t.Fatal(err)
	}
	args := map[string][]string{}
	for _, name := range []string{"catalog", "inventory", "pricing", "mailer"} {
		args[name] = []string{"--faults", slow}
	}
	env := []string{"STILE=on", "STILE_HUB=" + h.Addrs()["OTLP/gRPC"]}
	if traces {
		env = append(env, "OTEL_EXPORTER_OTLP_ENDPOINT=http://"+h.Addrs()["OTLP/gRPC"])
	}
	shop := shoptest.Start(t, shoptest.Config{Bin: bin, Data: t.TempDir(), Env: env, Args: args})
	for i := range 20 {
		mustAsk(t, shop, "GET", "/products?limit=8", "", 200)
		mustAsk(t, shop, "GET", fmt.Sprintf("/products/sku-%04d", i+1), "", 200)
		order := fmt.Sprintf(`{"customer":"ada@example.com","items":[{"id":"sku-%04d","quantity":1},{"id":"sku-%04d","quantity":3}]}`, 2*i+1, 2*i+2)
		mustAsk(t, shop, "POST", "/orders", order, 201)
	}
	shop.Stop(t) // which reports the rest
	closeHub(t, h)
	h = openHub(t, dir)
	defer closeHub(t, h)
	return hubMap(t, h)
}
