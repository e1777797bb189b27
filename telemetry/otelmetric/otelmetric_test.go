package otelmetric_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"maps"
	"math"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/stile-ipc/stile"
	"github.com/stile-ipc/stile/telemetry"
	"github.com/stile-ipc/stile/telemetry/otelmetric"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const check, watch = "grpc.health.v1.Health/Check", "grpc.health.v1.Health/Watch"

// told is what a reader has of a producer, by metric, with what an attribute says if it is one of those that follow.
func told(t *testing.T, r metric.Reader, by ...attribute.Key) map[string]float64 {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := r.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	points := map[string]bool{}
	add := func(name string, at attribute.Set, value float64) {
		point := name + " " + at.Encoded(attribute.DefaultEncoder())
		if points[point] || !utf8.ValidString(point) {
			t.Errorf("%q is told twice, or is no UTF-8", point) // which exporters drop, with what is beside it
		}
		points[point] = true
		for _, key := range by {
			if v, has := at.Value(key); has {
				name += " " + v.Emit()
			}
		}
		got[name] += value
	}
	for _, s := range all.ScopeMetrics {
		if s.Scope.Name != otelmetric.ScopeName {
			continue
		}
		for _, m := range s.Metrics {
			if m.Description == "" || m.Unit == "" {
				t.Errorf("%s has the unit %q and says %q", m.Name, m.Unit, m.Description)
			}
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range data.DataPoints {
					add(m.Name, p.Attributes, float64(p.Value))
				}
				if !data.IsMonotonic || data.Temporality != metricdata.CumulativeTemporality {
					t.Errorf("%s: %+v", m.Name, data)
				}
			case metricdata.Sum[float64]:
				for _, p := range data.DataPoints {
					add(m.Name, p.Attributes, p.Value)
				}
			case metricdata.ExponentialHistogram[float64]:
				for _, p := range data.DataPoints {
					in := p.ZeroCount
					for _, n := range p.PositiveBucket.Counts {
						in += n
					}
					if in != p.Count || p.Count == 0 || p.Sum < 0 || !p.StartTime.Before(p.Time) {
						t.Errorf("%s: %+v", m.Name, p)
					}
					add(m.Name, p.Attributes, float64(p.Count))
					add(m.Name+".sum", p.Attributes, p.Sum)
				}
			default:
				t.Errorf("%s is a %T", m.Name, data)
			}
		}
	}
	return got
}

