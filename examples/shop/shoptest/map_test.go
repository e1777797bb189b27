package shoptest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stile-ipc/stile/examples/shop/shoptest"
	"github.com/stile-ipc/stile/hub"
	"github.com/stile-ipc/stile/routemap"
)

// TestMap: the map that a hub makes of the shop's spans has each edge that there is, with as many calls as were made, and no other; through Stile, and through
// gRPC.
func TestMap(t *testing.T) {
	for _, stile := range []string{"on", "off"} {
		t.Run("stile="+stile, func(t *testing.T) { testMap(t, stile) })
	}
}

func testMap(t *testing.T, stile string) {
	dir := t.TempDir()
	h := openHub(t, dir)
	data, outbox := t.TempDir(), t.TempDir()
	queue := filepath.Join(data, "orders")
	shop := shoptest.Start(t, shoptest.Config{
		Bin: bin, Data: data, Env: []string{"STILE=" + stile, "OTEL_EXPORTER_OTLP_ENDPOINT=http://" + h.Addrs()["OTLP/gRPC"]},
		Args: map[string][]string{"mailer": {"--outbox", outbox, "--queue", filepath.Join(queue, "queue")}, "inventory": {"--stock", "1000"}, "orders": {"--data", queue}},
	})
	use(t, shop, outbox)
	shop.Stop(t) // which sends what was traced
	closeHub(t, h)
	h = openHub(t, dir)
	defer closeHub(t, h)
	m := hubMap(t, h)
	got := map[string]uint64{}
	for _, r := range m.Routes {
		got[r.Key.String()] = r.Calls
	}
	want := map[string]uint64{
		"gateway → catalog shop.catalog.v1.CatalogService/GetProduct":     pages,
		"gateway → catalog shop.catalog.v1.CatalogService/GetProducts":    orders,
		"gateway → catalog shop.catalog.v1.CatalogService/ListProducts":   lists,
		"gateway → inventory shop.inventory.v1.InventoryService/GetStock": pages,
		"gateway → pricing shop.pricing.v1.PricingService/GetPrice":       pages + listed*lists,
		"gateway → orders shop.orders.v1.OrdersService/PlaceOrder":        orders,
		"orders → inventory shop.inventory.v1.InventoryService/Reserve":   orders,
		"orders → pricing shop.pricing.v1.PricingService/Quote":           orders,
		"orders → queue orders.placed send orders.placed":                 orders,
		"queue orders.placed → mailer process orders.placed":              orders,
	}
	if !maps.Equal(got, want) {
		t.Errorf("%v\nwant %v", got, want)
	}
	for _, r := range m.Routes {
		if r.Mode == routemap.Sync && r.Paired != r.Calls || r.Failed() > 0 {
			t.Errorf("%s: both sides tell of %d of %d calls, %d failed", r.Key, r.Paired, r.Calls, r.Failed())
		}
	}
	if m.Traces != pages+lists+orders || m.Whole != m.Traces {
		t.Errorf("%d traces, %d whole", m.Traces, m.Whole)
	}
	// The list of products asks for each price on its own.
	if len(m.Findings) != 1 || m.Findings[0].Kind != routemap.PlusOne || m.Findings[0].Within != "GET /products" || !strings.HasSuffix(m.Findings[0].Operation, "/GetPrice") ||
		m.Findings[0].Values["calls"] != listed || m.Findings[0].Values["groups"] != lists {
		t.Errorf("found: %+v", m.Findings)
	}
	if m.Nameless != 0 || len(m.Faults) != 0 || len(m.LeftOut) != 0 {
		t.Errorf("%d nameless, faults %v, left out %v", m.Nameless, m.Faults, m.LeftOut)
	}
}

// What use asks for.
const pages, lists, listed, orders = 30, 5, 5, 10

