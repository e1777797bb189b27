package compat

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	experimental "google.golang.org/grpc/experimental/opentelemetry"
	"google.golang.org/grpc/stats/opentelemetry"
	"google.golang.org/grpc/status"

	"github.com/stile-ipc/stile"
	"github.com/stile-ipc/stile/policy"
)

// instruments measure one side of calls by the SDK, as a user's program does.
type instruments struct {
	tracer
	reader *sdkmetric.ManualReader
	mp     *sdkmetric.MeterProvider
}

func newInstruments() instruments {
	r := sdkmetric.NewManualReader()
	return instruments{newTracer(), r, sdkmetric.NewMeterProvider(sdkmetric.WithReader(r))}
}

// instrumentation is what measures calls, at both ends.
type instrumentation struct {
	name   string
	server func(instruments) []grpc.ServerOption
	client func(instruments) []grpc.DialOption
}

func (i instruments) otelgrpc() []otelgrpc.Option {
	return append(i.options(), otelgrpc.WithMeterProvider(i.mp))
}

func (i instruments) grpcgo() opentelemetry.Options {
	return opentelemetry.Options{
		MetricsOptions: opentelemetry.MetricsOptions{MeterProvider: i.mp, MethodAttributeFilter: func(string) bool { return true }},
		TraceOptions:   experimental.TraceOptions{TracerProvider: i.tp, TextMapPropagator: propagation.TraceContext{}},
	}
}

var instrumentations = []instrumentation{
	{
		"otelgrpc",
		func(i instruments) []grpc.ServerOption {
			return []grpc.ServerOption{grpc.StatsHandler(otelgrpc.NewServerHandler(i.otelgrpc()...))}
		},
		func(i instruments) []grpc.DialOption {
			return []grpc.DialOption{grpc.WithStatsHandler(otelgrpc.NewClientHandler(i.otelgrpc()...))}
		},
	},
	{
		"grpc-go's own",
		func(i instruments) []grpc.ServerOption {
			return []grpc.ServerOption{opentelemetry.ServerOption(i.grpcgo())}
		},
		func(i instruments) []grpc.DialOption { return []grpc.DialOption{opentelemetry.DialOption(i.grpcgo())} },
	},
}

// namesCases: what OpenTelemetry's instrumentations measure of calls is the same
// as over grpc-go: the metrics with their attributes, counts and bytes; the spans
// with their kinds, parents, attributes and events.
var namesCases = makeNamesCases()

func makeNamesCases() (all []diffCase) {
	for _, in := range instrumentations {
		all = append(all,
			diffCase{name: "names/" + in.name + "/unix", run: func(e *env) { e.measured(in, e.target(), nil, nil, manyCalls) }},
			diffCase{name: "names/" + in.name + "/tcp", run: func(e *env) {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					e.t.Error(err)
					return
				}
				e.measured(in, "dns:///"+l.Addr().String(), l, nil, manyCalls)
			}},
			diffCase{name: "names/" + in.name + "/service config retries", remote: true, run: func(e *env) {
				e.measured(in, e.target(), nil, []grpc.DialOption{grpc.WithDefaultServiceConfig(retryTwice)}, retriedCalls)
			}},
		)
	}
	return all
}

const retryTwice = `{"methodConfig":[{"name":[{}],"retryPolicy":{"maxAttempts":3,"initialBackoff":"0.001s","maxBackoff":"0.002s","backoffMultiplier":1,"retryableStatusCodes":["UNAVAILABLE"]}}]}`

