package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// errOverflow is the failure of a request that was due while too many were in
// flight.
var errOverflow = errors.New("not sent: too many requests in flight")

// products is how many products the shop sells, sku-0001 and so on.
const products = 200

// Mix says in words what the requests are.
const Mix = "4 in 10 list 20 products, 4 show one, 2 place an order"

// mix is the kinds of ten requests in a row.
var mix = [10]byte{'l', 'g', 'o', 'l', 'g', 'l', 'g', 'o', 'l', 'g'}

// isOrder reports whether request n places an order.
func isOrder(n int64) bool { return mix[n%int64(len(mix))] == 'o' }

// requester sends requests to the gateway at address, host:port or unix:///path.
func requester(address string, inFlight int) (request, *http.Transport) {
	transport := &http.Transport{
		MaxIdleConnsPerHost: inFlight,
		// Less than the gateway's, so that no request meets a connection that
		// the gateway is closing.
		IdleConnTimeout:    20 * time.Second,
		DisableCompression: true,
	}
	base := "http://" + address
	if path, ok := strings.CutPrefix(address, "unix://"); ok {
		base = "http://gateway"
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}
	}
	client := &http.Client{Transport: transport, Timeout: 10 * time.Second}
	return func(ctx context.Context, n int64) error { return ask(ctx, client, base, n) }, transport
}

// ask makes request n and reads its answer.
func ask(ctx context.Context, client *http.Client, base string, n int64) error {
	method, path, body, want := http.MethodGet, "/products?limit=20", "", http.StatusOK
	switch mix[n%int64(len(mix))] {
	case 'g':
		path = fmt.Sprintf("/products/sku-%04d", n%products+1)
	case 'o':
		method, path, want = http.MethodPost, "/orders", http.StatusCreated
		body = fmt.Sprintf(`{"customer":"ada@example.com","items":[{"id":"sku-%04d","quantity":1},{"id":"sku-%04d","quantity":2}]}`,
			n%products+1, (n+1)%products+1)
	}
	req, err := http.NewRequestWithContext(ctx, method, base+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != want {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1024))
		return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, text)
	}
	size, err := io.Copy(io.Discard, resp.Body)
	if err == nil && size == 0 {
		err = errors.New("an empty answer")
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	return nil
}
