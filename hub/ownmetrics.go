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

// OpenTelemetry's names for how long calls took, and ours for what it has none for.
const (
	otelClient   = "rpc.client.call.duration"
	otelServer   = "rpc.server.call.duration"
	ownErrors    = "stile.call.errors"    // by error.type
	ownWait      = "stile.call.wait"      // seconds, by stile.call.part
	ownDecisions = "stile.call.decisions" // by stile.call.decision
	ownSwitches  = "stile.call.context_switches"
	ownWakes     = "stile.call.wakeups"
	ownRequest   = "stile.call.request.size" // bytes in all
	ownResponse  = "stile.call.response.size"
)

// own are requests to export what processes have counted since the hub was opened, or since a route was called again: exponential histograms, cumulative, in the name of the service that saw the calls. Each
// is made when it is asked for.
func (h *Hub) own(now time.Time) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for left := h.totals.keys(); len(left) > 0; {
			r := ownBody{hub: h, now: now, of: map[[2]string]*metricspb.Metric{}}
			left = h.totals.of(left, r.add)
			if body, err := proto.Marshal(&r.data); err == nil && r.points > 0 && !yield(body) { // texts are UTF-8, so that there is none
				return
			}
		}
	}
}

// ownBody is a request that is being made.
type ownBody struct {
	hub           *Hub
	now           time.Time
	data          metricspb.MetricsData
	of            map[[2]string]*metricspb.Metric // by service and name
	points, bytes int
}

// add adds what is known of a route, and reports whether there is room for another one.
func (r *ownBody) add(k routemap.Key, s *total) bool {
	since := s.since
	if since.Before(r.hub.began) { // the first window began before the hub did
		since = r.hub.began
	}
	at := ownPoint{r, k, uint64(since.UnixNano()), uint64(r.now.UnixNano())}
	at.durations(k.From.String(), otelClient, &s.Client)
	at.durations(k.To.String(), otelServer, &s.Server)
	for class, n := range s.Errors {
		at.sum(ownErrors, "{call}", float64(n), stringAttribute("error.type", class))
	}
	for part, ns := range waitParts(&s.Stats) {
		at.sum(ownWait, "s", seconds(ns), stringAttribute("stile.call.part", part))
	}
	for i, n := range s.Decisions.Counts() {
		at.sum(ownDecisions, "{decision}", float64(n), stringAttribute("stile.call.decision", routemap.DecisionNames()[i].Key))
	}
	at.sum(ownSwitches, "{switch}", float64(s.Switches))
	at.sum(ownWakes, "{wakeup}", float64(s.Wakes))
	at.sum(ownRequest, "By", s.Request.Sum())
	at.sum(ownResponse, "By", s.Response.Sum())
	return r.points < maxTold && r.bytes < maxToldBytes
}

// metric is that of a service in the request.
func (r *ownBody) metric(service, name, unit string) *metricspb.Metric {
	m := r.of[[2]string{service, name}]
	if m == nil {
		m = &metricspb.Metric{Name: name, Unit: unit}
		r.of[[2]string{service, name}] = m
		r.data.ResourceMetrics = append(r.data.ResourceMetrics, &metricspb.ResourceMetrics{
			Resource:     &resourcepb.Resource{Attributes: []*commonpb.KeyValue{stringAttribute("service.name", service), stringAttribute("service.instance.id", "hub "+hex.EncodeToString(r.hub.agents.self[:]))}},
			ScopeMetrics: []*metricspb.ScopeMetrics{{Scope: &commonpb.InstrumentationScope{Name: tracefile.HubScope}, Metrics: []*metricspb.Metric{m}}},
		})
	}
	return m
}

func (r *ownBody) took(p proto.Message) {
	r.points++
	r.bytes += proto.Size(p)
}

// ownPoint is what is said of a route.
type ownPoint struct {
	in        *ownBody
	of        routemap.Key
	from, now uint64 // ns since 1970
}

// durations adds what one end of the route's calls has seen.
func (p ownPoint) durations(service, name string, hist *telemetry.Histogram) {
	if hist.Count() == 0 {
		return
	}
	m := p.in.metric(service, name, "s")
	if m.Data == nil {
		m.Data = &metricspb.Metric_ExponentialHistogram{ExponentialHistogram: &metricspb.ExponentialHistogram{AggregationTemporality: metricspb.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE}}
	}
	e := hist.Exponential(1e9)
	sum, least, most := seconds(hist.Sum()), seconds(hist.Quantile(0)), seconds(hist.Quantile(1))
	point := &metricspb.ExponentialHistogramDataPoint{
		Attributes: p.attributes(), StartTimeUnixNano: p.from, TimeUnixNano: p.now,
		Count: hist.Count(), Sum: &sum, Min: &least, Max: &most, Scale: e.Scale, ZeroCount: e.Zero,
		Positive: &metricspb.ExponentialHistogramDataPoint_Buckets{Offset: e.Offset, BucketCounts: e.Counts},
	}
	to := m.GetExponentialHistogram()
	to.DataPoints = append(to.DataPoints, point)
	p.in.took(point)
}

// sum adds a number that does nothing but grow, in the name of who calls. One that is 0 is not told.
func (p ownPoint) sum(name, unit string, value float64, more ...*commonpb.KeyValue) {
	if value == 0 {
		return
	}
	m := p.in.metric(p.of.From.String(), name, unit)
	if m.Data == nil {
		m.Data = &metricspb.Metric_Sum{Sum: &metricspb.Sum{IsMonotonic: true, AggregationTemporality: metricspb.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE}}
	}
	point := &metricspb.NumberDataPoint{Attributes: append(p.attributes(), more...), StartTimeUnixNano: p.from, TimeUnixNano: p.now, Value: &metricspb.NumberDataPoint_AsDouble{AsDouble: value}}
	to := m.GetSum()
	to.DataPoints = append(to.DataPoints, point)
	p.in.took(point)
}

func (p ownPoint) attributes() []*commonpb.KeyValue {
	all := []*commonpb.KeyValue{stringAttribute("rpc.system.name", "grpc"), stringAttribute("rpc.method", p.of.Operation), stringAttribute("peer.service", p.of.To.String())}
	return append(all, transportAttribute(p.of.Transport)...)
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
