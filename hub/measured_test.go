package hub

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/protobuf/proto"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"

	"github.com/stile-ipc/stile/hub/hubpb"
	"github.com/stile-ipc/stile/routemap"
	"github.com/stile-ipc/stile/routemap/tracefile"
	"github.com/stile-ipc/stile/telemetry"
)

// teller tells a hub's part by metrics, at times that a test says.
type teller struct {
	t      *testing.T
	now    time.Time
	began  time.Time
	agents *agents
}

func newTeller(t *testing.T) *teller {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	l := &teller{t: t, now: at, began: at}
	l.agents = newAgents(func() time.Time { return l.now })
	return l
}

// after lets time pass.
func (l *teller) after(d time.Duration) *teller { l.now = l.now.Add(d); return l }

// toldSeries is what a metric says of a series. Times are since the teller began.
type toldSeries struct {
	metric, service string
	attributes      []string // names and values
	start           time.Duration
	delta           bool
	counts          []uint64 // up to 1 ms, 2 ms, 4 ms, and of more
	sum             float64  // s; 0: what the middles of buckets make
}

var toldBounds = []float64{0.001, 0.002, 0.004}

func (s *toldSeries) data(l *teller) *metricspb.ResourceMetrics {
	p := &metricspb.HistogramDataPoint{TimeUnixNano: uint64(l.now.UnixNano()), StartTimeUnixNano: uint64(l.began.Add(s.start).UnixNano()), BucketCounts: s.counts, ExplicitBounds: toldBounds}
	middles := 0.0
	for i, n := range s.counts {
		p.Count += n
		middles += float64(n) * []float64{0.0005, 0.0015, 0.003, 0.006}[i]
	}
	if p.Sum = &middles; s.sum > 0 {
		p.Sum = &s.sum
	}
	for pair := range slices.Chunk(s.attributes, 2) {
		p.Attributes = append(p.Attributes, attribute(pair[0], pair[1]))
	}
	temporality := metricspb.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE
	if s.delta {
		temporality = metricspb.AggregationTemporality_AGGREGATION_TEMPORALITY_DELTA
	}
	return &metricspb.ResourceMetrics{
		Resource: &resourcepb.Resource{Attributes: []*commonpb.KeyValue{attribute("service.name", s.service)}},
		ScopeMetrics: []*metricspb.ScopeMetrics{{Metrics: []*metricspb.Metric{{Name: s.metric, Unit: "s", Data: &metricspb.Metric_Histogram{
			Histogram: &metricspb.Histogram{AggregationTemporality: temporality, DataPoints: []*metricspb.HistogramDataPoint{p}},
		}}}}},
	}
}

// tell sends series, and returns what was left out.
func (l *teller) tell(all ...toldSeries) map[string]uint64 {
	l.t.Helper()
	data := new(metricspb.MetricsData)
	for _, s := range all {
		data.ResourceMetrics = append(data.ResourceMetrics, s.data(l))
	}
	body, err := proto.Marshal(data)
	if err != nil {
		l.t.Fatal(err)
	}
	b := batchOfPoints{to: l.agents.measured, leftOut: map[string]uint64{}}
	counts, err := tracefile.OTLPMetrics(body, b.take)
	if err != nil {
		l.t.Fatal(err)
	}
	return b.end(counts)
}

// window ends one, on a map that knows something already, and says what is on it.
func (l *teller) window(last bool, known ...func(*routemap.Map)) map[string]*routemap.Stats {
	m := routemap.New()
	for _, f := range known {
		f(m)
	}
	l.agents.draw(m, time.Time{}, true)
	l.agents.measured.draw(m, l.agents, last)
	all := map[string]*routemap.Stats{}
	m.Each(func(k routemap.Key, s *routemap.Stats) { all[k.String()] = s })
	return all
}

func clientSeries(service, peer, status string, counts ...uint64) toldSeries {
	return toldSeries{metric: "rpc.client.call.duration", service: service, attributes: []string{"rpc.method", "s.S/M", "server.address", peer, "rpc.response.status_code", status}, counts: counts}
}

func serverSeries(service string, counts ...uint64) toldSeries {
	return toldSeries{metric: "rpc.server.call.duration", service: service, attributes: []string{"rpc.method", "s.S/M", "rpc.response.status_code", "OK"}, counts: counts}
}

