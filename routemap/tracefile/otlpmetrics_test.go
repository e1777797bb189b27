package tracefile

import (
	"math"
	"reflect"
	"slices"
	"testing"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/stile-ipc/stile/routemap"
)

func metricsOf(service string, all ...*metricspb.Metric) *metricspb.MetricsData {
	return &metricspb.MetricsData{ResourceMetrics: []*metricspb.ResourceMetrics{{
		Resource:     &resourcepb.Resource{Attributes: []*commonpb.KeyValue{attribute("service.name", service), attribute("host.name", "h1")}},
		ScopeMetrics: []*metricspb.ScopeMetrics{{Scope: &commonpb.InstrumentationScope{Name: "scope"}, Metrics: all}},
	}}}
}

func explicitMetric(name, unit string, p *metricspb.HistogramDataPoint) *metricspb.Metric {
	return &metricspb.Metric{Name: name, Unit: unit, Data: &metricspb.Metric_Histogram{Histogram: &metricspb.Histogram{
		AggregationTemporality: metricspb.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE, DataPoints: []*metricspb.HistogramDataPoint{p},
	}}}
}

func exponentialMetric(name, unit string, p *metricspb.ExponentialHistogramDataPoint) *metricspb.Metric {
	return &metricspb.Metric{Name: name, Unit: unit, Data: &metricspb.Metric_ExponentialHistogram{ExponentialHistogram: &metricspb.ExponentialHistogram{
		AggregationTemporality: metricspb.AggregationTemporality_AGGREGATION_TEMPORALITY_DELTA, DataPoints: []*metricspb.ExponentialHistogramDataPoint{p},
	}}}
}

func value(x float64) *float64 { return &x }

// TestOTLPMetrics: what a histogram says of calls is read by names of any age, in either encoding; of other metrics it is told how many points there were.
func TestOTLPMetrics(t *testing.T) {
	data := metricsOf("front",
		explicitMetric("rpc.client.call.duration", "s", &metricspb.HistogramDataPoint{
			Attributes:        []*commonpb.KeyValue{attribute("rpc.method", "s.S/M"), attribute("server.address", "back"), attribute("server.port", "50051"), attribute("rpc.response.status_code", "NOT_FOUND")},
			StartTimeUnixNano: 5, TimeUnixNano: 9, Count: 3, Sum: value(0.5), Max: value(0.3), BucketCounts: []uint64{1, 2, 0}, ExplicitBounds: []float64{0.1, 0.2},
		}),
		explicitMetric("rpc.server.duration", "ms", &metricspb.HistogramDataPoint{
			Attributes: []*commonpb.KeyValue{attribute("rpc.service", "s.S"), attribute("rpc.method", "M"), attribute("rpc.grpc.status_code", "0")}, TimeUnixNano: 9, Count: 2, Sum: value(5),
		}),
		exponentialMetric("grpc.client.attempt.duration", "", &metricspb.ExponentialHistogramDataPoint{
			Attributes:   []*commonpb.KeyValue{attribute("grpc.method", "s.S/M"), attribute("grpc.target", "dns:///back:50051"), attribute("grpc.status", "OK")},
			TimeUnixNano: 9, Count: 4, ZeroCount: 1, Scale: 3, Positive: &metricspb.ExponentialHistogramDataPoint_Buckets{Offset: -20, BucketCounts: []uint64{1, 0, 2}},
		}),
		explicitMetric("http.server.request.duration", "s", &metricspb.HistogramDataPoint{TimeUnixNano: 9}),
		&metricspb.Metric{Name: "go.goroutine.count", Data: &metricspb.Metric_Gauge{Gauge: &metricspb.Gauge{DataPoints: []*metricspb.NumberDataPoint{{}, {}}}}},
	)
	read := func(f func([]byte, func(*Point)) (MetricCounts, error), body []byte) []*Point {
		var all []*Point
		counts, err := f(body, func(p *Point) { all = append(all, p) })
		if err != nil || counts.Points != 3 || counts.Others != 3 || len(counts.LeftOut) != 0 {
			t.Fatal(err, counts)
		}
		return all
	}
	got := read(OTLPMetrics, marshal(t, data))
	inJSON, err := protojson.Marshal(data)
	if err != nil {
		t.Fatal(err)
	}
	a, b, c := got[0], got[1], got[2]
	a.Sum, b.Sum = math.Round(a.Sum), math.Round(b.Sum)
	for _, p := range got {
		if p.Resource != a.Resource || p.Stream == p.Series || p.Service != "front" || p.Host != "h1" || p.Operation != "s.S/M" {
			t.Errorf("%+v", p)
		}
	}
	if !a.Client || a.Peer != "back:50051" || a.PeerKind != routemap.External || a.Class != "grpc NOT_FOUND" || a.Delta || a.Start != 5 || a.Time != 9 || a.Count != 3 || a.Sum != 5e8 || a.Max != 3e8 || !slices.Equal(a.Bounds, []float64{1e8, 2e8}) || !slices.Equal(a.Counts, []uint64{1, 2, 0}) {
		t.Errorf("%+v", a)
	}
	if b.Client || b.Rank <= a.Rank || b.Class != "" || b.Sum != 5e6 || !slices.Equal(b.Counts, []uint64{2}) || len(b.Bounds) != 0 {
		t.Errorf("%+v", b)
	}
	if !c.Client || c.Rank <= b.Rank || c.Peer != "back:50051" || !c.Delta || !c.Exponential || c.Unit != 1e9 || c.Scale != 3 || c.Offset != -20 || c.Zero != 1 || !math.IsNaN(c.Sum) || !slices.Equal(c.Counts, []uint64{1, 0, 2}) {
		t.Errorf("%+v", c)
	}
	c.Sum = 0
	again := read(OTLPMetricsJSON, inJSON)
	again[0].Sum, again[1].Sum, again[2].Sum = math.Round(again[0].Sum), math.Round(again[1].Sum), 0
	if !reflect.DeepEqual(got, again) {
		t.Error("JSON says something else")
	}
}

