package shoptest_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stile-ipc/stile/examples/shop/shoptest"
)

type product struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	Category    string `json:"category"`
	PriceCents  int64  `json:"price_cents"`
	Description string `json:"description"`
	Thumbnail   []byte `json:"thumbnail"`
	Available   int64  `json:"available"`
}

type order struct {
	ID       string `json:"id"`
	Customer string `json:"customer"`
	Lines    []struct {
		ID          string `json:"id"`
		Name        string `json:"name"`
		Quantity    int64  `json:"quantity"`
		AmountCents int64  `json:"amount_cents"`
	} `json:"lines"`
	TotalCents int64 `json:"total_cents"`
}

type failure struct {
	Error struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
}

// ask makes a request and decodes the JSON of the answer into out.
func ask(t *testing.T, shop *shoptest.Shop, method, path, body string, out any) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, shop.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := shop.Client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if got := resp.Header.Get("Content-Type"); got != "application/json" {
		t.Errorf("%s %s: Content-Type %q", method, path, got)
	}
	if err := json.Unmarshal(text, out); err != nil {
		t.Fatalf("%s %s: %v in %q", method, path, err, text)
	}
	return resp.StatusCode
}

// mustAsk asks, and expects an answer of a code.
func mustAsk(t *testing.T, shop *shoptest.Shop, method, path, body string, code int) {
	var answer any
	if got := ask(t, shop, method, path, body, &answer); got != code {
		t.Errorf("%s %s: %d, %v", method, path, got, answer)
	}
}

func TestShop(t *testing.T) {
	for _, unix := range []bool{false, true} {
		for _, stile := range []string{"on", "off"} {
			t.Run(fmt.Sprintf("unix=%v,stile=%s", unix, stile), func(t *testing.T) {
				testShop(t, shoptest.Config{Unix: unix, Env: []string{"STILE=" + stile}})
			})
		}
	}
}

// testShop looks at products, places an order and reads its e-mail, in a shop that
// cfg says how to start.
func testShop(t *testing.T, cfg shoptest.Config) {
	t.Helper()
	outbox := t.TempDir()
	cfg.Bin, cfg.Data = bin, t.TempDir()
	cfg.Args = map[string][]string{"mailer": {"--outbox", outbox}, "inventory": {"--stock", "100"}}
	shop := shoptest.Start(t, cfg)
	list, page := checkProducts(t, shop)
	checkOrder(t, shop, list, page)
	checkMail(t, outbox, page)
	var health struct{ Status string }
	if code := ask(t, shop, "GET", "/healthz", "", &health); code != 200 || health.Status != "ok" {
		t.Errorf("healthz: %d %+v", code, health)
	}
	shop.Stop(t)
}

func checkProducts(t *testing.T, shop *shoptest.Shop) ([]product, product) {
	t.Helper()
	var list struct{ Products []product }
	if code := ask(t, shop, "GET", "/products?limit=7", "", &list); code != 200 || len(list.Products) != 7 {
		t.Fatalf("list: %d with %d products, want 200 with 7", code, len(list.Products))
	}
	for i, p := range list.Products {
		if p.ID != fmt.Sprintf("sku-%04d", i+1) || p.Name == "" || p.Category == "" || p.PriceCents < 500 || p.Thumbnail != nil {
			t.Errorf("list: product %d is %+v", i, p)
		}
	}
	var page product
	if code := ask(t, shop, "GET", "/products/sku-0002", "", &page); code != 200 {
		t.Fatalf("get: %d", code)
	}
	if page.Name != list.Products[1].Name || page.PriceCents != list.Products[1].PriceCents || page.Available != 100 || page.Description == "" {
		t.Errorf("get: %+v, listed as %+v", page, list.Products[1])
	}
	if len(page.Thumbnail) < 1024 || !bytes.HasPrefix(page.Thumbnail, []byte("\x89PNG")) {
		t.Errorf("get: thumbnail of %d bytes is not a picture of 1 KiB or more", len(page.Thumbnail))
	}
	return list.Products, page
}

func checkOrder(t *testing.T, shop *shoptest.Shop, list []product, page product) {
	t.Helper()
	var placed, read order
	code := ask(t, shop, "POST", "/orders", `{"customer":"ada@example.com","items":[{"id":"sku-0002","quantity":3},{"id":"sku-0005","quantity":10}]}`, &placed)
	if code != 201 || len(placed.Lines) != 2 {
		t.Fatalf("order: %d %+v", code, placed)
	}
	want := [2]int64{3 * page.PriceCents, 10 * list[4].PriceCents * 95 / 100}
	if placed.Lines[0].AmountCents != want[0] || placed.Lines[1].AmountCents != want[1] || placed.TotalCents != want[0]+want[1] {
		t.Errorf("order: %+v, want amounts %v", placed, want)
	}
	if placed.Lines[0].Name != page.Name || placed.Customer != "ada@example.com" {
		t.Errorf("order: %+v", placed)
	}
	if code := ask(t, shop, "GET", "/orders/"+placed.ID, "", &read); code != 200 || fmt.Sprint(read) != fmt.Sprint(placed) {
		t.Errorf("read order: %d %+v, placed as %+v", code, read, placed)
	}
	var after product
	if ask(t, shop, "GET", "/products/sku-0002", "", &after); after.Available != 97 {
		t.Errorf("%d left after the order, want 97", after.Available)
	}
}