func callsOn(all map[string]*routemap.Stats) map[string]uint64 {
	out := map[string]uint64{}
	for k, s := range all {
		out[k] = s.Calls
	}
	return out
}

func holds(t *testing.T, what string, got map[string]*routemap.Stats, want string) {
	t.Helper()
	if text := fmt.Sprint(callsOn(got)); text != "map["+want+"]" {
		t.Errorf("%s: %s, want %s", what, text, want)
	}
}

// TestMeasured: both ends' metrics are one route, of as many calls as were told in a window, with errors, and with means as sent.
func TestMeasured(t *testing.T) {
	l := newTeller(t).after(time.Minute)
	ok, failed, served := clientSeries("front", "back", "OK", 1, 2, 0, 1), clientSeries("front", "back", "UNAVAILABLE", 0, 0, 3, 0), serverSeries("back", 4, 3, 0, 0)
	for _, s := range []*toldSeries{&ok, &failed, &served} {
		s.start = time.Second
	}
	ok.sum = 0.0095
	if left := l.tell(ok, failed, served); len(left) != 0 {
		t.Fatal(left)
	}
	got := l.window(false)
	holds(t, "at first", got, "front → back s.S/M:7")
	s := got["front → back s.S/M"]
	if fmt.Sprint(s.Errors) != "map[grpc UNAVAILABLE:3]" || s.Sources != routemap.FromMetrics || s.Client.Count() != 7 || s.Server.Count() != 7 || s.Failures.Count() != 3 || s.Paired != 7 {
		t.Errorf("%+v", s)
	}
	if want := 9.5e6 + 3*3e6; math.Abs(s.Client.Sum()-want) > 10 || s.Client.Quantile(1) < 4e6 {
		t.Errorf("the sum is %v, want %v; the largest %d", s.Client.Sum(), want, s.Client.Quantile(1))
	}
	if got := l.window(false); len(got) != 0 {
		t.Errorf("again: %v", callsOn(got))
	}
	l.after(time.Minute)
	ok.counts, ok.sum, served.counts = []uint64{1, 2, 0, 6}, 0, []uint64{9, 3, 0, 0}
	l.tell(ok, failed, served)
	got = l.window(false)
	holds(t, "a minute later", got, "front → back s.S/M:5")
	if s := got["front → back s.S/M"]; s.Client.Quantile(0) < 4e6 || s.Server.Count() != 5 || len(s.Errors) != 0 {
		t.Errorf("%+v", s)
	}
}

// TestTemporality: what a series says counts once: of a cumulative one what is new, if it is known since when; and all of it when it has begun anew.
func TestTemporality(t *testing.T) {
	at := func(start time.Duration, delta bool, counts ...uint64) toldSeries {
		s := clientSeries("front", "back", "OK", counts...)
		s.start, s.delta = start, delta
		return s
	}
	other := at(-time.Hour, false, 1, 0, 0, 0)
	other.attributes = append(other.attributes, "more", "x")
	never := -time.Duration(newTeller(t).began.UnixNano())
	type step struct {
		series toldSeries
		calls  uint64
		left   string
	}
	for name, steps := range map[string][]step{
		"begun before the hub":     {{at(-time.Hour, false, 9, 9, 9, 9), 0, ""}, {at(-time.Hour, false, 9, 9, 9, 12), 3, ""}},
		"begun after the hub":      {{at(time.Second, false, 1, 0, 0, 0), 1, ""}, {at(time.Second, false, 1, 4, 0, 0), 4, ""}, {at(time.Second, false, 1, 4, 0, 0), 0, ""}},
		"no start":                 {{at(never, false, 5, 0, 0, 0), 0, ""}, {at(never, false, 7, 0, 0, 0), 2, ""}},
		"a later series of known":  {{at(-time.Hour, false, 9, 0, 0, 0), 0, ""}, {other, 1, ""}},
		"begun anew":               {{at(time.Second, false, 5, 5, 0, 0), 10, ""}, {at(90*time.Second, false, 6, 6, 0, 0), 12, ""}},
		"begun anew, says nothing": {{at(time.Second, false, 5, 5, 0, 0), 10, ""}, {at(time.Second, false, 2, 5, 0, 0), 7, ""}},
		"delta":                    {{at(time.Second, true, 2, 0, 0, 0), 2, ""}, {at(61*time.Second, true, 3, 0, 0, 0), 3, ""}},
	} {
		l := newTeller(t)
		for i, s := range steps {
			left := l.after(time.Minute).tell(s.series)
			again := l.tell(s.series)
			got := uint64(0)
			for _, of := range l.window(true) {
				got += of.Calls
			}
			if got != s.calls || len(left) != 0 || again[ComeBefore] != 1 {
				t.Errorf("%s, step %d: %d calls, want %d; left out %v, then %v", name, i, got, s.calls, left, again)
			}
		}
	}
}

