package shoptest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	mailerv1 "github.com/stile-ipc/stile/examples/shop/proto/shop/mailer/v1"
	"github.com/stile-ipc/stile/examples/shop/shoptest"
)

// TestSwitch moves a load from one set of processes to another that shares its
// databases, and from plain gRPC to Stile: no request may fail.
func TestSwitch(t *testing.T) {
	data := t.TempDir()
	first := shoptest.Start(t, shoptest.Config{Bin: bin, Data: data, Env: []string{"STILE=off"}})
	load := startLoad(t, first)
	load.await(50)
	second := shoptest.Start(t, shoptest.Config{Bin: bin, Data: data, Unix: true, Env: []string{"STILE=on"}})
	load.move(second)
	first.Stop(t)
	load.await(50)
	load.stop()
	second.Stop(t)
}

// load asks for products and places orders without pause, and fails the test
// when an answer is not a success.
type load struct {
	cancel context.CancelFunc
	wait   sync.WaitGroup
	done   chan struct{} // one value for each answer

	mu   sync.Mutex
	shop *aim
}

// aim is where requests are sent to, with those under way.
type aim struct {
	*shoptest.Shop
	sync.WaitGroup
}

func startLoad(t *testing.T, shop *shoptest.Shop) *load {
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{cancel: cancel, done: make(chan struct{}), shop: &aim{Shop: shop}}
	t.Cleanup(l.stop)
	for caller := range 4 {
		l.wait.Go(func() {
			for i := caller; ctx.Err() == nil; i++ {
				shop := l.take()
				err := once(ctx, shop.Shop, i)
				shop.Done()
				if err != nil && ctx.Err() == nil {
					t.Errorf("request %d: %v", i, err)
					return
				}
				select {
				case l.done <- struct{}{}:
				default:
				}
			}
		})
	}
	return l
}

// take returns where to send one request; the caller calls Done after it.
func (l *load) take() *aim {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shop.Add(1)
	return l.shop
}

// move sends new requests to shop, and returns when the others are answered.
func (l *load) move(shop *shoptest.Shop) {
	l.mu.Lock()
	old := l.shop
	l.shop = &aim{Shop: shop}
	l.mu.Unlock()
	old.Wait()
}

// await returns after n more answers.
func (l *load) await(n int) {
	stopped := make(chan struct{})
	go func() { l.wait.Wait(); close(stopped) }()
	for range n {
		select {
		case <-l.done:
		case <-stopped: // every caller has failed
			return
		}
	}
}

func (l *load) stop() {
	l.cancel()
	l.wait.Wait()
}

func once(ctx context.Context, shop *shoptest.Shop, i int) error {
	method, path, body, want := "GET", "/products?limit=3", "", http.StatusOK
	if i%3 == 0 {
		method, path, want = "POST", "/orders", http.StatusCreated
		body = fmt.Sprintf(`{"customer":"ada@example.com","items":[{"id":"sku-%04d","quantity":1}]}`, i%200+1)
	}
	req, err := http.NewRequestWithContext(ctx, method, shop.URL+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := shop.Client.Do(req)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return err
	}
	if resp.StatusCode != want {
		return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, text)
	}
	return nil
}

// TestServiceKilled has pricing die: the gateway says so, and serves again when
// pricing is back at its address.
func TestServiceKilled(t *testing.T) {
	for _, stile := range []string{"on", "off"} {
		t.Run(stile, func(t *testing.T) { testServiceKilled(t, stile) })
	}
}

func testServiceKilled(t *testing.T, stile string) {
	shop := shoptest.Start(t, shoptest.Config{Bin: bin, Data: t.TempDir(), Env: []string{"STILE=" + stile}, Args: map[string][]string{"inventory": {"--stock", "5"}}})
	shop.Process("pricing").Kill()

	var got failure
	if code := ask(t, shop, "GET", "/products/sku-0001", "", &got); code != 503 || got.Error.Code != "UNAVAILABLE" {
		t.Errorf("got %d %+v, want 503 UNAVAILABLE", code, got.Error)
	}
	var health struct {
		Status   string
		Services map[string]string
	}
	if code := ask(t, shop, "GET", "/healthz", "", &health); code != 503 || health.Services["pricing"] != "Unavailable" || health.Services["catalog"] != "SERVING" {
		t.Errorf("healthz: %d %+v", code, health)
	}
	if code := ask(t, shop, "POST", "/orders", `{"customer":"ada@example.com","items":[{"id":"sku-0001","quantity":1}]}`, &got); code != 503 {
		t.Errorf("order without pricing: %d, want 503", code)
	}
	shop.Restart(t, "pricing")
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	var page product
	code := 503
	for ; code == 503; <-poll.C {
		code = ask(t, shop, "GET", "/products/sku-0001", "", &page)
	}
	if code != 200 || page.Available != 5 {
		t.Errorf("after the restart: %d with %d left, want 200 with 5: a failed order may not hold stock", code, page.Available)
	}
	shop.Stop(t)
}

// slowMailer holds every message until it is told to go on.
type slowMailer struct {
	mailerv1.UnimplementedMailerServiceServer
	entered, release chan struct{}
}

func (m *slowMailer) SendOrderConfirmation(context.Context, *mailerv1.SendOrderConfirmationRequest) (*mailerv1.SendOrderConfirmationResponse, error) {
	m.entered <- struct{}{}
	<-m.release
	return &mailerv1.SendOrderConfirmationResponse{MessageId: "1@test"}, nil
}

// TestDrain ends the gateway and orders in the middle of an order, which must
// be answered all the same.
func TestDrain(t *testing.T) {
	for _, stile := range []string{"on", "off"} {
		t.Run(stile, func(t *testing.T) { testDrain(t, stile) })
	}
}

func testDrain(t *testing.T, stile string) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	mailer := &slowMailer{entered: make(chan struct{}), release: make(chan struct{})}
	srv := grpc.NewServer()
	mailerv1.RegisterMailerServiceServer(srv, mailer)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(lis) }()
	t.Cleanup(func() {
		srv.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	shop := shoptest.Start(t, shoptest.Config{Bin: bin, Data: t.TempDir(), Env: []string{"STILE=" + stile}, Calls: map[string]string{"mailer": lis.Addr().String()}})

	answered := make(chan error, 1)
	go func() { answered <- once(t.Context(), shop, 0) }()
	<-mailer.entered
	for _, name := range []string{"gateway", "orders"} {
		shop.Process(name).Terminate(t)
		shop.Process(name).AwaitLog(t, "msg=draining")
	}
	close(mailer.release)
	if err := <-answered; err != nil {
		t.Error(err)
	}
	for _, name := range []string{"gateway", "orders"} {
		if err := shop.Process(name).Wait(t); err != nil {
			t.Errorf("%s ended with %v\n%s", name, err, shop.Process(name).Log())
		}
	}
}