// use asks the shop for what it has, and waits for the e-mails.
func use(t *testing.T, shop *shoptest.Shop, outbox string) {
	t.Helper()
	for i := range max(pages, lists, orders) {
		var body any
		if i < pages {
			ask(t, shop, "GET", fmt.Sprintf("/products/sku-%04d", i+1), "", &body)
		}
		if i < lists {
			ask(t, shop, "GET", fmt.Sprintf("/products?limit=%d", listed), "", &body)
		}
		if i < orders {
			if code := ask(t, shop, "POST", "/orders", `{"customer":"ada@example.com","items":[{"id":"sku-0002","quantity":1}]}`, &body); code != 201 {
				t.Fatalf("order: %d, %v", code, body)
			}
		}
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if mails, err := filepath.Glob(filepath.Join(outbox, "*.eml")); err != nil || len(mails) == orders {
			break
		} else if time.Now().After(end) {
			t.Fatalf("%d e-mails", len(mails))
		}
	}
}

// TestMapFromAgents: what the shop's processes have counted makes a map that has each edge that there is, with its transport and as many calls as were made, and
// no other; of each call it is known where it waited, and what both ends say agrees. With traces beside it is the same map, which knows what they tell, too.
func TestMapFromAgents(t *testing.T) {
	t.Run("alone", func(t *testing.T) { testMapFromAgents(t, false) })
	t.Run("beside traces", func(t *testing.T) { testMapFromAgents(t, true) })
}

func testMapFromAgents(t *testing.T, traces bool) {
	dir := t.TempDir()
	h := openHub(t, dir)
	data, outbox := t.TempDir(), t.TempDir()
	queue := filepath.Join(data, "orders")
	env, sources := []string{"STILE=on", "STILE_HUB=" + h.Addrs()["OTLP/gRPC"]}, routemap.FromStile|routemap.FromTraces
	if traces {
		env = append(env, "OTEL_EXPORTER_OTLP_ENDPOINT=http://"+h.Addrs()["OTLP/gRPC"])
	}
	shop := shoptest.Start(t, shoptest.Config{
		Bin: bin, Data: data, Env: env,
		Args: map[string][]string{"mailer": {"--outbox", outbox, "--queue", filepath.Join(queue, "queue")}, "inventory": {"--stock", "1000"}, "orders": {"--data", queue}},
	})
	use(t, shop, outbox)
	shop.Stop(t) // which reports the rest
	closeHub(t, h)
	h = openHub(t, dir)
	defer closeHub(t, h)
	m := hubMap(t, h)
	got := map[string]uint64{}
	for _, r := range m.Routes {
		got[fmt.Sprint(r.Key, " ", r.Transport)] = r.Calls
		if r.Mode != routemap.Sync {
			continue
		}
		w := r.Waits
		sum := w.ClientQueue + w.Transport + w.ServerQueue + w.Handler
		if r.Paired != r.Calls || r.Failed() > 0 || r.Server.Count() != r.Calls || w.Calls != r.Calls || float64(sum) != r.Client.Sum() || r.Request.Count() != r.Calls || r.Sources != sources || r.Traced != r.Calls {
			t.Errorf("%s: %d calls, %d paired, %d failed; %+v of %v ns", r.Key, r.Calls, r.Paired, r.Failed(), w, r.Client.Sum())
		}
	}
	want := map[string]uint64{
		"gateway → catalog shop.catalog.v1.CatalogService/GetProduct shm":     pages,
		"gateway → catalog shop.catalog.v1.CatalogService/GetProducts shm":    orders,
		"gateway → catalog shop.catalog.v1.CatalogService/ListProducts shm":   lists,
		"gateway → inventory shop.inventory.v1.InventoryService/GetStock shm": pages,
		"gateway → pricing shop.pricing.v1.PricingService/GetPrice shm":       pages + listed*lists,
		"gateway → orders shop.orders.v1.OrdersService/PlaceOrder shm":        orders,
		"orders → inventory shop.inventory.v1.InventoryService/Reserve shm":   orders,
		"orders → pricing shop.pricing.v1.PricingService/Quote shm":           orders,
		"orders → queue orders.placed send orders.placed broker":              orders,
		"queue orders.placed → mailer process orders.placed broker":           orders,
	}
	if !maps.Equal(got, want) {
		t.Errorf("%v\nwant %v", got, want)
	}
	checkOrders(t, h, m, traces)
	// All orders are of the same kettle, whose picture comes and goes with each. That a page asks for one price after the other only the user's traces
	// tell, and that the picture goes on: Stile's begin where HTTP ends, with each of its calls.
	found := map[string]int{}
	for _, f := range m.Findings {
		found[f.Kind+" "+f.Operation]++
	}
	wantFound, wantTraces := map[string]int{"duplicated shop.catalog.v1.CatalogService/GetProducts": 1, "serial shop.pricing.v1.PricingService/Quote": 1}, uint64(3*pages+(1+listed)*lists+2*orders)
	if traces {
		wantTraces = pages + lists + orders
		wantFound["n+1 shop.pricing.v1.PricingService/GetPrice"], wantFound["carried shop.orders.v1.OrdersService/PlaceOrder"] = 1, 1
	}
	if !maps.Equal(found, wantFound) || m.Traces != wantTraces || m.Whole != m.Traces || len(m.Faults) != 0 || len(m.LeftOut) != 0 {
		t.Errorf("%d traces, want %d, %d whole, faults %v, left out %v; found: %v, want %v", m.Traces, wantTraces, m.Whole, m.Faults, m.LeftOut, found, wantFound)
	}
}

