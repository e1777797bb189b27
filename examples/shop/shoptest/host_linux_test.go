package shoptest_test

import (
	"fmt"
	"maps"
	"path/filepath"
	"testing"

	"github.com/stile-ipc/stile/examples/shop/shoptest"
	"github.com/stile-ipc/stile/hostmap"
)

// TestHostMap: the host shows each of the shop's programs that calls another, and no other, by Stile or by gRPC, over unix sockets and TCP.
func TestHostMap(t *testing.T) {
	for _, unix := range []bool{false, true} {
		for _, stile := range []string{"on", "off"} {
			t.Run(fmt.Sprintf("unix=%v,stile=%s", unix, stile), func(t *testing.T) { testHostMap(t, unix, stile) })
		}
	}
}

func testHostMap(t *testing.T, unix bool, stile string) {
	data := t.TempDir()
	queue := filepath.Join(data, "orders")
	shop := shoptest.Start(t, shoptest.Config{
		Bin: bin, Data: data, Unix: unix, Env: []string{"STILE=" + stile},
		Args: map[string][]string{"mailer": {"--queue", filepath.Join(queue, "queue")}, "inventory": {"--stock", "1000"}, "orders": {"--data", queue}},
	})
	shop.Process("mailer").AwaitLog(t, "subscribed")
	var body any
	ask(t, shop, "GET", "/products/sku-0001", "", &body)
	if code := ask(t, shop, "POST", "/orders", `{"customer":"ada@example.com","items":[{"id":"sku-0002","quantity":1}]}`, &body); code != 201 {
		t.Fatalf("order: %d, %v", code, body)
	}
	names := map[int]string{}
	for _, name := range shoptest.Programs {
		names[shop.Process(name).PID()] = name
	}
	h, err := hostmap.Scan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for _, e := range h.Edges {
		if from, to := names[e.From.PID], names[e.To.PID]; from != "" && to != "" {
			got[from+" → "+to] = true
			if !e.Directed {
				t.Errorf("who asks is not told: %+v", e)
			}
			if local := stile == "on" && e.Transport == "shm"; local {
				got["shm"] = true
			}
		}
	}
	want := map[string]bool{
		"gateway → catalog": true, "gateway → inventory": true, "gateway → pricing": true, "gateway → orders": true, "orders → inventory": true, "orders → pricing": true,
		"mailer → orders": true, // which has the queue
	}
	if stile == "on" {
		want["shm"] = true
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
	shop.Stop(t)
}
