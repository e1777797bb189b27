package tracefile

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/zeebo/xxh3"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/stile-ipc/stile/routemap"
	"github.com/stile-ipc/stile/routemap/semconv"
)

// Reasons for which data points are left out.
const (
	WrongPoint    = "a data point that contradicts itself"
	NoTemporality = "neither delta nor cumulative"
)

// Bounds of a data point.
const (
	maxBuckets = 320     // twice what OpenTelemetry's SDKs send
	maxCount   = 1 << 40 // sums of them do not wrap
	maxScale   = 20
	minScale   = -10
)

// ID names a series, or what it is of: the same for the same bytes.
type ID = xxh3.Uint128

// Point is what a metric says of the calls that have the same attributes.
type Point struct {
	Resource ID   // who tells
	Stream   ID   // which metric of whom
	Series   ID   // of which attributes
	Rank     int  // of two that tell of the same calls the lower counts; negative: a hub tells, of all processes of the service
	Client   bool // who calls tells it, else who is called

	Service, Host    string
	Operation, Class string
	Peer             string
	PeerKind         routemap.NodeKind
	Transport        string

	Start, Time int64 // ns since 1970
	Delta       bool
	Distribution
}

// Distribution counts durations in buckets: those of Bounds, or exponential ones.
type Distribution struct {
	Count  uint64
	Sum    float64 // ns; NaN: not told
	Max    float64 // ns; 0: not told
	Counts []uint64
	Bounds []float64 // ns: Counts[i] are those up to Bounds[i], and one more of what is above all

	Exponential bool
	Unit        float64 // ns
	Scale       int32   // Counts[i] are those up to Unit * 2^((Offset+i+1) / 2^Scale)
	Offset      int32
	Zero        uint64
}

// MetricCounts is what a request has brought.
type MetricCounts struct {
	Points  uint64            // that tell of calls
	Others  uint64            // that tell of something else, and are not read
	LeftOut map[string]uint64 // by reason
}

// HubScope is the instrumentation scope of what hubs tell.
const HubScope = "github.com/stile-ipc/stile/hub"

// callMetric is a histogram of calls' durations.
type callMetric struct {
	rank   int // of two that tell of the same calls, the lower counts
	client bool
	unit   float64 // ns, if it does not say another
}

// callMetrics are OpenTelemetry's of today and of before, and grpc-go's own.
var callMetrics = map[string]callMetric{
	"rpc.client.call.duration":     {0, true, 1e9},
	"rpc.client.duration":          {1, true, 1e6},
	"grpc.client.attempt.duration": {2, true, 1e9},
	"rpc.server.call.duration":     {0, false, 1e9},
	"rpc.server.duration":          {1, false, 1e6},
	"grpc.server.call.duration":    {2, false, 1e9},
}

var units = map[string]float64{"s": 1e9, "ms": 1e6, "us": 1e3, "ns": 1}

// OTLPMetricsJSON is OTLPMetrics of a request in JSON.
func OTLPMetricsJSON(body []byte, take func(*Point)) (MetricCounts, error) {
	if n := bytes.Count(body, []byte("{")) + bytes.Count(body, []byte("null")); n > 1000+len(body)/leastObject {
		return MetricCounts{}, fmt.Errorf("%d objects in %d bytes", n, len(body))
	}
	data := new(metricspb.MetricsData)
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(body, data); err != nil {
		text := strings.ReplaceAll(err.Error(), "\u00a0", " ") // protobuf's errors have either
		return MetricCounts{}, fmt.Errorf("no ExportMetricsServiceRequest: %s", strings.TrimPrefix(text, "proto: "))
	}
	inProto, err := proto.Marshal(data)
	if err != nil {
		return MetricCounts{}, err
	}
	return OTLPMetrics(inProto, take)
}

// Fields of opentelemetry/proto/metrics/v1/metrics.proto.
const (
	metricsResourceMetrics protowire.Number = 1

	resourceMetricsResource protowire.Number = 1
	resourceMetricsScopes   protowire.Number = 2

	scopeMetricsScope   protowire.Number = 1
	scopeMetricsMetrics protowire.Number = 2

	scopeName protowire.Number = 1

	metricName        protowire.Number = 1
	metricUnit        protowire.Number = 3
	metricGauge       protowire.Number = 5
	metricSum         protowire.Number = 7
	metricHistogram   protowire.Number = 9
	metricExponential protowire.Number = 10
	metricSummary     protowire.Number = 11

	dataPoints      protowire.Number = 1
	dataTemporality protowire.Number = 2

	pointStart protowire.Number = 2
	pointTime  protowire.Number = 3
	pointCount protowire.Number = 4
	pointSum   protowire.Number = 5
	pointFlags protowire.Number = 10

	explicitCounts     protowire.Number = 6
	explicitBounds     protowire.Number = 7
	explicitAttributes protowire.Number = 9
	explicitMax        protowire.Number = 12

	exponentialAttributes protowire.Number = 1
	exponentialScale      protowire.Number = 6
	exponentialZero       protowire.Number = 7
	exponentialPositive   protowire.Number = 8
	exponentialNegative   protowire.Number = 9
	exponentialMax        protowire.Number = 13

	bucketsOffset protowire.Number = 1
	bucketsCounts protowire.Number = 2
)