// checkOrders checks that traces of orders are found by the route that is counted, and show what an order's time goes to, and, if they are Stile's, where its calls waited.
func checkOrders(t *testing.T, h *hub.Hub, m hub.Map, traces bool) {
	t.Helper()
	i := slices.IndexFunc(m.Routes, func(r routemap.Route) bool { return strings.HasSuffix(r.Operation, "/PlaceOrder") })
	var list hub.TraceList
	if !askHub(t, h, "/api/v1/traces?from=1h&route="+m.Routes[i].ID(), &list) {
		return
	}
	if len(list.Traces) != orders {
		t.Errorf("%d traces of %d orders are found", len(list.Traces), orders)
	}
	for _, one := range list.Traces {
		var trace hub.Trace
		if !askHub(t, h, "/api/v1/trace?id="+one.ID, &trace) {
			return
		}
		critical := map[string]bool{}
		for _, s := range trace.Spans {
			if s.Kind == "server" && len(s.Critical) > 0 {
				critical[s.Service] = true
			}
			if w := s.Waits; !traces && (w == nil || w.Transport+w.ClientQueue+w.ServerQueue+w.Handler != s.Duration) {
				t.Errorf("%s of %s: waits %+v of %d ns", s.Name, s.Service, w, s.Duration)
			}
		}
		if !critical["orders"] || !critical["inventory"] || !critical["pricing"] || !traces && len(trace.Spans) != 6 {
			t.Errorf("an order of %d spans, on whose critical path are %v", len(trace.Spans), critical)
		}
	}
	for _, r := range m.Routes {
		if r.From.Name == "orders" && r.Mode == routemap.Sync && r.Through == 0 {
			t.Errorf("%s: nothing on critical paths", r.Key)
		}
	}
}

func openHub(t *testing.T, dir string) *hub.Hub {
	t.Helper()
	h, err := hub.Open(t.Context(), hub.Config{Dir: dir, OTLPGRPC: "127.0.0.1:0", OTLPHTTP: hub.Off, HTTP: "127.0.0.1:0", Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func closeHub(t *testing.T, h *hub.Hub) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := h.Close(ctx); err != nil {
		t.Error(err)
	}
}

// hubMap asks for all that a hub has kept.
func hubMap(t *testing.T, h *hub.Hub) (m hub.Map) {
	t.Helper()
	if !askHub(t, h, "/api/v1/map?from=1h", &m) {
		t.FailNow()
	}
	return m
}

func askHub(t *testing.T, h *hub.Hub, path string, answer any) bool {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + h.Addrs()["API"] + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil {
		err = json.Unmarshal(body, answer)
	}
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("%s: %s, %v, %.300s", path, resp.Status, err, body)
		return false
	}
	return true
}
