package compat

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
)

// ecosystemCases: what comes with grpc-go or is used with it everywhere, and a
// server whose handler panics.
var ecosystemCases = []diffCase{
	{name: "ecosystem/reflection", run: func(e *env) {
		e.serveWith(nil, func(s server) { reflection.Register(s) })
		cs, err := reflectionpb.NewServerReflectionClient(e.dial()).ServerReflectionInfo(e.ctx)
		if err != nil {
			e.c("%s", errText(err))
			return
		}
		ask := func(r *reflectionpb.ServerReflectionRequest) {
			e.c("send %s", errText(cs.Send(r)))
			out, err := cs.Recv()
			e.c("error %q %s", out.GetErrorResponse().GetErrorMessage(), errText(err))
			for _, s := range out.GetListServicesResponse().GetService() {
				e.c("service %s", s.GetName())
			}
			e.c("%d files", len(out.GetFileDescriptorResponse().GetFileDescriptorProto()))
		}
		ask(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}})
		ask(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{
			FileContainingSymbol: "grpc.reflection.v1.ServerReflection"}})
		ask(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{
			FileContainingSymbol: "no.Such"}})
		e.c("close %s", errText(cs.CloseSend()))
		_, err = cs.Recv()
		e.c("end %s", errText(err))
	}},
	{name: "ecosystem/health", run: func(e *env) {
		hs := health.NewServer()
		e.serveWith(nil, func(s server) { healthpb.RegisterHealthServer(s, hs) })
		hc := healthpb.NewHealthClient(e.dial())
		out, err := hc.Check(e.ctx, &healthpb.HealthCheckRequest{})
		e.c("%s %s", out.GetStatus(), errText(err))
		out, err = hc.Check(e.ctx, &healthpb.HealthCheckRequest{Service: "none"})
		e.c("%s %s", out.GetStatus(), errText(err))
		w, err := hc.Watch(e.ctx, &healthpb.HealthCheckRequest{Service: "shop"})
		e.c("%s", errText(err))
		for _, next := range []healthpb.HealthCheckResponse_ServingStatus{healthpb.HealthCheckResponse_SERVING, healthpb.HealthCheckResponse_NOT_SERVING} {
			out, err := w.Recv()
			e.c("%s %s", out.GetStatus(), errText(err))
			hs.SetServingStatus("shop", next)
		}
		out, err = w.Recv()
		e.c("%s %s", out.GetStatus(), errText(err))
		hs.Shutdown()
	}},
	{name: "ecosystem/health checked by the client", run: func(e *env) {
		e.serveWith(nil, func(s server) { healthpb.RegisterHealthServer(s, health.NewServer()) })
		e.unary(e.ctx, e.dial(grpc.WithDefaultServiceConfig(`{"healthCheckConfig":{"serviceName":""},"loadBalancingConfig":[{"round_robin":{}}]}`)), "a")
	}, remote: true},
	{name: "ecosystem/otelgrpc", run: func(e *env) {
		server, client := newTracer(), newTracer()
		e.serve(e.echo(), grpc.StatsHandler(otelgrpc.NewServerHandler(server.options()...)))
		cc := e.dial(grpc.WithStatsHandler(otelgrpc.NewClientHandler(client.options()...)))
		e.unary(e.ctx, cc, "a")
		cs := e.open(e.ctx, cc, bidiMethod)
		cs.send("a")
		cs.recv()
		cs.closeSend()
		cs.recv()
		if nope := e.open(e.ctx, cc, "/compat.Test/Nope"); nope != nil { // nothing is sent: grpc-go's own span may be OK if the answer comes first
			nope.recv()
		}
		e.finish()
		// The client's spans end before or after the server's.
		parents := map[trace.SpanID]bool{}
		for _, s := range client.spans.Ended() {
			parents[s.SpanContext().SpanID()] = true
			e.add("client spans", "%s", spanText(s))
		}
		for _, s := range server.spans.Ended() {
			e.add("server spans", "%s child of a client span %v", spanText(s), parents[s.Parent().SpanID()])
		}
		e.sortLane("client spans")
		e.sortLane("server spans")
	}},
	{name: "panic/unary handler", run: func(e *env) { panicInChild(e, unaryMethod) }, remote: true},
	{name: "panic/stream handler", run: func(e *env) { panicInChild(e, bidiMethod) }, remote: true},
	{name: "panic/none", run: func(e *env) { panicInChild(e, "") }, remote: true},
	{name: "panic/exit in a handler", run: func(e *env) { panicInChild(e, "exit") }, remote: true},
}

// tracer keeps the spans of one side.
type tracer struct {
	spans *tracetest.SpanRecorder
	tp    trace.TracerProvider
}

func newTracer() tracer {
	sr := tracetest.NewSpanRecorder()
	return tracer{sr, sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(sr))}
}

func (t tracer) options() []otelgrpc.Option {
	return []otelgrpc.Option{
		otelgrpc.WithTracerProvider(t.tp),
		otelgrpc.WithPropagators(propagation.TraceContext{}),
		otelgrpc.WithMessageEvents(otelgrpc.ReceivedEvents, otelgrpc.SentEvents),
	}
}

// spanText is a span without times, sizes on the wire and addresses.
func spanText(s sdktrace.ReadOnlySpan) string {
	var attrs []string
	for _, a := range s.Attributes() {
		key := string(a.Key)
		if strings.HasPrefix(key, "network.") || strings.HasPrefix(key, "net.") || strings.HasPrefix(key, "server.") || strings.HasPrefix(key, "client.") {
			attrs = append(attrs, key) // present; the value is an address
			continue
		}
		attrs = append(attrs, fmt.Sprintf("%s=%s", key, a.Value.String()))
	}
	slices.Sort(attrs)
	return fmt.Sprintf("%s %s %s %q events %d attributes %v", s.Name(), s.SpanKind(), s.Status().Code, s.Status().Description, len(s.Events()), attrs)
}

// panicInChild runs the server as another process whose handler of the method
// panics, as a crash must not take the tests along.
func panicInChild(e *env, method string) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDoor+"="+e.door.name, childSocket+"="+e.path, childPanics+"="+method)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		e.t.Error(err)
		return
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		e.t.Error(err)
		return
	}
	if err := cmd.Start(); err != nil {
		e.t.Error(err)
		return
	}
	ready := make([]byte, 6)
	if _, err := stdout.Read(ready); err != nil {
		e.t.Errorf("child: %v", err)
	}
	cc := e.dial()
	if method == "exit" {
		method = unaryMethod
	}
	e.c("unary fine %s", errText(cc.Invoke(e.ctx, unaryMethod, str("fine"), new(msg))))
	e.c("unary %s", codeText(cc.Invoke(e.ctx, unaryMethod, str("panic"), new(msg))))
	cs, err := cc.NewStream(e.ctx, clientDesc(bidiMethod), bidiMethod)
	if err == nil {
		_ = cs.SendMsg(str("panic"))
		err = cs.RecvMsg(new(msg))
	}
	e.c("stream %s", codeText(err))
	stdin.Close() // a child that did not die ends now
	err = cmd.Wait()
	e.s("exit %v", err)
	e.s("panic of the handler told %v", strings.Contains(stderr.String(), "panic: by the handler"))
}