// TestMeasuredNotTwice: what processes count, or traces tell, is not on the map by metrics, too, whichever way its ends are called, and in windows in which neither
// tells.
func TestMeasuredNotTwice(t *testing.T) {
	key := routemap.Key{From: routemap.Node{Kind: routemap.Service, Name: "front"}, To: routemap.Node{Kind: routemap.Service, Name: "back"}, Transport: "shm", Operation: "s.S/M", Mode: routemap.Sync}
	counted := func(m *routemap.Map) { m.Counted(key, &routemap.Stats{Calls: 5}) }
	for _, peer := range []string{"back", "10.0.0.7", "/run/back.sock"} {
		l := newTeller(t).after(time.Minute)
		client, server := clientSeries("front", peer, "OK", 3, 0, 0, 0), serverSeries("back", 3, 0, 0, 0)
		client.start, server.start = time.Second, time.Second
		holds(t, "counted", l.window(false, counted), "front → back s.S/M:5")
		l.tell(client, server)
		holds(t, peer+", in a later window", l.window(false), "")
		l.after(time.Minute)
		client.counts, server.counts = []uint64{4, 0, 0, 0}, []uint64{4, 0, 0, 0}
		l.tell(client, server)
		holds(t, peer+", in the same", l.window(true, counted), "front → back s.S/M:5")
		l.after(2 * forgetAfter).window(false)
		client.counts, server.counts = []uint64{6, 0, 0, 0}, []uint64{6, 0, 0, 0}
		l.tell(client, server)
		l.after(time.Minute)
		client.counts, server.counts = []uint64{7, 0, 0, 0}, []uint64{7, 0, 0, 0}
		l.tell(client, server)
		holds(t, peer+", long after", l.window(true), "front → back s.S/M:1") // what came while the series was forgotten is nobody's
	}
}

// TestBestMetric: of several metrics that tell of the same calls one counts.
func TestBestMetric(t *testing.T) {
	l := newTeller(t).after(time.Minute)
	var all []toldSeries
	for _, metric := range []string{"grpc.client.attempt.duration", "rpc.client.call.duration", "rpc.client.duration"} {
		s := clientSeries("front", "back", "OK", 3, 0, 0, 0)
		s.metric, s.start = metric, time.Second
		if metric == "grpc.client.attempt.duration" {
			s.attributes = []string{"grpc.method", "s.S/M", "grpc.target", "dns:///back:50051", "grpc.status", "OK"}
		}
		all = append(all, s)
	}
	l.tell(all[0])
	l.tell(all[1:]...)
	got := l.window(true)
	holds(t, "one of three", got, "front → external back s.S/M:3")
}

// TestWaitsToKnow: who is at the other end may be known later; what nobody tells is said to be not known.
func TestWaitsToKnow(t *testing.T) {
	l := newTeller(t).after(time.Minute)
	client, server := clientSeries("front", "10.0.0.7", "OK", 3, 0, 0, 0), serverSeries("back", 3, 0, 0, 0)
	client.start, server.start = time.Second, time.Second
	l.tell(server)
	holds(t, "at first", l.window(false), "")
	l.after(30 * time.Second).tell(client)
	got := l.window(false)
	holds(t, "by the method that one service alone has", got, "front → back s.S/M:3")
	if s := got["front → back s.S/M"]; s.Server.Count() != 3 {
		t.Errorf("%+v", s)
	}

	l = newTeller(t).after(time.Minute)
	l.tell(server)
	l.after(waitToKnow)
	holds(t, "nobody calls it", l.window(false), "external ? → back s.S/M:3")

	l = newTeller(t).after(time.Minute)
	l.tell(client)
	holds(t, "at first", l.window(false), "")
	l.after(waitToKnow)
	holds(t, "nobody serves it", l.window(false), "front → external 10.0.0.7 s.S/M:3")

	l = newTeller(t).after(time.Minute)
	elsewhere := serverSeries("copy", 3, 0, 0, 0)
	elsewhere.start = time.Second
	l.tell(client, server, elsewhere)
	holds(t, "two serve it", l.window(true), "external ? → back s.S/M:3 external ? → copy s.S/M:3 front → external 10.0.0.7 s.S/M:3")
}

