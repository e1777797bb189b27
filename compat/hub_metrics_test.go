package compat

import (
	"context"
	"log/slog"
	"maps"
	"testing"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	"google.golang.org/grpc"
	"google.golang.org/grpc/stats/opentelemetry"

	"github.com/stile-ipc/stile/hub"
	"github.com/stile-ipc/stile/routemap"
)

// TestHubTakesMetrics: what OpenTelemetry's own exporters send of calls that are
// measured by otelgrpc, by grpc-go's own instrumentation or by both, explicit or
// exponential, by delta or cumulative, is one route with each call once.
func TestHubTakesMetrics(t *testing.T) {
	t.Setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "rpc/dup")
	exponential := func(sdkmetric.InstrumentKind) sdkmetric.Aggregation {
		return sdkmetric.AggregationBase2ExponentialHistogram{MaxSize: 160, MaxScale: 20}
	}
	for name, c := range map[string]struct {
		overHTTP, otelgrpc, own, delta bool
		aggregation                    sdkmetric.AggregationSelector
	}{
		"otelgrpc, gRPC":             {otelgrpc: true},
		"grpc-go's own, HTTP":        {own: true, overHTTP: true},
		"both, delta":                {otelgrpc: true, own: true, delta: true},
		"exponential":                {otelgrpc: true, aggregation: exponential},
		"exponential, delta, HTTP":   {own: true, aggregation: exponential, delta: true, overHTTP: true},
		"both, exponential, by HTTP": {otelgrpc: true, own: true, aggregation: exponential, overHTTP: true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			h, err := hub.Open(t.Context(), hub.Config{Dir: dir, OTLPGRPC: "127.0.0.1:0", OTLPHTTP: "127.0.0.1:0", HTTP: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			temporality := sdkmetric.DefaultTemporalitySelector
			if c.delta {
				temporality = sdkmetric.DeltaTemporalitySelector
			}
			aggregation := c.aggregation
			if aggregation == nil {
				aggregation = sdkmetric.DefaultAggregationSelector
			} else {
				aggregation = func(k sdkmetric.InstrumentKind) sdkmetric.Aggregation {
					if k == sdkmetric.InstrumentKindHistogram {
						return c.aggregation(k)
					}
					return sdkmetric.DefaultAggregationSelector(k)
				}
			}
			provider := func(service string) (*sdkmetric.PeriodicReader, *sdkmetric.MeterProvider) {
				var exporter sdkmetric.Exporter
				var err error
				if c.overHTTP {
					exporter, err = otlpmetrichttp.New(t.Context(), otlpmetrichttp.WithInsecure(), otlpmetrichttp.WithEndpoint(h.Addrs()["OTLP/HTTP"]), otlpmetrichttp.WithTemporalitySelector(temporality), otlpmetrichttp.WithAggregationSelector(aggregation))
				} else {
					exporter, err = otlpmetricgrpc.New(t.Context(), otlpmetricgrpc.WithInsecure(), otlpmetricgrpc.WithEndpoint(h.Addrs()["OTLP/gRPC"]), otlpmetricgrpc.WithTemporalitySelector(temporality), otlpmetricgrpc.WithAggregationSelector(aggregation))
				}
				if err != nil {
					t.Fatal(err)
				}
				r := sdkmetric.NewPeriodicReader(exporter, sdkmetric.WithInterval(time.Hour))
				return r, sdkmetric.NewMeterProvider(sdkmetric.WithReader(r), sdkmetric.WithResource(resource.NewSchemaless(attribute.String("service.name", service))))
			}
			clientReader, client := provider("front")
			serverReader, server := provider("back")
			own := func(mp *sdkmetric.MeterProvider) opentelemetry.Options {
				return opentelemetry.Options{MetricsOptions: opentelemetry.MetricsOptions{MeterProvider: mp}}
			}
			var sOpts []grpc.ServerOption
			var cOpts []grpc.DialOption
			if c.otelgrpc {
				sOpts = append(sOpts, grpc.StatsHandler(otelgrpc.NewServerHandler(otelgrpc.WithMeterProvider(server))))
				cOpts = append(cOpts, grpc.WithStatsHandler(otelgrpc.NewClientHandler(otelgrpc.WithMeterProvider(client))))
			}
			if c.own {
				sOpts = append(sOpts, opentelemetry.ServerOption(own(server)))
				cOpts = append(cOpts, opentelemetry.DialOption(own(client)))
			}
			e := newEnv(t, plainDoor("grpc-go"))
			e.serve(nil, sOpts...)
			cc := e.dial(cOpts...)
			for range 2 {
				for range 7 {
					e.unary(e.ctx, cc, "a", grpc.StaticMethod())
				}
				for _, r := range []*sdkmetric.PeriodicReader{clientReader, serverReader} {
					if err := flush(r); err != nil {
						t.Error(err)
					}
				}
			}
			e.finish() // all calls have ended at the server
			e.close()
			for _, mp := range []*sdkmetric.MeterProvider{client, server} {
				if err := mp.Shutdown(t.Context()); err != nil {
					t.Error(err)
				}
			}
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			m := mapAfter(ctx, t, h, dir)
			got := map[string]uint64{}
			for _, r := range m.Routes {
				got[r.String()] += r.Calls
				if r.Sources != routemap.FromMetrics || r.Client.Count() != 14 || r.Server.Count() != 14 {
					t.Errorf("%s: by %v, %d and %d durations", r.Key, r.Sources, r.Client.Count(), r.Server.Count())
				}
			}
			if want := map[string]uint64{"front → back compat.Test/Unary": 14}; !maps.Equal(got, want) {
				t.Errorf("%v", got)
			}
		})
	}
}

// flush has a reader export now.
func flush(r *sdkmetric.PeriodicReader) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return r.ForceFlush(ctx)
}

// mapAfter closes a hub and returns the map that it has kept.
func mapAfter(ctx context.Context, t *testing.T, h *hub.Hub, dir string) hub.Map {
	t.Helper()
	if err := h.Close(ctx); err != nil {
		t.Fatal(err)
	}
	again, err := hub.Open(ctx, hub.Config{Dir: dir, OTLPGRPC: hub.Off, OTLPHTTP: hub.Off, HTTP: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	m, err := again.Map(ctx, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	if err != nil {
		t.Error(err)
	}
	if err := again.Close(ctx); err != nil {
		t.Error(err)
	}
	return m
}
