package compat

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/resource"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/stile-ipc/stile"
	"github.com/stile-ipc/stile/hub"
	"github.com/stile-ipc/stile/routemap"
	"github.com/stile-ipc/stile/telemetry/otelmetric"
)

// shmDoor is the first door, over shared memory.
func shmDoor(t *testing.T) door {
	for _, d := range stileDoors {
		if d.carries == "shm" {
			return d
		}
	}
	t.Fatal("there is none")
	return door{}
}

// durations are how many calls a scope tells of, and how many seconds they took, by metric.
func durations(all *metricdata.ResourceMetrics, scope string) map[string][2]float64 {
	got := map[string][2]float64{}
	add := func(name string, n uint64, sum float64) {
		got[name] = [2]float64{got[name][0] + float64(n), got[name][1] + sum}
	}
	for _, s := range all.ScopeMetrics {
		if s.Scope.Name != scope {
			continue
		}
		for _, m := range s.Metrics {
			switch data := m.Data.(type) {
			case metricdata.Histogram[float64]:
				for _, p := range data.DataPoints {
					add(m.Name, p.Count, p.Sum)
				}
			case metricdata.ExponentialHistogram[float64]:
				for _, p := range data.DataPoints {
					add(m.Name, p.Count, p.Sum)
				}
			}
		}
	}
	return got
}

// TestProducerAgrees: of the same calls, Stile's producer and otelgrpc tell an SDK the same number, and as long as they took; and Prometheus can scrape both.
func TestProducerAgrees(t *testing.T) {
	t.Setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "rpc")
	p := otelmetric.NewProducer(otelmetric.WithCallDuration())
	defer p.Close()
	registry := prometheus.NewRegistry()
	scraped, err := otelprometheus.New(otelprometheus.WithRegisterer(registry), otelprometheus.WithProducer(p))
	if err != nil {
		t.Fatal(err)
	}
	reader := sdkmetric.NewManualReader(sdkmetric.WithProducer(p))
	mp := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader), sdkmetric.WithReader(scraped))
	defer mp.Shutdown(context.Background())

	const calls = 200
	e := newEnv(t, shmDoor(t))
	e.serve(&service{unary: func(context.Context, *msg) (*msg, error) {
		time.Sleep(time.Millisecond) // which both measure, whatever else the machine does
		return new(msg), nil
	}}, grpc.StatsHandler(otelgrpc.NewServerHandler(otelgrpc.WithMeterProvider(mp))))
	cc := e.dial(grpc.WithStatsHandler(otelgrpc.NewClientHandler(otelgrpc.WithMeterProvider(mp))))
	for range calls {
		e.unary(e.ctx, cc, "a", grpc.StaticMethod())
	}
	e.finish()
	e.close()
	e.checkLocal()

	var all metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	ours, theirs := durations(&all, otelmetric.ScopeName), durations(&all, otelgrpc.ScopeName)
	for _, name := range []string{"rpc.client.call.duration", "rpc.server.call.duration"} {
		if ours[name][0] != calls || theirs[name][0] != calls || ours[name][1] < calls*0.001 || ours[name][1] > 2*theirs[name][1] || theirs[name][1] > 2*ours[name][1] {
			t.Errorf("%s: %v, otelgrpc: %v", name, ours[name], theirs[name])
		}
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			counts[f.GetName()] += m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	for name, want := range map[string]float64{"stile_call_count_total": calls, "stile_server_call_count_total": calls, "rpc_client_call_duration_seconds": 2 * calls} {
		if counts[name] != want {
			t.Errorf("%s is %v, want %v: %v", name, counts[name], want, counts)
		}
	}
}