func checkMail(t *testing.T, outbox string, page product) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(outbox, "*.eml"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%d e-mails, want 1 (%v)", len(files), err)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"To: <ada@example.com>\r\n", page.Name, "Content-ID: <line1>", "image/png"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %q in the e-mail", want)
		}
	}
}

func TestBadInput(t *testing.T) {
	shop := shoptest.Start(t, shoptest.Config{Bin: bin, Data: t.TempDir(), Args: map[string][]string{"inventory": {"--stock", "5"}}})
	const who = `{"customer":"ada@example.com","items":`
	cases := []struct {
		name, method, path, body string
		status                   int
		code, says               string
	}{
		{"limit of zero", "GET", "/products?limit=0", "", 400, "INVALID_ARGUMENT", "1 to 100"},
		{"limit of words", "GET", "/products?limit=all", "", 400, "INVALID_ARGUMENT", `"all"`},
		{"limit too high", "GET", "/products?limit=101", "", 400, "INVALID_ARGUMENT", "1 to 100"},
		{"limit beyond int", "GET", "/products?limit=99999999999999999999", "", 400, "INVALID_ARGUMENT", "1 to 100"},
		{"unknown product", "GET", "/products/sku-9999", "", 404, "NOT_FOUND", "sku-9999"},
		{"unknown order", "GET", "/orders/none", "", 404, "NOT_FOUND", "none"},
		{"unknown page", "GET", "/cellar", "", 404, "NOT_FOUND", "/cellar"},
		{"wrong method", "POST", "/products", "", 405, "UNIMPLEMENTED", "POST"},
		{"no body", "POST", "/orders", "", 400, "INVALID_ARGUMENT", "not an order"},
		{"not JSON", "POST", "/orders", "{", 400, "INVALID_ARGUMENT", "not an order"},
		{"two orders", "POST", "/orders", who + `[{"id":"sku-0001","quantity":1}]} {}`, 400, "INVALID_ARGUMENT", "more after"},
		{"unknown field", "POST", "/orders", `{"client":"x"}`, 400, "INVALID_ARGUMENT", "client"},
		{"no customer", "POST", "/orders", `{"items":[{"id":"sku-0001","quantity":1}]}`, 400, "INVALID_ARGUMENT", "customer"},
		{"customer without address", "POST", "/orders", `{"customer":"ada","items":[{"id":"sku-0001","quantity":1}]}`, 400, "INVALID_ARGUMENT", "e-mail"},
		{"no items", "POST", "/orders", who + `[]}`, 400, "INVALID_ARGUMENT", "0 items"},
		{"too many items", "POST", "/orders", who + `[` + strings.Repeat(`{},`, 50) + `{}]}`, 400, "INVALID_ARGUMENT", "51 items"},
		{"no id", "POST", "/orders", who + `[{"quantity":1}]}`, 400, "INVALID_ARGUMENT", "items[0]"},
		{"quantity of zero", "POST", "/orders", who + `[{"id":"sku-0001"}]}`, 400, "INVALID_ARGUMENT", "quantity"},
		{"quantity beyond int64", "POST", "/orders", who + `[{"id":"sku-0001","quantity":9223372036854775808}]}`, 400, "INVALID_ARGUMENT", "quantity"},
		{"item twice", "POST", "/orders", who + `[{"id":"sku-0001","quantity":1},{"id":"sku-0001","quantity":1}]}`, 400, "INVALID_ARGUMENT", "twice"},
		{"unknown item", "POST", "/orders", who + `[{"id":"sku-9999","quantity":1}]}`, 404, "NOT_FOUND", "sku-9999"},
		{"too little stock", "POST", "/orders", who + `[{"id":"sku-0002","quantity":1},{"id":"sku-0001","quantity":6}]}`, 409, "FAILED_PRECONDITION", "5 of"},
		{"large body", "POST", "/orders", `{"customer":"` + strings.Repeat("a", 70_000), 413, "INVALID_ARGUMENT", "64 KiB"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var got failure
			status := ask(t, shop, c.method, c.path, c.body, &got)
			if status != c.status || got.Error.Code != c.code || !strings.Contains(got.Error.Message, c.says) {
				t.Errorf("got %d %+v, want %d %s saying %q", status, got.Error, c.status, c.code, c.says)
			}
		})
	}
	var page product
	if ask(t, shop, "GET", "/products/sku-0002", "", &page); page.Available != 5 {
		t.Errorf("%d left, want 5: no refused order may hold stock", page.Available)
	}
	shop.Stop(t)
}
