package hub

import (
	"encoding/binary"
	"encoding/hex"
	"net"
	"strconv"
	"strings"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/stile-ipc/stile/hub/hubpb"
	"github.com/stile-ipc/stile/routemap"
	"github.com/stile-ipc/stile/routemap/tracefile"
)

// maxToldSpans is how many spans are told in a request: of the longest names less than 4 MiB, which is what collectors take.
const maxToldSpans = 1000

// ownSpans are requests to export what a report tells of traced calls. A nil one makes none.
type ownSpans struct {
	to       *forwarder
	resource *resourcepb.Resource
	spans    []*tracepb.Span
}

func (f *forwarder) ownSpans(from *hubpb.Process) *ownSpans {
	if f == nil {
		return nil
	}
	return &ownSpans{to: f, resource: processResource(from)}
}

// add adds a span, which the hub has taken in as one and whose other end is peer, as far as that is known.
func (o *ownSpans) add(s *hubpb.Span, one *routemap.Span, peer routemap.Node) {
	if o == nil {
		return
	}
	if o.spans = append(o.spans, otlpSpan(s, one, peer)); len(o.spans) == maxToldSpans {
		o.flush()
	}
}

// flush has the spans wait to be sent, apart from what others send, of which nothing is dropped for them.
func (o *ownSpans) flush() {
	if o == nil || len(o.spans) == 0 {
		return
	}
	body, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: []*tracepb.ResourceSpans{{
		Resource: o.resource, ScopeSpans: []*tracepb.ScopeSpans{{Scope: &commonpb.InstrumentationScope{Name: tracefile.HubScope}, Spans: o.spans}},
	}}})
	o.spans = nil
	if err != nil { // texts are UTF-8, so that there is none
		o.to.drop(dropRefused, 1)
		return
	}
	o.to.offer(parcel{signal: ownTraces, body: body})
}

// processResource is a process, as OpenTelemetry calls what there is to say of it.
func processResource(p *hubpb.Process) *resourcepb.Resource {
	r := &resourcepb.Resource{Attributes: []*commonpb.KeyValue{
		stringAttribute("service.name", p.GetService()), stringAttribute("service.instance.id", hex.EncodeToString(p.GetIdentity())), intAttribute("process.pid", p.GetPid()),
		stringAttribute("telemetry.sdk.name", "stile"), stringAttribute("telemetry.sdk.language", "go"),
	}}
	for _, a := range [][2]string{
		{"host.name", p.GetHost()}, {"process.executable.path", p.GetExecutable()}, {"telemetry.sdk.version", p.GetStileVersion()}, {"process.runtime.version", p.GetGoVersion()},
	} {
		if a[1] != "" {
			r.Attributes = append(r.Attributes, stringAttribute(a[0], a[1]))
		}
	}
	return r
}

// otlpSpan is a span as otelgrpc would have it, which has where it waited and how many calls it stands for besides.
func otlpSpan(s *hubpb.Span, one *routemap.Span, peer routemap.Node) *tracepb.Span {
	out := &tracepb.Span{
		TraceId: s.GetTrace(), SpanId: spanIDBytes(s.GetId()), Name: one.Name, Kind: tracepb.Span_SPAN_KIND_CLIENT,
		StartTimeUnixNano: uint64(one.Start), EndTimeUnixNano: uint64(one.End), Status: otlpStatus(s), Attributes: append(rpcAttributes(s, one, peer), stileAttributes(s, one)...),
		Flags: sampledFlag | uint32(tracepb.SpanFlags_SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK),
	}
	if s.GetParent() != 0 {
		out.ParentSpanId = spanIDBytes(s.GetParent())
	}
	if s.GetSide() == hubpb.Side_SIDE_SERVER {
		out.Kind = tracepb.Span_SPAN_KIND_SERVER
		if s.GetParent() != 0 {
			out.Flags |= uint32(tracepb.SpanFlags_SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK)
		}
	}
	return out
}