// TestStreamsThatDoNotBegin: a stream that cannot begin is a call that failed, once, whichever grpc-go tells of its end.
func TestStreamsThatDoNotBegin(t *testing.T) {
	p := otelmetric.NewProducer()
	defer p.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	_ = l.Close()
	e := newEnv(t, shmDoor(t))
	defer e.close()
	cc := e.dialTo(nobody)
	for range 3 {
		if _, err := cc.NewStream(e.ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/compat.Test/Bidi"); status.Code(err) != codes.Unavailable {
			t.Errorf("%v", err)
		}
	}
	all, err := p.Produce(t.Context())
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	for _, m := range all[0].Metrics {
		if points := m.Data.(metricdata.Sum[int64]).DataPoints; len(points) != 1 || points[0].Value != 3 {
			t.Errorf("%s: %+v", m.Name, points)
		}
	}
}

// TestHubTakesProducer: what an SDK exports of Stile's producer is a route, and one of which the process tells the same hub itself has each call once.
func TestHubTakesProducer(t *testing.T) {
	t.Setenv("OTEL_SERVICE_NAME", "both")
	for _, reports := range []bool{false, true} {
		t.Run(fmt.Sprintf("reports %v", reports), func(t *testing.T) {
			dir := t.TempDir()
			h, err := hub.Open(t.Context(), hub.Config{Dir: dir, OTLPGRPC: "127.0.0.1:0", OTLPHTTP: "127.0.0.1:0", HTTP: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			exporter, err := otlpmetricgrpc.New(t.Context(), otlpmetricgrpc.WithInsecure(), otlpmetricgrpc.WithEndpoint(h.Addrs()["OTLP/gRPC"]))
			if err != nil {
				t.Fatal(err)
			}
			p := otelmetric.NewProducer(otelmetric.WithCallDuration())
			defer p.Close()
			reader := sdkmetric.NewPeriodicReader(exporter, sdkmetric.WithInterval(time.Hour), sdkmetric.WithProducer(p))
			mp := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader), sdkmetric.WithResource(resource.NewSchemaless(attribute.String("service.name", "both"))))
			stop := func(context.Context) {}
			want := routemap.FromMetrics
			if reports {
				if stop, err = stile.ReportTo(h.Addrs()["OTLP/gRPC"]); err != nil {
					t.Fatal(err)
				}
				want = routemap.FromStile
			}
			e := newEnv(t, shmDoor(t))
			e.serve(&service{unary: func(_ context.Context, in *msg) (*msg, error) {
				if in.GetValue() == "bad" {
					return nil, status.Error(codes.Unavailable, "bad")
				}
				return new(msg), nil
			}})
			cc := e.dial()
			for range 2 {
				for _, in := range []string{"a", "a", "bad", "a", "bad", "a", "a"} {
					e.unary(e.ctx, cc, in, grpc.StaticMethod())
				}
				if err := flush(reader); err != nil {
					t.Error(err)
				}
			}
			e.finish()
			e.close()
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			stop(ctx)
			if err := mp.Shutdown(ctx); err != nil {
				t.Error(err)
			}
			m := mapAfter(ctx, t, h, dir)
			calls := map[string]uint64{}
			for _, r := range m.Routes {
				if r.Operation != "compat.Test/Unary" { // the hub's, which is in this process
					continue
				}
				calls[r.String()] += r.Calls
				failed := uint64(0)
				for _, n := range r.Errors {
					failed += n
				}
				if failed != 4 || r.Failures.Count() != 4 || reports && r.Errors["UNAVAILABLE"] != 4 {
					t.Errorf("%s: %v failed of 4, %d durations", r.Key, r.Errors, r.Failures.Count())
				}
				if r.Sources&(routemap.FromStile|routemap.FromMetrics) != want || r.Transport != routemap.SHM || r.Client.Count() != 14 || r.Server.Count() != 14 {
					t.Errorf("%s: by %v, %d and %d durations", r.Key, r.Sources, r.Client.Count(), r.Server.Count())
				}
			}
			if want := map[string]uint64{"both → both compat.Test/Unary": 14}; !maps.Equal(calls, want) {
				t.Errorf("%v", calls)
			}
		})
	}
}