const (
	temporalityDelta      = 1
	temporalityCumulative = 2
	flagNoValue           = 1
)

// metrics reads one request.
type metrics struct {
	*protobuf
	take   func(*Point)
	counts MetricCounts
}

// OTLPMetrics calls take for each data point of a request to export that tells how long calls took. The Point is take's to keep.
func OTLPMetrics(body []byte, take func(*Point)) (MetricCounts, error) {
	r := &metrics{&protobuf{texts: map[string]string{}}, take, MetricCounts{LeftOut: map[string]uint64{}}}
	err := each(body, metricsResourceMetrics, r.resource)
	return r.counts, err
}

// each calls f for each message that is a field of that number.
func each(b []byte, number protowire.Number, f func([]byte) error) error {
	return fields(b, func(n protowire.Number, of field) error {
		if n == number && of.kind == protowire.BytesType {
			return f(of.bytes)
		}
		return nil
	})
}

func (r *metrics) resource(b []byte) error {
	var of semconv.Facts
	var attributes [][]byte
	err := each(b, resourceMetricsResource, func(resource []byte) error {
		return each(resource, resourceAttributes, func(kv []byte) error {
			attributes = append(attributes, kv)
			return r.attribute(&of, kv)
		})
	})
	if err != nil {
		return err
	}
	p := Point{Resource: identity(ID{}, attributes)}
	return each(b, resourceMetricsScopes, func(scope []byte) error {
		var is []byte
		if err := each(scope, scopeMetricsScope, func(b []byte) error { is = b; return nil }); err != nil {
			return err
		}
		return each(scope, scopeMetricsMetrics, func(metric []byte) error { return r.metric(p, of, is, metric) })
	})
}

// identity is that of attributes, in whichever order they come, of something.
func identity(of ID, attributes [][]byte) ID {
	slices.SortFunc(attributes, bytes.Compare)
	text := make([]byte, 0, 512)
	text = binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(text, of.Hi), of.Lo)
	for _, a := range attributes {
		text = append(binary.AppendUvarint(text, uint64(len(a))), a...)
	}
	return xxh3.Hash128(text)
}

func (r *metrics) metric(p Point, facts semconv.Facts, scope, b []byte) error {
	var name, unit, data []byte
	kind := protowire.Number(0)
	err := fields(b, func(n protowire.Number, f field) error {
		if f.kind != protowire.BytesType {
			return nil
		}
		switch n {
		case metricName:
			name = f.bytes
		case metricUnit:
			unit = f.bytes
		case metricGauge, metricSum, metricHistogram, metricExponential, metricSummary:
			kind, data = n, f.bytes
		}
		return nil
	})
	if err != nil {
		return err
	}
	is, known := callMetrics[string(name)]
	if !known || kind != metricHistogram && kind != metricExponential {
		return each(data, dataPoints, func([]byte) error { r.counts.Others++; return nil })
	}
	temporality := uint64(0)
	err = fields(data, func(n protowire.Number, f field) error {
		if n == dataTemporality && f.kind == protowire.VarintType {
			temporality = f.number
		}
		return nil
	})
	if err != nil {
		return err
	}
	p.Rank, p.Client, p.Delta, p.Unit, p.Exponential = is.rank, is.client, temporality == temporalityDelta, is.unit, kind == metricExponential
	if u := units[string(unit)]; u != 0 {
		p.Unit = u
	}
	p.Stream = identity(p.Resource, [][]byte{scope, name})
	if err := each(scope, scopeName, func(name []byte) error {
		if string(name) == HubScope {
			p.Rank = -1
		}
		return nil
	}); err != nil {
		return err
	}
	return each(data, dataPoints, func(point []byte) error {
		one := p // each has its own
		why, err := r.point(&one, facts, point)
		switch {
		case err != nil:
			return err
		case why == "" && temporality != temporalityDelta && temporality != temporalityCumulative:
			why = NoTemporality
		case why == noValue:
			return nil
		}
		if why != "" {
			r.counts.LeftOut[why]++
			return nil
		}
		r.counts.Points++
		r.take(&one)
		return nil
	})
}

const noValue = "no value"

