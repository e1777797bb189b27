// Package otelmetric tells the OpenTelemetry SDK of a program what Stile counts of its calls, to be exported beside the program's own metrics:
//
//	calls := otelmetric.NewProducer() // before the first client or server is made
//	reader := metric.NewPeriodicReader(exporter, metric.WithProducer(calls))
//	provider := metric.NewMeterProvider(metric.WithReader(reader))
//
// It needs no hub, and stands beside one. docs/HUB.md lists the metrics.
package otelmetric

import (
	"cmp"
	"context"
	"net"
	"slices"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/stile-ipc/stile/telemetry"
)

// ScopeName is the instrumentation scope of all metrics.
const ScopeName = "github.com/stile-ipc/stile/telemetry/otelmetric"

// Producer tells what the process has counted since it was made. Its methods are safe for concurrent use, and one may be given to several readers.
type Producer struct {
	totals    *telemetry.Totals // nil: nothing is counted
	durations bool
}

var _ metric.Producer = (*Producer)(nil)

// Option is one of [NewProducer].
type Option func(*Producer)

// WithCallDuration has the durations of calls told, too, as rpc.client.call.duration and rpc.server.call.duration, exponential histograms of seconds, of calls that failed with an error.type of _OTHER: for programs
// that do not measure their calls already, as by otelgrpc, beside whose the same calls would be there twice. Of calls over gRPC the client's alone are told.
func WithCallDuration() Option { return func(p *Producer) { p.durations = true } }

// NewProducer has this process count its calls and messages, on connections that are made from now on, and returns what tells of them, until it is closed. Each local call takes about 150 ns
// more at each side, and no allocation; of calls over gRPC the client's are counted. With STILE_TELEMETRY=off nothing is counted, and nothing is told.
func NewProducer(opts ...Option) *Producer {
	p := &Producer{totals: telemetry.Process().Totals()}
	for _, o := range opts {
		o(p)
	}
	return p
}

// Close ends the counting, if nobody else wants it; connections that are open go on with it until they are closed, for nobody. What was counted is still told. It returns nil.
func (p *Producer) Close() error {
	p.totals.Close()
	return nil
}

// Produce returns all metrics, cumulative whatever temporality the reader's exporter prefers. It fails if ctx has ended.
func (p *Producer) Produce(ctx context.Context) ([]metricdata.ScopeMetrics, error) {
	if err := ctx.Err(); err != nil || p.totals == nil {
		return nil, err
	}
	of := series{start: p.totals.Began(), now: time.Now(), durations: p.durations, all: map[string]metricdata.Aggregation{}}
	p.totals.Each(of.add)
	told := metricdata.ScopeMetrics{Scope: instrumentation.Scope{Name: ScopeName}}
	for _, m := range metrics {
		if data := of.all[m.Name]; data != nil {
			told.Metrics = append(told.Metrics, metricdata.Metrics{Name: m.Name, Description: m.Description, Unit: m.Unit, Data: data})
		}
	}
	if told.Metrics == nil {
		return nil, nil
	}
	return []metricdata.ScopeMetrics{told}, nil
}

// side is an end of calls.
type side struct{ calls, duration, prefix string }

var (
	client = side{"made", "rpc.client.call.duration", "stile.call."}
	server = side{"served", "rpc.server.call.duration", "stile.server.call."}
)

// What is told of a side's calls, after its prefix.
const (
	calls     = "count"
	errors    = "errors"
	wait      = "wait"
	decisions = "decisions"
	wakeups   = "wakeups"
	spin      = "spin"
	request   = "request.size"
	response  = "response.size"
)

// What is told of messages, by OpenTelemetry's names where it has some.
const (
	sendDuration    = "messaging.client.operation.duration"
	processDuration = "messaging.process.duration"
	messageErrors   = "stile.message.errors"
	messageWait     = "stile.message.wait"
)

// metrics are all that there are, in order.
var metrics = slices.Concat(client.metrics(), server.metrics(), []metricdata.Metrics{
	{Name: sendDuration, Unit: "s", Description: "Duration until a message was taken in"},
	{Name: processDuration, Unit: "s", Description: "Duration of handling a message"},
	{Name: messageErrors, Unit: "{message}", Description: "Messages that could not be sent, or that handlers have failed on"},
	{Name: messageWait, Unit: "s", Description: "Time that messages have waited for a handler since they were taken in"},
})

func (s side) metrics() []metricdata.Metrics {
	return []metricdata.Metrics{
		{Name: s.duration, Unit: "s", Description: "Duration of calls that were " + s.calls},
		{Name: s.prefix + calls, Unit: "{call}", Description: "Calls that were " + s.calls},
		{Name: s.prefix + errors, Unit: "{call}", Description: "Calls that were " + s.calls + " and did not end with OK"},
		{Name: s.prefix + wait, Unit: "s", Description: "Where the time of local unary calls that were " + s.calls + " went, by part"},
		{Name: s.prefix + decisions, Unit: "{decision}", Description: "Decisions of policies and deadlines about calls that were " + s.calls},
		{Name: s.prefix + wakeups, Unit: "{wakeup}", Description: "Times that the other end was woken, a system call each, for calls that were " + s.calls},
		{Name: s.prefix + spin, Unit: "s", Description: "Time that this end waited without sleep for calls that were " + s.calls},
		{Name: s.prefix + request, Unit: "By", Description: "Bytes of requests of local calls that were " + s.calls},
		{Name: s.prefix + response, Unit: "By", Description: "Bytes of responses of local calls that were " + s.calls},
	}
}