// sampledFlag is W3C's trace flag of what was chosen to be traced.
const sampledFlag = 1

func spanIDBytes(id uint64) []byte { return binary.BigEndian.AppendUint64(nil, id) }

// otlpStatus has an error where otelgrpc has one: of a server's codes only those that are its own fault.
func otlpStatus(s *hubpb.Span) *tracepb.Status {
	code := codes.Code(s.GetCode())
	if s.GetSide() == hubpb.Side_SIDE_SERVER {
		switch code {
		case codes.Unknown, codes.DeadlineExceeded, codes.Unimplemented, codes.Internal, codes.Unavailable, codes.DataLoss:
		default:
			return nil
		}
	}
	if code == codes.OK {
		return nil
	}
	return &tracepb.Status{Code: tracepb.Status_STATUS_CODE_ERROR, Message: errorClass(s.GetCode())}
}

// rpcAttributes are OpenTelemetry's, by its old names and its new ones; where one has two meanings it is the new one, as otelgrpc has it that tells both.
func rpcAttributes(s *hubpb.Span, one *routemap.Span, peer routemap.Node) []*commonpb.KeyValue {
	all := []*commonpb.KeyValue{
		stringAttribute("rpc.system", "grpc"), stringAttribute("rpc.system.name", "grpc"), stringAttribute("rpc.method", one.Name),
		intAttribute("rpc.grpc.status_code", int64(s.GetCode())), stringAttribute("rpc.response.status_code", errorClass(s.GetCode())),
	}
	if service, _, is := strings.Cut(one.Name, "/"); is {
		all = append(all, stringAttribute("rpc.service", service))
	}
	all = append(all, transportAttribute(s.GetTransport())...)
	if host, port, err := net.SplitHostPort(s.GetAddress()); err == nil {
		all = append(all, stringAttribute("server.address", host))
		if n, err := strconv.ParseUint(port, 10, 16); err == nil {
			all = append(all, intAttribute("server.port", int64(n)))
		}
	} else if s.GetAddress() != "" {
		all = append(all, stringAttribute("server.address", strings.TrimPrefix(strings.TrimPrefix(s.GetAddress(), "unix:"), "//")))
	}
	if one.Kind == routemap.Client && peer.Kind == routemap.Service {
		all = append(all, stringAttribute("peer.service", peer.Name))
	}
	return all
}

// stileAttributes are what OpenTelemetry has no names for.
func stileAttributes(s *hubpb.Span, one *routemap.Span) (all []*commonpb.KeyValue) {
	number := func(name string, n int64, is bool) {
		if is {
			all = append(all, intAttribute("stile."+name, n))
		}
	}
	number("weight", int64(max(s.GetWeight(), 1)), s.GetParent() == 0)
	number("attempt", int64(s.GetTry()), s.GetTry() > 0)
	number("wait.limit_ns", one.Call.Limit, one.Call.Limit > 0)
	number("wait.slot_ns", one.Call.Slot, one.Call.Slot > 0)
	number("wait.window_ns", one.Call.Window, one.Call.Window > 0)
	number("wait.admission_ns", one.Call.Admission, one.Call.Admission > 0)
	if end, _ := one.Call.End.MarshalText(); one.Call.End != routemap.Answered { // it never fails
		all = append(all, stringAttribute("stile.end", string(end)))
	}
	if one.Call.Cause != "" {
		all = append(all, stringAttribute("stile.cause", one.Call.Cause))
	}
	number("request.size", s.GetRequest(), s.GetRequest() >= 0)
	number("response.size", s.GetResponse(), s.GetResponse() >= 0)
	if w := one.Waits; w != nil {
		number("wait.client_queue_ns", w.ClientQueue, true)
		number("wait.transport_ns", w.Transport, w.Far)
		number("wait.server_queue_ns", w.ServerQueue, w.Far)
		number("wait.handler_ns", w.Handler, w.Far)
	}
	return all
}

func intAttribute(key string, value int64) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: key, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_IntValue{IntValue: value}}}
}
