package hub

import (
	"encoding/hex"
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/protobuf/proto"

	"github.com/stile-ipc/stile/routemap"
	"github.com/stile-ipc/stile/routemap/tracefile"
	"github.com/stile-ipc/stile/telemetry"
)

const (
	// tellEvery is how often a collector is told what processes count.
	tellEvery = time.Minute
	// maxTold is how many series are told in a request.
	maxTold = 500
)

// OpenTelemetry's names for how long calls took.
const (
	otelClient = "rpc.client.call.duration"
	otelServer = "rpc.server.call.duration"
)

// own are requests to export what processes have counted since the hub was opened, or since a route was called again: exponential histograms, cumulative, in the name of the service that saw the calls.
func (h *Hub) own(now time.Time) (all [][]byte) {
	data, n := new(metricspb.MetricsData), 0
	of := map[[2]string]*metricspb.ExponentialHistogram{} // by service and name
	flush := func() {
		if body, err := proto.Marshal(data); err == nil && n > 0 {
			all = append(all, body)
		}
		data, n = new(metricspb.MetricsData), 0
		clear(of)
	}
	tell := func(k routemap.Key, service, name string, since time.Time, hist *telemetry.Histogram) {
		if hist.Count() == 0 {
			return
		}
		to := of[[2]string{service, name}]
		if to == nil {
			to = &metricspb.ExponentialHistogram{AggregationTemporality: metricspb.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE}
			of[[2]string{service, name}] = to
			data.ResourceMetrics = append(data.ResourceMetrics, h.resourceMetrics(service, name, to))
		}
		to.DataPoints = append(to.DataPoints, ownPoint(k, hist, since, now))
		if n++; n >= maxTold {
			flush()
		}
	}
	h.totals.each(func(k routemap.Key, s *total) {
		if s.Sources&routemap.FromStile == 0 || k.Mode == routemap.Async {
			return
		}
		since := s.since
		if since.Before(h.began) { // the first window began before the hub did
			since = h.began
		}
		tell(k, k.From.String(), otelClient, since, &s.Client)
		tell(k, k.To.String(), otelServer, since, &s.Server)
	})
	flush()
	return all
}

func (h *Hub) resourceMetrics(service, name string, of *metricspb.ExponentialHistogram) *metricspb.ResourceMetrics {
	return &metricspb.ResourceMetrics{
		Resource: &resourcepb.Resource{Attributes: []*commonpb.KeyValue{stringAttribute("service.name", service), stringAttribute("service.instance.id", "hub "+hex.EncodeToString(h.agents.self[:]))}},
		ScopeMetrics: []*metricspb.ScopeMetrics{{
			Scope:   &commonpb.InstrumentationScope{Name: tracefile.HubScope},
			Metrics: []*metricspb.Metric{{Name: name, Unit: "s", Data: &metricspb.Metric_ExponentialHistogram{ExponentialHistogram: of}}},
		}},
	}
}

func ownPoint(k routemap.Key, hist *telemetry.Histogram, since, now time.Time) *metricspb.ExponentialHistogramDataPoint {
	e := hist.Exponential(1e9)
	sum, least, most := seconds(hist.Sum()), seconds(hist.Quantile(0)), seconds(hist.Quantile(1))
	attributes := []*commonpb.KeyValue{stringAttribute("rpc.system.name", "grpc"), stringAttribute("rpc.method", k.Operation), stringAttribute("peer.service", k.To.String())}
	switch k.Transport {
	case routemap.SHM, routemap.TCP, routemap.Pipe:
		attributes = append(attributes, stringAttribute("network.transport", k.Transport))
	case routemap.UnixStream:
		attributes = append(attributes, stringAttribute("network.transport", "unix"))
	}
	return &metricspb.ExponentialHistogramDataPoint{
		Attributes: attributes, StartTimeUnixNano: uint64(since.UnixNano()), TimeUnixNano: uint64(now.UnixNano()),
		Count: hist.Count(), Sum: &sum, Min: &least, Max: &most, Scale: e.Scale, ZeroCount: e.Zero,
		Positive: &metricspb.ExponentialHistogramDataPoint_Buckets{Offset: e.Offset, BucketCounts: e.Counts},
	}
}

func stringAttribute(key, value string) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: key, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: clean([]string{value})[0]}}}
}

// tellOwn has a collector told what processes count, until the hub is closed.
func (h *Hub) tellOwn() {
	t := time.NewTicker(tellEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			h.forwardOwn()
		case <-h.forward.ending:
			return
		}
	}
}

func (h *Hub) forwardOwn() {
	for _, body := range h.own(h.cfg.clock()) {
		h.forward.offer(parcel{signal: points, body: body})
	}
}