// TestIdentity: a series is the same in whichever order its attributes come, and another one of another process.
func TestIdentity(t *testing.T) {
	series := func(service string, attributes ...*commonpb.KeyValue) (id ID) {
		p := &metricspb.HistogramDataPoint{Attributes: attributes, TimeUnixNano: 1}
		if _, err := OTLPMetrics(marshal(t, metricsOf(service, explicitMetric("rpc.client.duration", "ms", p))), func(p *Point) { id = p.Series }); err != nil {
			t.Fatal(err)
		}
		return id
	}
	a, b := attribute("rpc.method", "M"), attribute("rpc.service", "s.S")
	if series("x", a, b) != series("x", b, a) {
		t.Error("the order counts")
	}
	if series("x", a, b) == series("y", a, b) || series("x", a, b) == series("x", a) || series("x", a, b) == (ID{}) {
		t.Error("two series are one")
	}
}

// TestWrongPoints: what contradicts itself is left out and counted, whatever it is.
func TestWrongPoints(t *testing.T) {
	explicit := func(change func(*metricspb.HistogramDataPoint)) *metricspb.Metric {
		p := &metricspb.HistogramDataPoint{TimeUnixNano: 1, Count: 2, Sum: value(1), BucketCounts: []uint64{1, 1}, ExplicitBounds: []float64{1}}
		change(p)
		return explicitMetric("rpc.client.call.duration", "s", p)
	}
	exponential := func(change func(*metricspb.ExponentialHistogramDataPoint)) *metricspb.Metric {
		p := &metricspb.ExponentialHistogramDataPoint{TimeUnixNano: 1, Count: 2, Sum: value(1), Positive: &metricspb.ExponentialHistogramDataPoint_Buckets{BucketCounts: []uint64{1, 1}}}
		change(p)
		return exponentialMetric("rpc.client.call.duration", "s", p)
	}
	none := explicit(func(*metricspb.HistogramDataPoint) {})
	none.GetHistogram().AggregationTemporality = 0
	for name, c := range map[string]struct {
		metric *metricspb.Metric
		why    string
	}{
		"right":              {explicit(func(*metricspb.HistogramDataPoint) {}), ""},
		"right, exponential": {exponential(func(*metricspb.ExponentialHistogramDataPoint) {}), ""},
		"no temporality":     {none, NoTemporality},
		"no time":            {explicit(func(p *metricspb.HistogramDataPoint) { p.TimeUnixNano = 0 }), NoTime},
		"another count":      {explicit(func(p *metricspb.HistogramDataPoint) { p.Count = 3 }), WrongPoint},
		"a bucket too many":  {explicit(func(p *metricspb.HistogramDataPoint) { p.BucketCounts = []uint64{1, 1, 0} }), WrongPoint},
		"bounds in no order": {explicit(func(p *metricspb.HistogramDataPoint) {
			p.ExplicitBounds, p.BucketCounts = []float64{2, 1}, []uint64{1, 1, 0}
		}), WrongPoint},
		"a bound that is none":  {explicit(func(p *metricspb.HistogramDataPoint) { p.ExplicitBounds = []float64{math.NaN()} }), WrongPoint},
		"an endless bound":      {explicit(func(p *metricspb.HistogramDataPoint) { p.ExplicitBounds = []float64{math.Inf(1)} }), WrongPoint},
		"less than nothing":     {explicit(func(p *metricspb.HistogramDataPoint) { p.Sum = value(-1) }), WrongPoint},
		"an endless sum":        {explicit(func(p *metricspb.HistogramDataPoint) { p.Sum = value(math.Inf(1)) }), WrongPoint},
		"a largest that is NaN": {explicit(func(p *metricspb.HistogramDataPoint) { p.Max = value(math.NaN()) }), WrongPoint},
		"counts that wrap":      {explicit(func(p *metricspb.HistogramDataPoint) { p.BucketCounts = []uint64{math.MaxUint64, 3} }), WrongPoint},
		"too many buckets": {explicit(func(p *metricspb.HistogramDataPoint) {
			p.Count, p.ExplicitBounds, p.BucketCounts = 0, make([]float64, maxBuckets), make([]uint64, maxBuckets+1)
			for i := range p.ExplicitBounds {
				p.ExplicitBounds[i] = float64(i)
			}
		}), WrongPoint},
		"too many, exponential": {exponential(func(p *metricspb.ExponentialHistogramDataPoint) { p.Positive.BucketCounts = make([]uint64, 1<<20) }), WrongPoint},
		"too fine":              {exponential(func(p *metricspb.ExponentialHistogramDataPoint) { p.Scale = maxScale + 1 }), WrongPoint},
		"too coarse":            {exponential(func(p *metricspb.ExponentialHistogramDataPoint) { p.Scale = math.MinInt32 }), WrongPoint},
		"far away":              {exponential(func(p *metricspb.ExponentialHistogramDataPoint) { p.Positive.Offset = math.MaxInt32 }), WrongPoint},
		"negative durations": {exponential(func(p *metricspb.ExponentialHistogramDataPoint) {
			p.Negative = &metricspb.ExponentialHistogramDataPoint_Buckets{BucketCounts: []uint64{1}}
		}), WrongPoint},
	} {
		counts, err := OTLPMetrics(marshal(t, metricsOf("x", c.metric)), func(*Point) {})
		if err != nil || c.why == "" && counts.Points != 1 || c.why != "" && (counts.Points != 0 || counts.LeftOut[c.why] != 1) {
			t.Errorf("%s: %+v, %v", name, counts, err)
		}
	}
	gone := explicit(func(p *metricspb.HistogramDataPoint) { p.Flags = flagNoValue })
	if counts, err := OTLPMetrics(marshal(t, metricsOf("x", gone)), func(*Point) {}); err != nil || counts.Points+counts.Others != 0 || len(counts.LeftOut) != 0 {
		t.Errorf("no value: %+v, %v", counts, err)
	}
}

// FuzzOTLPMetrics: no body does harm, and what is taken can be counted.
func FuzzOTLPMetrics(f *testing.F) {
	f.Add(marshal(f, metricsOf("front", explicitMetric("rpc.client.call.duration", "s", &metricspb.HistogramDataPoint{TimeUnixNano: 9, Count: 2, BucketCounts: []uint64{2, 0}, ExplicitBounds: []float64{1}}))))
	f.Add(marshal(f, metricsOf("front", exponentialMetric("grpc.server.call.duration", "s", &metricspb.ExponentialHistogramDataPoint{TimeUnixNano: 9, Count: 1, Positive: &metricspb.ExponentialHistogramDataPoint_Buckets{Offset: -3, BucketCounts: []uint64{1}}}))))
	f.Fuzz(func(t *testing.T, body []byte) {
		_, _ = OTLPMetrics(body, func(p *Point) {
			total := p.Zero
			for _, n := range p.Counts {
				total += n
			}
			if total != p.Count || len(p.Counts) > maxBuckets || len(p.Service) > maxName || p.Time <= 0 {
				t.Errorf("%+v", p)
			}
		})
		_, _ = OTLPMetricsJSON(body, func(*Point) {})
	})
}
