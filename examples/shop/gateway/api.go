package main

import (
	"context"
	"net/http"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"

	"github.com/stile-ipc/stile/examples/shop/internal/rpc"
	catalogv1 "github.com/stile-ipc/stile/examples/shop/proto/shop/catalog/v1"
	inventoryv1 "github.com/stile-ipc/stile/examples/shop/proto/shop/inventory/v1"
	ordersv1 "github.com/stile-ipc/stile/examples/shop/proto/shop/orders/v1"
	pricingv1 "github.com/stile-ipc/stile/examples/shop/proto/shop/pricing/v1"
)

type api struct {
	catalog   catalogv1.CatalogServiceClient
	inventory inventoryv1.InventoryServiceClient
	pricing   pricingv1.PricingServiceClient
	orders    ordersv1.OrdersServiceClient
	services  map[string]*grpc.ClientConn
	timeout   time.Duration
}

func (a *api) routes() http.Handler {
	mux := http.NewServeMux()
	for path, methods := range map[string]string{
		"/products": "GET, HEAD", "/products/{id}": "GET, HEAD",
		"/orders": "POST", "/orders/{id}": "GET, HEAD",
		"/healthz": "GET, HEAD",
	} {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Allow", methods)
			writeError(w, r, &httpError{http.StatusMethodNotAllowed, "UNIMPLEMENTED", r.URL.Path + " does not take " + r.Method})
		})
	}
	mux.Handle("GET /products", a.handle(a.listProducts))
	mux.Handle("GET /products/{id}", a.handle(a.getProduct))
	mux.Handle("POST /orders", a.handle(a.placeOrder))
	mux.Handle("GET /orders/{id}", a.handle(a.getOrder))
	mux.Handle("GET /healthz", a.handle(a.healthz))
	mux.Handle("/", a.handle(func(r *http.Request) (int, any, error) {
		return 0, nil, &httpError{http.StatusNotFound, "NOT_FOUND", "no such page: " + r.Method + " " + r.URL.Path}
	}))
	return mux
}

// handle gives a request its deadline, and writes what answer returns: a
// status and a value for JSON, or an error.
func (a *api) handle(answer func(*http.Request) (int, any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), a.timeout)
		defer cancel()
		_, route, _ := strings.Cut(r.Pattern, " ")
		if route != "/healthz" {
			var span trace.Span
			ctx, span = rpc.StartRequest(ctx, r.Method, route)
			defer span.End()
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		code, body, err := answer(r.WithContext(ctx))
		if err != nil {
			writeError(w, r, err)
			return
		}
		writeJSON(w, code, body)
	})
}
