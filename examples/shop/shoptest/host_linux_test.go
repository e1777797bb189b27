package shoptest_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

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
			if strings.HasPrefix(e.Via, "/proc/") || e.Via == hostmap.LocalDoor {
				t.Errorf("a door is not called by where it is: %+v", e)
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

// TestHostMapOfHub: stile map host with a hub's URL calls the shop's programs by their services, has the routes of each of their ways, those that cost most first, and knows which ways are none of the
// hub's: those of the shop that does not report, and of who sends requests.
func TestHostMapOfHub(t *testing.T) {
	program := filepath.Join(t.TempDir(), "stile")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./cmd/stile")
	build.Dir = "../../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	h := openHub(t, t.TempDir())
	defer closeHub(t, h)
	start := func(hub string) *shoptest.Shop {
		data := t.TempDir()
		queue := filepath.Join(data, "orders")
		shop := shoptest.Start(t, shoptest.Config{
			Bin: bin, Data: data, Env: []string{"STILE=on", "STILE_HUB=" + hub, "XDG_STATE_HOME=" + t.TempDir()},
			Args: map[string][]string{"mailer": {"--queue", filepath.Join(queue, "queue")}, "inventory": {"--stock", "1000"}, "orders": {"--data", queue}},
		})
		shop.Process("mailer").AwaitLog(t, "subscribed")
		return shop
	}
	reports, silent := start(h.Addrs()["OTLP/gRPC"]), start("")
	defer silent.Stop(t)
	defer reports.Stop(t)
	for range 3 {
		for _, shop := range []*shoptest.Shop{reports, silent} {
			var body any
			ask(t, shop, "GET", "/products/sku-0001", "", &body)
			if code := ask(t, shop, "POST", "/orders", `{"customer":"ada@example.com","items":[{"id":"sku-0002","quantity":1}]}`, &body); code != 201 {
				t.Fatalf("order: %d, %v", code, body)
			}
		}
	}
	type view struct {
		Edges []struct {
			From, To hostmap.End
			Calls    uint64
			Cost     int64
			Sources  []string
		}
		Services map[int]string
	}
	ofSilent := map[int]bool{}
	for _, name := range shoptest.Programs {
		ofSilent[silent.Process(name).PID()] = true
	}
	want := map[string]uint64{ // calls
		"gateway → catalog": 6, "gateway → inventory": 3, "gateway → pricing": 3, "gateway → orders": 3, "orders → inventory": 3, "orders → pricing": 3,
		"mailer → orders": 3, // which has the queue
	}
	var got map[string]uint64
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Second) { // windows are of 10 s
		out, err := exec.CommandContext(t.Context(), program, "map", "host", "http://"+h.Addrs()["API"], "--json").Output()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		var v view
		if err := json.Unmarshal(out, &v); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		got = map[string]uint64{}
		for _, e := range v.Edges {
			if len(e.Sources) == 0 {
				continue
			}
			from, to := v.Services[e.From.PID], v.Services[e.To.PID]
			got[from+" → "+to] = max(got[from+" → "+to], e.Calls) // the door beside the memory has none
			if ofSilent[e.From.PID] || ofSilent[e.To.PID] || !slices.Contains(e.Sources, "stile") {
				t.Fatalf("of one that does not report: %+v\n%v\n%s", e, v.Services, out)
			}
		}
		if maps.Equal(got, want) {
			if first := v.Edges[0]; v.Services[first.From.PID] != "gateway" || first.Cost == 0 {
				t.Errorf("what costs most: %+v", first)
			}
			break
		}
		if time.Now().After(end) {
			t.Fatalf("got %v\nwant %v", got, want)
		}
	}
	out, err := exec.CommandContext(t.Context(), program, "map", "host", "http://"+h.Addrs()["API"]).Output()
	if err != nil || !regexp.MustCompile(`maps, (traces, )?stile +/memfd:`).Match(out) || !regexp.MustCompile(`(?m)^\d+ of \d+ ways are known from the host alone`).Match(out) {
		t.Errorf("%v: %s", err, out)
	}
}