// TestMeasuredListens: an address is the service that reports to listen there.
func TestMeasuredListens(t *testing.T) {
	l := newTeller(t).after(time.Minute)
	l.agents.processes[identity{1}] = &process{seen: l.now, is: &hubpb.Process{Service: "back", Host: "h", Boot: "b", Listens: []string{"127.0.0.1:50051"}}}
	client := clientSeries("front", "127.0.0.1", "OK", 3, 0, 0, 0)
	client.attributes = append(client.attributes, "server.port", "50051")
	client.start = time.Second
	l.tell(client)
	holds(t, "it listens", l.window(false), "front → back s.S/M:3")
}

// TestMeasuredBounds: series and routes without end are not held, and calls of those without room are counted as others'.
func TestMeasuredBounds(t *testing.T) {
	m := newMeasured(time.Now)
	now := time.Now()
	point := func(i uint64, delta bool, numbers int) *tracefile.Point {
		return &tracefile.Point{Series: tracefile.ID{Lo: i}, Service: "s", Operation: fmt.Sprint(i), Time: now.UnixNano(), Start: now.UnixNano(), Delta: delta, Distribution: tracefile.Distribution{Count: 1, Sum: 1e6, Counts: append(make([]uint64, numbers-1), 1), Bounds: make([]float64, numbers-1)}}
	}
	for i := range uint64(maxMeasured + 100) {
		if why := m.add(point(i, true, 1), now); why != "" {
			t.Fatal(why)
		}
	}
	calls := uint64(0)
	for _, one := range m.pending {
		calls += one.calls
	}
	if len(m.pending) != maxMeasured+1 || calls != maxMeasured+100 {
		t.Errorf("%d routes, %d calls", len(m.pending), calls)
	}
	left := 0
	for i := range uint64(maxMetricSeries) {
		if m.add(point(1<<32+i, false, 300), now) != "" {
			left++
		}
	}
	if m.numbers > maxMetricNumbers || left == 0 || len(m.series) > maxMetricSeries {
		t.Errorf("%d series of %d numbers, %d left out", len(m.series), m.numbers, left)
	}
	m.clock = func() time.Time { return now.Add(2 * forgetAfter) }
	m.draw(routemap.New(), newAgents(m.clock), false)
	if len(m.series) != 0 || m.numbers != 0 || len(m.streams) != 0 {
		t.Errorf("%d series, %d numbers, %d streams are not forgotten", len(m.series), m.numbers, len(m.streams))
	}
}

// TestMeasuredWide: the points of a request are not held together, and what they make of a window is bounded, however far apart their durations are.
func TestMeasuredWide(t *testing.T) {
	l := newTeller(t)
	m := l.agents.measured
	b := batchOfPoints{to: m, leftOut: map[string]uint64{}}
	for i := range maxMeasured {
		b.take(&tracefile.Point{
			Series: tracefile.ID{Lo: uint64(i)}, Service: "s", Operation: fmt.Sprint(i), Class: "x", Delta: true, Time: l.now.UnixNano(),
			Distribution: tracefile.Distribution{Count: 2, Sum: math.NaN(), Counts: []uint64{1, 0, 1}, Bounds: []float64{1, 1e18}},
		})
		if len(b.points) >= pointsAtOnce {
			t.Fatalf("%d points are held", len(b.points))
		}
	}
	if leftOut := b.end(tracefile.MetricCounts{}); len(leftOut) != 0 {
		t.Error(leftOut)
	}
	wide, calls := 0, uint64(0)
	for _, one := range m.pending {
		wide, calls = wide+one.wide(), calls+one.calls
		if most := one.took.Quantile(1); most > int64(longest) {
			t.Fatalf("a call took %s", time.Duration(most))
		}
	}
	if wide != m.wide || wide > maxWide+2*64*telemetry.SubBuckets || calls != 2*maxMeasured || m.points != maxMeasured {
		t.Errorf("%d buckets, counted as %d; %d calls, %d points", wide, m.wide, calls, m.points)
	}
	if other := m.pending[measure{service: "other", operation: "other", peer: "other", peerKind: routemap.External}]; other == nil || m.status().Together != other.calls {
		t.Errorf("%d calls are said to be of one route, which has %+v", m.status().Together, other)
	}
	l.window(false) // after which they wait to be known
	waits := 0
	for _, one := range m.pending {
		waits += one.wide()
	}
	if waits == 0 || waits != m.wide {
		t.Errorf("%d buckets wait, counted as %d", waits, m.wide)
	}
}

