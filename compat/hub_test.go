package compat

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/stile-ipc/stile/hub"
)

// TestHubTakesExporters: what OpenTelemetry's own exporters send, each way and compressed or not, with a token and without, is on the hub's map; without the token
// they are told.
func TestHubTakesExporters(t *testing.T) {
	const secret = "a token for exporters"
	dir := t.TempDir()
	open := func() *hub.Hub {
		h, err := hub.Open(t.Context(), hub.Config{
			Dir: dir, OTLPGRPC: "127.0.0.1:0", OTLPHTTP: "127.0.0.1:0", HTTP: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler), Tokens: []hub.Token{{Role: hub.Write, Secret: secret}, {Role: hub.Read, Secret: secret}},
		})
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	closed := func(h *hub.Hub) {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := h.Close(ctx); err != nil {
			t.Error(err)
		}
	}
	h := open()
	token := map[string]string{"authorization": "Bearer " + secret}
	exporters := map[string]func(map[string]string) otlptrace.Client{
		"gRPC": func(headers map[string]string) otlptrace.Client {
			return otlptracegrpc.NewClient(otlptracegrpc.WithInsecure(), otlptracegrpc.WithEndpoint(h.Addrs()["OTLP/gRPC"]), otlptracegrpc.WithHeaders(headers))
		},
		"gRPC, gzip": func(headers map[string]string) otlptrace.Client {
			return otlptracegrpc.NewClient(otlptracegrpc.WithInsecure(), otlptracegrpc.WithEndpoint(h.Addrs()["OTLP/gRPC"]), otlptracegrpc.WithHeaders(headers), otlptracegrpc.WithCompressor("gzip"))
		},
		"HTTP": func(headers map[string]string) otlptrace.Client {
			return otlptracehttp.NewClient(otlptracehttp.WithInsecure(), otlptracehttp.WithEndpoint(h.Addrs()["OTLP/HTTP"]), otlptracehttp.WithHeaders(headers))
		},
		"HTTP, gzip": func(headers map[string]string) otlptrace.Client {
			return otlptracehttp.NewClient(otlptracehttp.WithInsecure(), otlptracehttp.WithEndpoint(h.Addrs()["OTLP/HTTP"]), otlptracehttp.WithHeaders(headers), otlptracehttp.WithCompression(otlptracehttp.GzipCompression))
		},
	}
	for name, client := range exporters {
		if err := send(t, client(nil), name); err == nil {
			t.Errorf("%s: without a token it was not told", name)
		}
		if err := send(t, client(token), name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	closed(h)
	h = open()
	defer closed(h)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+h.Addrs()["API"]+"/api/v1/map", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+secret)
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var m hub.Map
	if err := json.NewDecoder(resp.Body).Decode(&m); err != nil {
		t.Fatal(resp.Status, err)
	}
	if len(m.Routes) != len(exporters) {
		t.Errorf("%d routes, want %d", len(m.Routes), len(exporters))
	}
	for _, r := range m.Routes {
		if want := fmt.Sprintf("front → external %s Get", r.To.Name); exporters[r.To.Name] == nil || r.Calls != 5 || r.String() != want {
			t.Errorf("%s: %d calls", r.Key, r.Calls)
		}
	}
}

// send has a client export five calls to a peer, and returns what it is told.
func send(t *testing.T, client otlptrace.Client, peer string) error {
	t.Helper()
	exporter, err := otlptrace.New(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	recorder := &spanKeeper{}
	tp := sdktrace.NewTracerProvider(sdktrace.WithSyncer(recorder), sdktrace.WithResource(resource.NewSchemaless(attribute.String("service.name", "front"))))
	for range 5 {
		_, span := tp.Tracer("test").Start(t.Context(), "Get", trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attribute.String("peer.service", peer)))
		span.End()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err = exporter.ExportSpans(ctx, recorder.spans)
	if stop := exporter.Shutdown(ctx); stop != nil {
		t.Error(stop)
	}
	if stop := tp.Shutdown(ctx); stop != nil {
		t.Error(stop)
	}
	return err
}

// spanKeeper keeps spans.
type spanKeeper struct{ spans []sdktrace.ReadOnlySpan }

func (r *spanKeeper) ExportSpans(_ context.Context, spans []sdktrace.ReadOnlySpan) error {
	r.spans = append(r.spans, spans...)
	return nil
}

func (r *spanKeeper) Shutdown(context.Context) error { return nil }