// dial returns a client of a server in this process, over shared memory, or of grpc-go's, over gRPC.
func dial(t *testing.T, local bool) healthpb.HealthClient {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dir, quiet := t.TempDir(), slog.New(slog.DiscardHandler)
	var s interface {
		grpc.ServiceRegistrar
		Serve(net.Listener) error
		Stop()
	} = grpc.NewServer()
	if local {
		s = stile.NewServer(stile.Dir(dir), stile.Logger(quiet))
	}
	healthpb.RegisterHealthServer(s, health.NewServer())
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		<-served
	})
	opts := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials()), stile.WithDir(dir), stile.WithLogger(quiet)}
	for way := ""; local && way != "shm"; { // until its door is open
		d, err := stile.Diagnose(t.Context(), l.Addr().String(), opts...)
		if err != nil {
			t.Fatal(err)
		}
		way = d.Way
	}
	cc, err := stile.NewClient(l.Addr().String(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	return healthpb.NewHealthClient(cc)
}

// call makes good unary calls, bad ones, and a stream.
func call(t *testing.T, c healthpb.HealthClient, good, bad int) {
	t.Helper()
	for range good {
		if _, err := c.Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	for range bad {
		if _, err := c.Check(t.Context(), &healthpb.HealthCheckRequest{Service: "nobody's"}); status.Code(err) != codes.NotFound {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s, err := c.Watch(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := s.Recv(); status.Code(err) != codes.Canceled {
		t.Fatal(err)
	}
}

// settled is what is told once a number of calls were served: a server may still be at one of which its client knows the end.
func settled(t *testing.T, r metric.Reader, served float64, by ...attribute.Key) map[string]float64 {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if n := told(t, r)["stile.server.call.count"]; n == served {
			return told(t, r, by...)
		} else if n > served || time.Now().After(end) {
			t.Fatalf("%v calls were served, want %v", n, served)
		}
	}
}

// same reports whether two were told the same, but for the order in which numbers were added.
func same(a, b map[string]float64) bool {
	return maps.EqualFunc(a, b, func(x, y float64) bool { return math.Abs(x-y) < 1e-9 })
}

// TestCalls: an SDK is told of all calls, where they went and how they ended, and their time is where they waited.
func TestCalls(t *testing.T) {
	before := dial(t, false)
	call(t, before, 1, 0) // while nothing is counted
	p := otelmetric.NewProducer(otelmetric.WithCallDuration())
	defer p.Close()
	short := otelmetric.NewProducer()
	defer short.Close()
	r, other := metric.NewManualReader(metric.WithProducer(p)), metric.NewManualReader(metric.WithProducer(short))
	metric.NewMeterProvider(metric.WithReader(r), metric.WithReader(other))
	call(t, dial(t, true), 50, 3)
	call(t, dial(t, false), 7, 2)

	got := settled(t, r, 54, "rpc.method", "network.transport", "error.type")
	for name, want := range map[string]float64{
		"stile.call.count " + check + " shm": 53, "stile.call.count " + watch + " shm": 1, "stile.call.count " + check + " tcp": 9, "stile.call.count " + watch + " tcp": 1,
		"stile.call.errors " + check + " shm NOT_FOUND": 3, "stile.call.errors " + watch + " shm CANCELLED": 1, "stile.call.errors " + check + " tcp NOT_FOUND": 2, "stile.call.errors " + watch + " tcp CANCELLED": 1,
		"stile.server.call.count " + check + " shm": 53, "stile.server.call.count " + watch + " shm": 1,
		"stile.server.call.errors " + check + " shm NOT_FOUND": 3, "stile.server.call.errors " + watch + " shm CANCELLED": 1,
		"rpc.client.call.duration " + check + " shm": 50, "rpc.client.call.duration " + check + " shm _OTHER": 3, "rpc.client.call.duration " + check + " tcp": 7, "rpc.client.call.duration " + check + " tcp _OTHER": 2,
		"rpc.server.call.duration " + check + " shm": 50, "rpc.server.call.duration " + check + " shm _OTHER": 3,
	} {
		if got[name] != want {
			t.Errorf("%s: %v, want %v", name, got[name], want)
		}
	}
	sum, wait := got["rpc.client.call.duration.sum "+check+" shm"]+got["rpc.client.call.duration.sum "+check+" shm _OTHER"], got["stile.call.wait "+check+" shm"]
	if sum <= 0 || math.Abs(wait-sum) > 1e-9 {
		t.Errorf("calls took %v s and waited %v s", sum, wait)
	}
	if got["stile.call.wait "+check+" tcp"] != 0 || got["stile.call.request.size "+check+" shm"] <= 0 || got["stile.call.response.size "+check+" shm"] != got["stile.server.call.response.size "+check+" shm"] {
		t.Errorf("%v", got)
	}
	parts := settled(t, r, 54, "stile.call.part")
	for _, name := range []string{"stile.call.wait transport", "stile.call.wait server_queue", "stile.call.wait handler", "stile.server.call.wait server_queue", "stile.server.call.wait handler"} {
		if parts[name] <= 0 {
			t.Errorf("%s: %v", name, parts[name])
		}
	}
	if parts["stile.server.call.wait transport"] != 0 {
		t.Error("a server knows nothing of the transport")
	}

	want := settled(t, r, 54)
	maps.DeleteFunc(want, func(name string, _ float64) bool { return strings.HasPrefix(name, "rpc.") })
	if got = settled(t, other, 54); !same(got, want) {
		t.Errorf("another reader is told\n%v, want\n%v", got, want)
	}
}

// TestNotLost: what was counted until a producer is closed is told after it, and each time the same.
func TestNotLost(t *testing.T) {
	p := otelmetric.NewProducer()
	r := metric.NewManualReader(metric.WithProducer(p))
	metric.NewMeterProvider(metric.WithReader(r))
	c := dial(t, true)
	call(t, c, 5, 0)
	settled(t, r, 6)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	call(t, c, 5, 0)
	if first, again := told(t, r), told(t, r); first["stile.call.count"] != 6 || !same(first, again) {
		t.Errorf("%v, then %v", first, again)
	}
	if telemetry.Process().Enabled() {
		t.Error("it is counted for nobody")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Produce(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// TestMessages: messages of queues are told by OpenTelemetry's names for them, and are no calls.
func TestMessages(t *testing.T) {
	p := otelmetric.NewProducer()
	defer p.Close()
	r := metric.NewManualReader(metric.WithProducer(p))
	metric.NewMeterProvider(metric.WithReader(r))
	send, process := telemetry.Process().Link(telemetry.Client, "broker", telemetry.Peer{Topic: "orders"}), telemetry.Process().Link(telemetry.Server, "broker", telemetry.Peer{Topic: "orders"})
	defer send.Close()
	defer process.Close()
	for range 4 {
		send.Route(telemetry.RouteName{Method: "send orders"}).RecordMessage(0, &telemetry.Message{Duration: time.Millisecond, Waited: -1})
	}
	for code := range uint32(3) {
		process.Route(telemetry.RouteName{Method: "process orders"}).RecordMessage(0, &telemetry.Message{Duration: 2 * time.Millisecond, Waited: time.Second, Code: code})
	}
	got := told(t, r, "messaging.destination.name", "error.type")
	want := map[string]float64{
		"messaging.client.operation.duration orders": 4, "messaging.client.operation.duration.sum orders": 0.004, "messaging.process.duration orders": 1, "messaging.process.duration.sum orders": 0.002, "messaging.process.duration orders _OTHER": 2, "messaging.process.duration.sum orders _OTHER": 0.004,
		"stile.message.errors orders CANCELLED": 1, "stile.message.errors orders UNKNOWN": 1, "stile.message.wait orders": 3,
	}
	if !same(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestHostileNames: what a peer calls its methods has no exporter refuse what it is in.
func TestHostileNames(t *testing.T) {
	p := otelmetric.NewProducer(otelmetric.WithCallDuration())
	defer p.Close()
	r := metric.NewManualReader(metric.WithProducer(p))
	metric.NewMeterProvider(metric.WithReader(r))
	names := []string{"/s/\xff\x00", "/s/?\x00", "s/?\x00", "", "/", "other"}
	for _, side := range []telemetry.Side{telemetry.Client, telemetry.Server} {
		for _, address := range []string{"h:80", "h:080", "h\xff:80", "h?:80", "[::1]:80", "::1:80", ""} {
			l := telemetry.Process().Link(side, "shm", telemetry.Peer{Address: address})
			defer l.Close()
			for _, name := range names {
				for _, stream := range []bool{false, true} {
					l.Route(telemetry.RouteName{Method: name, Stream: stream}).Record(0, &telemetry.Call{Code: 99, Duration: 1, Far: true, Handled: 1})
				}
			}
		}
	}
	got := told(t, r)
	if each := float64(2 * 7 * len(names)); got["stile.call.count"] != each || got["stile.server.call.count"] != each || got["rpc.client.call.duration"] != each {
		t.Errorf("%v, want %v of each", got, each)
	}
}

// TestOff: with STILE_TELEMETRY=off there is nothing to tell, and nothing breaks.
func TestOff(t *testing.T) {
	if os.Getenv("STILE_TELEMETRY") != "off" {
		c := exec.Command(os.Args[0], "-test.run=^TestOff$", "-test.v")
		c.Env = append(os.Environ(), "STILE_TELEMETRY=off")
		if out, err := c.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestOff") {
			t.Errorf("%v: %s", err, out)
		}
		return
	}
	p := otelmetric.NewProducer()
	call(t, dial(t, true), 1, 0)
	if all, err := p.Produce(t.Context()); all != nil || err != nil {
		t.Error(all, err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

func ExampleNewProducer() {
	calls := otelmetric.NewProducer()
	defer calls.Close()
	reader := metric.NewManualReader(metric.WithProducer(calls)) // or metric.NewPeriodicReader(exporter, …)
	provider := metric.NewMeterProvider(metric.WithReader(reader))
	defer provider.Shutdown(context.Background())

	cc, err := stile.NewClient("127.0.0.1:1", grpc.WithTransportCredentials(insecure.NewCredentials()), stile.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		log.Fatal(err)
	}
	defer cc.Close()
	_, _ = healthpb.NewHealthClient(cc).Check(context.Background(), &healthpb.HealthCheckRequest{}) // nobody listens there

	var all metricdata.ResourceMetrics
	if err := reader.Collect(context.Background(), &all); err != nil {
		log.Fatal(err)
	}
	for _, m := range all.ScopeMetrics[0].Metrics {
		fmt.Println(m.Name, m.Unit)
	}
	// Output:
	// stile.call.count {call}
	// stile.call.errors {call}
}
