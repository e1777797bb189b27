package hub

import (
	"encoding/hex"
	"iter"
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
	// maxTold is how many series are told in a request, about, and maxToldBytes how many bytes they have: of wide histograms there are fewer, as collectors take 4 MiB.
	maxTold      = 500
	maxToldBytes = 1 << 20
)

// OpenTelemetry's names for how long calls took.
const (
	otelClient = "rpc.client.call.duration"
	otelServer = "rpc.server.call.duration"
)

// own are requests to export what processes have counted since the hub was opened, or since a route was called again: exponential histograms, cumulative, in the name of the service that saw the calls. Each
// is made when it is asked for.
func (h *Hub) own(now time.Time) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for left := h.totals.keys(); len(left) > 0; {
			r := ownRequest{hub: h, now: now, of: map[[2]string]*metricspb.ExponentialHistogram{}}
			left = h.totals.of(left, r.add)
			if body, err := proto.Marshal(&r.data); err == nil && r.points > 0 && !yield(body) { // texts are UTF-8, so that there is none
				return
			}
		}
	}
}

// ownRequest is one that is being made.
type ownRequest struct {
	hub           *Hub
	now           time.Time
	data          metricspb.MetricsData
	of            map[[2]string]*metricspb.ExponentialHistogram // by service and name
	points, bytes int
}

// add adds what is known of a route, and reports whether there is room for another one.
func (r *ownRequest) add(k routemap.Key, s *total) bool {
	since := s.since
	if since.Before(r.hub.began) { // the first window began before the hub did
		since = r.hub.began
	}
	r.side(k, k.From.String(), otelClient, since, &s.Client)
	r.side(k, k.To.String(), otelServer, since, &s.Server)
	return r.points < maxTold && r.bytes < maxToldBytes
}

// side adds what one end of a route's calls has seen.
func (r *ownRequest) side(k routemap.Key, service, name string, since time.Time, hist *telemetry.Histogram) {
	if hist.Count() == 0 {
		return
	}
	to := r.of[[2]string{service, name}]
	if to == nil {
		to = &metricspb.ExponentialHistogram{AggregationTemporality: metricspb.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE}
		r.of[[2]string{service, name}] = to
		r.data.ResourceMetrics = append(r.data.ResourceMetrics, r.resource(service, name, to))
	}
	p := r.point(k, since, hist)
	to.DataPoints = append(to.DataPoints, p)
	r.points++
	r.bytes += proto.Size(p)
}

func (r *ownRequest) resource(service, name string, of *metricspb.ExponentialHistogram) *metricspb.ResourceMetrics {
	return &metricspb.ResourceMetrics{
		Resource: &resourcepb.Resource{Attributes: []*commonpb.KeyValue{stringAttribute("service.name", service), stringAttribute("service.instance.id", "hub "+hex.EncodeToString(r.hub.agents.self[:]))}},
		ScopeMetrics: []*metricspb.ScopeMetrics{{
			Scope:   &commonpb.InstrumentationScope{Name: tracefile.HubScope},
			Metrics: []*metricspb.Metric{{Name: name, Unit: "s", Data: &metricspb.Metric_ExponentialHistogram{ExponentialHistogram: of}}},
		}},
	}
}

func (r *ownRequest) point(k routemap.Key, since time.Time, hist *telemetry.Histogram) *metricspb.ExponentialHistogramDataPoint {
	e := hist.Exponential(1e9)
	sum, least, most := seconds(hist.Sum()), seconds(hist.Quantile(0)), seconds(hist.Quantile(1))
	attributes := []*commonpb.KeyValue{stringAttribute("rpc.system.name", "grpc"), stringAttribute("rpc.method", k.Operation), stringAttribute("peer.service", k.To.String())}
	attributes = append(attributes, transportAttribute(k.Transport)...)
	return &metricspb.ExponentialHistogramDataPoint{
		Attributes: attributes, StartTimeUnixNano: uint64(since.UnixNano()), TimeUnixNano: uint64(r.now.UnixNano()),
		Count: hist.Count(), Sum: &sum, Min: &least, Max: &most, Scale: e.Scale, ZeroCount: e.Zero,
		Positive: &metricspb.ExponentialHistogramDataPoint_Buckets{Offset: e.Offset, BucketCounts: e.Counts},
	}
}

// transportAttribute is what OpenTelemetry calls a transport, if it has a name for it, or we have.
func transportAttribute(transport string) []*commonpb.KeyValue {
	switch transport {
	case routemap.SHM, routemap.TCP, routemap.Pipe:
	case routemap.UnixStream:
		transport = "unix"
	default:
		return nil
	}
	return []*commonpb.KeyValue{stringAttribute("network.transport", transport)}
}

func stringAttribute(key, value string) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: key, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: clean([]string{value})[0]}}}
}

// tellOwn has a collector told what processes count, until the hub is closed.
func (h *Hub) tellOwn() {
	t := time.NewTicker(tellEvery)
	defer t.Stop()
	for open := true; open; {
		select {
		case <-t.C:
		case <-h.forward.ending: // what they have counted at last
			open = false
		}
		for body := range h.own(h.cfg.clock()) {
			if !h.forward.tell(body) { // all of it is told again in a minute
				break
			}
		}
	}
}