// series are data points that are being gathered, by metric.
type series struct {
	start, now time.Time
	durations  bool
	all        map[string]metricdata.Aggregation
}

// add adds what was counted on a way of calls.
func (s *series) add(of telemetry.TotalOf, total *telemetry.Total) {
	if of.Topic != "" {
		s.message(of, total)
		return
	}
	to, at, w := client, callAttributes(of), total.Waits
	if of.Side == telemetry.Server {
		to = server
	}
	if s.durations {
		s.histogram(to.duration, at, total)
	}
	s.count(to.prefix+calls, total.Calls(), at)
	s.failures(to.prefix+errors, at, total)
	for part, ns := range map[string]int64{"client_queue": w.ClientQueue, "transport": w.Transport, "server_queue": w.ServerQueue, "handler": w.Handler} {
		s.seconds(to.prefix+wait, float64(ns), at, attribute.String("stile.call.part", part)) // a server knows of none in the first two
	}
	for i, n := range total.Decisions {
		s.count(to.prefix+decisions, n, at, attribute.String("stile.call.decision", telemetry.Decision(i).String()))
	}
	s.count(to.prefix+wakeups, total.Use.Wakes, at)
	s.seconds(to.prefix+spin, float64(total.Use.Spin), at)
	s.count(to.prefix+request, uint64(total.Request), at)
	s.count(to.prefix+response, uint64(total.Response), at)
}

// message adds what was counted of a topic's messages.
func (s *series) message(of telemetry.TotalOf, total *telemetry.Total) {
	operation, duration := "send", sendDuration
	if of.Side == telemetry.Server {
		operation, duration = "process", processDuration
	}
	at := []attribute.KeyValue{
		attribute.String("messaging.system", "nats"), attribute.String("messaging.operation.name", operation),
		attribute.String("messaging.operation.type", operation), attribute.String("messaging.destination.name", of.Topic),
	}
	s.histogram(duration, at, total)
	s.failures(messageErrors, at, total)
	s.seconds(messageWait, total.Stored, at)
}

func (s *series) failures(name string, at []attribute.KeyValue, total *telemetry.Total) {
	by := map[string]uint64{}
	for code, n := range total.Codes {
		if code != 0 && n > 0 {
			by[cmp.Or(telemetry.CodeName(code), "UNKNOWN")] += n
		}
	}
	for code, n := range by {
		s.count(name, n, at, attribute.String("error.type", code))
	}
}

// histogram adds the durations of what went well, and of what failed, of which it is not known which failed how.
func (s *series) histogram(name string, at []attribute.KeyValue, total *telemetry.Total) {
	good := total.Duration.Without(&total.Failures)
	s.durationsOf(name, &good, at)
	s.durationsOf(name, &total.Failures, at, attribute.String("error.type", "_OTHER"))
}

// durationsOf adds a point to a histogram. One of nothing is not told, nor are the sums below if they are 0.
func (s *series) durationsOf(name string, h *telemetry.Histogram, at []attribute.KeyValue, more ...attribute.KeyValue) {
	if h.Count() == 0 {
		return
	}
	e := h.Exponential(1e9)
	to, _ := s.all[name].(metricdata.ExponentialHistogram[float64])
	to.Temporality = metricdata.CumulativeTemporality
	to.DataPoints = append(to.DataPoints, metricdata.ExponentialHistogramDataPoint[float64]{
		Attributes: set(at, more), StartTime: s.start, Time: s.now, Count: h.Count(), Sum: h.Sum() / 1e9,
		Scale: e.Scale, ZeroCount: e.Zero, PositiveBucket: metricdata.ExponentialBucket{Offset: e.Offset, Counts: e.Counts},
	})
	s.all[name] = to
}

func (s *series) count(name string, n uint64, at []attribute.KeyValue, more ...attribute.KeyValue) {
	sum(s, name, int64(n), at, more)
}

func (s *series) seconds(name string, ns float64, at []attribute.KeyValue, more ...attribute.KeyValue) {
	sum(s, name, ns/1e9, at, more)
}

func sum[N int64 | float64](s *series, name string, value N, at, more []attribute.KeyValue) {
	if value == 0 {
		return
	}
	to, _ := s.all[name].(metricdata.Sum[N])
	to.Temporality, to.IsMonotonic = metricdata.CumulativeTemporality, true
	to.DataPoints = append(to.DataPoints, metricdata.DataPoint[N]{Attributes: set(at, more), StartTime: s.start, Time: s.now, Value: value})
	s.all[name] = to
}

func set(at, more []attribute.KeyValue) attribute.Set {
	return attribute.NewSet(slices.Concat(at, more)...)
}

// callAttributes name calls by OpenTelemetry's conventions. No two ways of calls have the same.
func callAttributes(of telemetry.TotalOf) []attribute.KeyValue {
	at := []attribute.KeyValue{attribute.String("rpc.system.name", "grpc"), attribute.String("rpc.method", of.Method)}
	if of.Transport != "" {
		at = append(at, attribute.String("network.transport", of.Transport))
	}
	if of.Address == "" {
		return at
	}
	if host, port, err := net.SplitHostPort(of.Address); err == nil {
		if n, err := strconv.Atoi(port); err == nil && net.JoinHostPort(host, strconv.Itoa(n)) == of.Address { // else two addresses would be one
			return append(at, attribute.String("server.address", host), attribute.Int("server.port", n))
		}
	}
	return append(at, attribute.String("server.address", of.Address))
}