// TestNamesOfRetries: attempts that a policy makes on a local connection are
// measured as those that grpc-go makes by its service config.
func TestNamesOfRetries(t *testing.T) {
	for _, in := range instrumentations {
		var want map[string][]string
		for i, d := range doors() {
			if i > 0 && !(d.local && strings.Contains(d.name, "NewClient")) { // the others' DialOptions are not given the policy
				continue
			}
			underDoor(t, in.name, d, func(t *testing.T) {
				got := runCase(t, d, diffCase{run: func(e *env) {
					option := grpc.WithDefaultServiceConfig(retryTwice)
					if d.local {
						safe := strings.Replace(retryTwice, `"retryPolicy"`, `"x-stile":{"idempotency":"IDEMPOTENT"},"retryPolicy"`, 1)
						c, err := policy.Parse("policy.json", []byte(safe))
						if err != nil {
							t.Error(err)
							return
						}
						p := policy.New(c)
						defer p.Close()
						option = stile.WithPolicy(p)
					}
					e.measured(in, e.target(), nil, []grpc.DialOption{option}, retriedCalls)
				}})
				delete(got, "client") // each says in its own words that it gave up
				for i, text := range got["client spans"] {
					got["client spans"][i] = strings.Replace(text, "max retries exhausted: failed after 3 attempts: rpc error: code = Unavailable desc = ", "", 1)
				}
				if want == nil {
					want = got
				}
				if text := diff(want, got); text != "" {
					t.Errorf("(- grpc-go, + door)\n%s", text)
				}
			})
		}
	}
}

// measured makes calls that both sides measure, and writes down what they have
// measured.
func (e *env) measured(in instrumentation, target string, l net.Listener, opts []grpc.DialOption, calls func(*env, context.Context, *grpc.ClientConn)) {
	server, client := newInstruments(), newInstruments()
	svc := &service{}
	if l == nil {
		var err error
		if l, err = net.Listen("unix", e.path); err != nil {
			e.t.Error(err)
			return
		}
	}
	e.serveOn(l, svc, nil, in.server(server)...)
	dialed := in.client(client)
	cc := e.dialTo(target, append(dialed, opts...)...)
	ctx, span := client.tp.Tracer("caller").Start(e.ctx, "caller")
	calls(e, ctx, cc)
	span.End()
	e.finish()
	names := addresses{l.Addr().String(): "SERVER", e.path: "SERVER"}
	parents := map[trace.SpanID]string{}
	for _, s := range client.spans.Ended() {
		parents[s.SpanContext().SpanID()] = s.Name()
	}
	for side, of := range map[string]instruments{"client": client, "server": server} {
		for _, s := range of.spans.Ended() {
			e.add(side+" spans", "%s", names.span(s, parents))
		}
		for _, text := range names.metrics(e, of.reader) {
			e.add(side+" metrics", "%s", text)
		}
		e.sortLane(side + " spans")
	}
}

// addresses are those of a case, which differ from run to run, with their names.
type addresses map[string]string

func (a addresses) in(text string) string {
	for at, name := range a {
		text = strings.ReplaceAll(text, at, name)
		if _, port, err := net.SplitHostPort(at); err == nil && text == port {
			text = "PORT"
		}
	}
	return text
}

