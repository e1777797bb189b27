package rpc

import (
	"context"
	"os"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc/filters"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
)

// Tracer makes the spans of what no library traces. They come to nothing unless [Main] found where to send them.
var Tracer = otel.Tracer("github.com/stile-ipc/stile/examples/shop")

// startTracing has spans sent to where OpenTelemetry's environment variables say, if they do, and returns what ends that; nil: they do not.
func startTracing(ctx context.Context, name string) (func(context.Context) error, error) {
	if os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") == "" && os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") == "" {
		return nil, nil
	}
	exporter, err := otlptracegrpc.New(ctx)
	if err != nil {
		return nil, err
	}
	about, err := resource.New(ctx, resource.WithAttributes(attribute.String("service.name", name)), resource.WithHost(), resource.WithProcessPID(), resource.WithFromEnv())
	if err != nil {
		return nil, err
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(about))
	otel.SetTracerProvider(provider)
	otel.SetTextMapPropagator(propagation.TraceContext{})
	return provider.Shutdown, nil
}

// traced are calls that are traced: all but those of health.
var traced = otelgrpc.WithFilter(filters.Not(filters.HealthCheck()))

func (cfg *Config) dialOptions() []grpc.DialOption {
	if !cfg.tracing {
		return nil
	}
	return []grpc.DialOption{grpc.WithStatsHandler(otelgrpc.NewClientHandler(traced))}
}

func (cfg *Config) serverOptions() []grpc.ServerOption {
	if !cfg.tracing {
		return nil
	}
	return []grpc.ServerOption{grpc.StatsHandler(otelgrpc.NewServerHandler(traced))}
}

// StartMessage starts the span of a message that is sent, or handled.
func StartMessage(ctx context.Context, kind trace.SpanKind, topic, operation string) (context.Context, trace.Span) {
	return Tracer.Start(ctx, operation+" "+topic, trace.WithSpanKind(kind), trace.WithAttributes(
		attribute.String("messaging.system", "nats"), attribute.String("messaging.destination.name", topic), attribute.String("messaging.operation.name", operation)))
}

// StartRequest starts the span of an HTTP request that is served.
func StartRequest(ctx context.Context, method, route string) (context.Context, trace.Span) {
	return Tracer.Start(ctx, method+" "+route, trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(
		attribute.String("http.request.method", method), attribute.String("http.route", route)))
}