// point reads a data point, and says why it cannot be one.
func (r *metrics) point(p *Point, facts semconv.Facts, b []byte) (why string, err error) {
	attributesAt, maxAt := explicitAttributes, explicitMax
	if p.Exponential {
		attributesAt, maxAt = exponentialAttributes, exponentialMax
	}
	var attributes [][]byte
	p.Sum = math.NaN()
	negative := false
	err = fields(b, func(n protowire.Number, f field) error {
		switch {
		case n == attributesAt && f.kind == protowire.BytesType:
			attributes = append(attributes, f.bytes)
			return r.attribute(&facts, f.bytes)
		case n == pointStart && f.kind == protowire.Fixed64Type:
			p.Start = int64(min(f.number, math.MaxInt64))
		case n == pointTime && f.kind == protowire.Fixed64Type:
			p.Time = int64(min(f.number, math.MaxInt64))
		case n == pointCount && f.kind == protowire.Fixed64Type:
			p.Count = f.number
		case n == pointSum && f.kind == protowire.Fixed64Type:
			p.Sum = math.Float64frombits(f.number) * p.Unit
		case n == maxAt && f.kind == protowire.Fixed64Type:
			p.Max = math.Float64frombits(f.number) * p.Unit
		case n == pointFlags && f.kind != protowire.BytesType && f.number&flagNoValue != 0:
			why = noValue
		case p.Exponential:
			return exponential(p, &negative, n, f)
		case n == explicitCounts:
			p.Counts, err = appendFixed(p.Counts, f)
			return err
		case n == explicitBounds:
			bounds, err := appendFixed(nil, f)
			for _, bound := range bounds {
				p.Bounds = append(p.Bounds, math.Float64frombits(bound)*p.Unit)
			}
			return err
		}
		return nil
	})
	if err != nil || why != "" {
		return why, err
	}
	p.Series = identity(p.Stream, attributes)
	s := routemap.Span{Kind: routemap.Server}
	if p.Client {
		s.Kind = routemap.Client
	}
	facts.Apply(&s)
	p.Service, p.Host, p.Operation, p.Class, p.Peer, p.PeerKind, p.Transport = clip(s.Service), clip(s.Host), clip(s.Operation), s.Class, clip(s.Peer), s.PeerKind, s.Transport
	if p.Service == "" {
		p.Service = "unknown_service"
	}
	if p.Operation == "" {
		p.Operation = "other" // as grpc-go calls methods that it does not tell
	}
	if p.Time <= 0 {
		return NoTime, nil
	}
	if p.Start > p.Time {
		p.Start = 0 // which is not known, then
	}
	if negative || !p.consistent() {
		return WrongPoint, nil
	}
	return "", nil
}

// exponential reads a field that only exponential histograms have.
func exponential(p *Point, negative *bool, n protowire.Number, f field) error {
	switch {
	case n == exponentialScale && f.kind == protowire.VarintType:
		p.Scale = int32(protowire.DecodeZigZag(f.number & math.MaxUint32))
	case n == exponentialZero && f.kind == protowire.Fixed64Type:
		p.Zero = f.number
	case n == exponentialNegative && f.kind == protowire.BytesType:
		_, counts, err := buckets(f.bytes)
		*negative = *negative || slices.ContainsFunc(counts, func(n uint64) bool { return n > 0 })
		return err
	case n == exponentialPositive && f.kind == protowire.BytesType:
		var err error
		p.Offset, p.Counts, err = buckets(f.bytes)
		return err
	}
	return nil
}

func buckets(b []byte) (offset int32, counts []uint64, err error) {
	err = fields(b, func(n protowire.Number, f field) error {
		switch {
		case n == bucketsOffset && f.kind == protowire.VarintType:
			offset = int32(protowire.DecodeZigZag(f.number & math.MaxUint32))
		case n == bucketsCounts && f.kind == protowire.VarintType && len(counts) <= maxBuckets:
			counts = append(counts, f.number)
		case n == bucketsCounts && f.kind == protowire.BytesType:
			for b := f.bytes; len(b) > 0 && len(counts) <= maxBuckets; { // more are too many
				v, n := protowire.ConsumeVarint(b)
				if n < 0 {
					return protowire.ParseError(n)
				}
				counts, b = append(counts, v), b[n:]
			}
		}
		return nil
	})
	return offset, counts, err
}

// appendFixed reads numbers of eight bytes, one or as many as there are.
func appendFixed(to []uint64, f field) ([]uint64, error) {
	switch {
	case f.kind == protowire.Fixed64Type:
		return append(to, f.number), nil
	case f.kind != protowire.BytesType:
		return to, nil
	case len(f.bytes)%8 != 0:
		return to, fmt.Errorf("%d bytes of numbers of eight", len(f.bytes))
	}
	for b := f.bytes; len(b) > 0; b = b[8:] {
		to = append(to, binary.LittleEndian.Uint64(b))
	}
	return to, nil
}

// consistent tells whether it can be what was counted.
func (d *Distribution) consistent() bool {
	total := d.Zero
	for _, n := range d.Counts {
		if n > maxCount {
			return false
		}
		total += n
	}
	if len(d.Counts) == 0 && !d.Exponential { // sum and count alone
		d.Counts, total = []uint64{d.Count}, d.Count
	}
	if d.Count > maxCount || d.Zero > maxCount || total != d.Count || len(d.Counts) > maxBuckets || d.Sum < 0 || math.IsInf(d.Sum, 0) || !(d.Max >= 0) || math.IsInf(d.Max, 0) {
		return false
	}
	if d.Exponential {
		return d.Scale >= minScale && d.Scale <= maxScale && d.Offset > -1<<30 && d.Offset < 1<<30
	}
	for i, bound := range d.Bounds {
		if !(bound >= 0) || math.IsInf(bound, 0) || i > 0 && bound <= d.Bounds[i-1] {
			return false
		}
	}
	return len(d.Counts) == len(d.Bounds)+1
}