// attributes writes them in order.
func (a addresses) attributes(set []attribute.KeyValue) string {
	var all []string
	for _, kv := range set {
		all = append(all, fmt.Sprintf("%s=%s", kv.Key, a.in(kv.Value.String())))
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func (a addresses) span(s sdktrace.ReadOnlySpan, parents map[trace.SpanID]string) string {
	var events []string
	for _, e := range s.Events() {
		if !strings.HasPrefix(e.Name, "Delayed ") { // that a connection had to be waited for
			events = append(events, fmt.Sprintf("%s %s", e.Name, a.attributes(e.Attributes)))
		}
	}
	return fmt.Sprintf("%s of %s, %s, %s %q, scope %s, {%s} %q", s.Name(), parents[s.Parent().SpanID()], s.SpanKind(), s.Status().Code, s.Status().Description,
		s.InstrumentationScope().Name, a.attributes(s.Attributes()), events)
}

// metrics writes a line for each data point, without times.
func (a addresses) metrics(e *env, r *sdkmetric.ManualReader) (all []string) {
	var got metricdata.ResourceMetrics
	if err := r.Collect(context.Background(), &got); err != nil {
		e.t.Error(err)
	}
	for _, scope := range got.ScopeMetrics {
		for _, m := range scope.Metrics {
			line := func(set attribute.Set, format string, args ...any) {
				all = append(all, fmt.Sprintf("%s %s (%s) {%s} ", scope.Scope.Name, m.Name, m.Unit, a.attributes(set.ToSlice()))+fmt.Sprintf(format, args...))
			}
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range data.DataPoints {
					line(p.Attributes, "%s %v %d", data.Temporality, data.IsMonotonic, p.Value)
				}
			case metricdata.Histogram[int64]: // of bytes
				for _, p := range data.DataPoints {
					line(p.Attributes, "%s %v %v of %d, %d", data.Temporality, p.Bounds, p.BucketCounts, p.Count, p.Sum)
				}
			case metricdata.Histogram[float64]: // of durations
				for _, p := range data.DataPoints {
					line(p.Attributes, "%s %v of %d", data.Temporality, p.Bounds, p.Count)
				}
			default:
				line(*attribute.EmptySet(), "%T", m.Data)
			}
		}
	}
	slices.Sort(all)
	return all
}

// manyCalls are calls of each kind, with each kind of end.
func manyCalls(e *env, ctx context.Context, cc *grpc.ClientConn) {
	came, late := make(chan struct{}), make(chan struct{})
	e.svc.unary = func(ctx context.Context, in *msg) (*msg, error) {
		switch in.GetValue() {
		case "missing":
			return nil, status.Error(codes.NotFound, "not there")
		case "broken":
			return nil, status.Error(codes.Internal, "broken")
		case "late":
			close(came)
			<-late
			return nil, status.Error(codes.Aborted, "late")
		}
		return str(strings.Repeat("x", len(in.GetValue()))), nil
	}
	e.svc.stream = e.echo().stream
	static := grpc.StaticMethod()
	for _, in := range []string{"", "a", strings.Repeat("b", 20_000), "missing", "broken"} {
		e.unary(ctx, cc, in, static)
	}
	e.unary(ctx, cc, "method not told")
	impatient, cancel := context.WithCancel(ctx)
	go func() {
		<-came
		cancel()
	}()
	e.c("%s", codeText(cc.Invoke(impatient, unaryMethod, str("late"), new(msg), static)))
	close(late)
	if nope := e.open(ctx, cc, "/compat.Test/Nope", static); nope != nil { // a stream, as a request that meets the answer counts as OK in grpc-go's own, at times
		nope.recv()
	}
	for _, method := range []string{bidiMethod, clientMethod, serverMethod} {
		ended := make(chan struct{})
		cs := e.open(ctx, cc, method, static, grpc.OnFinish(func(error) { close(ended) }))
		cs.send("a")
		if method == bidiMethod {
			cs.recv()
		}
		cs.closeSend()
		cs.drain()
		within(e, "the end of a stream", ended)
	}
	left, leave := context.WithCancel(ctx)
	ended := make(chan struct{})
	cs := e.open(left, cc, bidiMethod, static, grpc.OnFinish(func(error) { close(ended) }))
	cs.send("a")
	cs.recv()
	leave()
	within(e, "the end of a stream that was left", ended)
	e.svc.wait()
}

// retriedCalls fail twice, and thrice.
func retriedCalls(e *env, ctx context.Context, cc *grpc.ClientConn) {
	var seen atomic.Int64
	failing := int64(2)
	e.svc.unary = func(context.Context, *msg) (*msg, error) {
		if seen.Add(1) <= failing {
			return nil, status.Error(codes.Unavailable, "not yet")
		}
		return str("now"), nil
	}
	e.unary(ctx, cc, "a", grpc.StaticMethod())
	seen.Store(0)
	failing = 3
	e.unary(ctx, cc, "a", grpc.StaticMethod())
}