// TestSinceExponential: an exponential histogram that has become coarser counts what is new, too.
func TestSinceExponential(t *testing.T) {
	before := tracefile.Distribution{Exponential: true, Unit: 1e9, Scale: 3, Offset: -21, Count: 6, Sum: 1, Zero: 1, Counts: []uint64{1, 0, 2, 2}}
	now := tracefile.Distribution{Exponential: true, Unit: 1e9, Scale: 1, Offset: -6, Count: 12, Sum: 5, Zero: 2, Counts: []uint64{1, 9}}
	diff, can := since(&now, &before)
	if !can || diff.Count != 6 || diff.Zero != 1 || diff.Sum != 4 || diff.Offset != -6 || fmt.Sprint(diff.Counts) != "[0 5]" {
		t.Errorf("%v %+v", can, diff)
	}
	if fmt.Sprint(now.Counts, before.Counts) != "[1 9] [1 0 2 2]" {
		t.Error("it has changed what it was given")
	}
	for what, change := range map[string]func(*tracefile.Distribution){
		"fewer":      func(d *tracefile.Distribution) { d.Counts = []uint64{0, 10} },
		"fewer zero": func(d *tracefile.Distribution) { d.Zero = 0 },
		"not there":  func(d *tracefile.Distribution) { d.Offset = 20 },
	} {
		d := now
		change(&d)
		if _, can := since(&d, &before); can {
			t.Error(what)
		}
	}
}

// TestRecord: what is recorded lies in the buckets that were sent, whatever the sum says, and has its mean if that can be.
func TestRecord(t *testing.T) {
	for name, d := range map[string]tracefile.Distribution{
		"explicit":           {Count: 6, Sum: 12e6, Counts: []uint64{3, 2, 1}, Bounds: []float64{1e6, 4e6}},
		"sum and count":      {Count: 4, Sum: 10e6, Counts: []uint64{4}},
		"exponential":        {Exponential: true, Unit: 1e9, Scale: 2, Offset: -30, Count: 5, Zero: 1, Sum: 30e6, Counts: []uint64{0, 2, 2}},
		"coarse, and zero":   {Exponential: true, Unit: 1e9, Scale: -10, Offset: -1, Count: 2, Sum: 1e8, Counts: []uint64{2}},
		"an impossible sum":  {Count: 2, Sum: 9e18, Counts: []uint64{2, 0}, Bounds: []float64{1e6}},
		"no sum":             {Count: 2, Sum: math.NaN(), Counts: []uint64{2, 0}, Bounds: []float64{1e6}},
		"far above all":      {Exponential: true, Unit: 1e9, Scale: -10, Offset: 5, Count: 1, Sum: math.NaN(), Counts: []uint64{1}},
		"all in the largest": {Count: 3, Sum: 90e9, Max: 40e9, Counts: []uint64{0, 3}, Bounds: []float64{10e9}},
	} {
		var h telemetry.Histogram
		record(&d, &h)
		if h.Count() != d.Count || h.Quantile(1) > int64(longest) {
			t.Errorf("%s: %d values, up to %d", name, h.Count(), h.Quantile(1))
		}
		if _, err := telemetry.FromRaw(h.Raw()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		buckets := bucketsOf(&d)
		least, most := 0.0, 0.0
		for _, b := range buckets {
			least, most = least+b.low*float64(b.count), most+b.high*float64(b.count)
		}
		if sum := h.Sum(); sum < least-float64(d.Count) || sum > most+float64(d.Count) || d.Sum >= least && d.Sum <= most && math.Abs(sum-d.Sum) > float64(d.Count) {
			t.Errorf("%s: the sum is %g, of %g sent, from %g to %g", name, sum, d.Sum, least, most)
		}
	}
}
