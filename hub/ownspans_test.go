package hub

import (
	"bytes"
	"encoding/binary"
	"net/http"
	"slices"
	"testing"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/stile-ipc/stile/hub/hubpb"
	"github.com/stile-ipc/stile/routemap"
	"github.com/stile-ipc/stile/routemap/tracefile"
)

// toldSpan is a span that a collector was told of, and what of its attributes has a name.
type toldSpan struct {
	*tracepb.Span
	resource, said map[string]any
}

func saidBy(all []*commonpb.KeyValue) map[string]any {
	said := map[string]any{}
	for _, a := range all {
		switch v := a.GetValue().GetValue().(type) {
		case *commonpb.AnyValue_StringValue:
			said[a.GetKey()] = v.StringValue
		case *commonpb.AnyValue_IntValue:
			said[a.GetKey()] = v.IntValue
		}
	}
	return said
}

// toldSpans reads what has come, by the spans' IDs.
func toldSpans(t *testing.T, bodies [][]byte) map[uint64][]toldSpan {
	t.Helper()
	all := map[uint64][]toldSpan{}
	for _, body := range bodies {
		data := new(tracepb.TracesData)
		if err := proto.Unmarshal(body, data); err != nil {
			t.Fatal(err)
		}
		for _, r := range data.ResourceSpans {
			for _, scope := range r.ScopeSpans {
				if scope.GetScope().GetName() != tracefile.HubScope || len(scope.Spans) > maxToldSpans {
					t.Errorf("%d spans of the scope %q", len(scope.Spans), scope.GetScope().GetName())
				}
				for _, s := range scope.Spans {
					if len(s.TraceId) != 16 || len(s.SpanId) != 8 || len(s.ParentSpanId) != 8 && len(s.ParentSpanId) != 0 || s.StartTimeUnixNano == 0 || s.EndTimeUnixNano < s.StartTimeUnixNano {
						t.Fatalf("%v is no span of OTLP's", s)
					}
					id := binary.BigEndian.Uint64(s.SpanId)
					all[id] = append(all[id], toldSpan{s, saidBy(r.GetResource().GetAttributes()), saidBy(s.Attributes)})
				}
			}
		}
	}
	return all
}

// TestOwnSpans: what processes tell of traced calls goes on as OTLP, as otelgrpc would tell of it, once, also if the collector was away; what is no span does not.
func TestOwnSpans(t *testing.T) {
	c := newCollector(t, func(n int, w http.ResponseWriter) bool {
		if n <= 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		return n > 3
	})
	h := openHub(t, Config{Forward: &Forward{URL: c.URL, backoff: soon}})
	agents := agentsOf(t, h)
	front, back := newReporter(t, agents, 1, "front"), newReporter(t, agents, 2, "back", "127.0.0.1:50051")
	client, server := hubpb.Side_SIDE_CLIENT, hubpb.Side_SIDE_SERVER
	called := spanAt(1, 1, 0, client, "/s.S/Known", back, "localhost:50051")
	called.Code, called.Weight, called.Try, called.Response = uint32(codes.NotFound), 64, 2, -1
	served := spanAt(1, 2, 1, server, "/s.S/Known", front, "/run/back.sock")
	served.Code, served.Transport, served.Handled, served.Waits = uint32(codes.NotFound), "unix-stream", 2e6, nil
	far := spanAt(1, 3, 1, client, "/s.S/Far", nil, "x")
	far.BegunUnixNano = 1
	note := &hubpb.Span{Trace: idOf(1), Id: 4, Note: true, Bodies: &hubpb.Bodies{}}
	front.reportSpans(nil, called, far, note) // which comes twice
	back.reportSpans(nil, served)
	closeHub(t, h)
	if s := h.forward.status(); s.Sent != 2 || len(s.Dropped) != 0 || s.Waiting != 0 {
		t.Errorf("%+v", s)
	}
	all := toldSpans(t, c.bodies)
	if len(all) != 2 || len(all[1]) != 1 || len(all[2]) != 1 {
		t.Fatalf("%d spans: %v", len(all), all)
	}
	one, two := all[1][0], all[2][0]
	if string(one.TraceId) != string(idOf(1)) || one.ParentSpanId != nil || one.Kind != tracepb.Span_SPAN_KIND_CLIENT || one.Name != "s.S/Known" || one.StartTimeUnixNano != called.BegunUnixNano ||
		one.EndTimeUnixNano != called.BegunUnixNano+called.Over || one.Status.GetCode() != tracepb.Status_STATUS_CODE_ERROR || one.Flags != 0x101 {
		t.Errorf("%v", one)
	}
	if string(two.ParentSpanId) != string(one.SpanId) || two.Kind != tracepb.Span_SPAN_KIND_SERVER || two.EndTimeUnixNano != served.BegunUnixNano+served.Handled || two.Status != nil || two.Flags != 0x301 {
		t.Errorf("%v", two)
	}
	has := func(of string, said, want map[string]any) {
		t.Helper()
		for name, v := range want {
			if said[name] != v {
				t.Errorf("%s: %s is %v, not %v", of, name, said[name], v)
			}
		}
	}
	has("client", one.said, map[string]any{
		"rpc.system": "grpc", "rpc.service": "s.S", "rpc.method": "s.S/Known", "rpc.grpc.status_code": int64(5), "rpc.response.status_code": "NOT_FOUND", "network.transport": "shm",
		"server.address": "localhost", "server.port": int64(50051), "peer.service": "back", "stile.weight": int64(64), "stile.attempt": int64(2), "stile.request.size": int64(10), "stile.response.size": nil,
		"stile.wait.client_queue_ns": int64(1000), "stile.wait.server_queue_ns": int64(2000), "stile.wait.transport_ns": int64(0), "stile.wait.handler_ns": int64(called.Over) - 3000,
		"stile.wait.limit_ns": int64(300), "stile.wait.slot_ns": int64(200), "stile.wait.window_ns": int64(100), "stile.end": nil, "stile.cause": nil,
	})
	has("server", two.said, map[string]any{"network.transport": "unix", "server.address": "/run/back.sock", "peer.service": nil, "stile.weight": nil, "stile.wait.client_queue_ns": nil})
	has("front", one.resource, map[string]any{"service.name": "front", "service.instance.id": "01000000000000000000000000000001", "process.pid": int64(1)})
	has("back", two.resource, map[string]any{"service.name": "back"})
}

// TestOwnSpansMany: a report of many spans goes on in requests that collectors take, and none of others is dropped for it.
func TestOwnSpansMany(t *testing.T) {
	stands := make(chan struct{})
	c := newCollector(t, func(int, http.ResponseWriter) bool { <-stands; return true })
	h := openHub(t, Config{Forward: &Forward{URL: c.URL, backoff: soon}})
	for h.forward.status().Bytes < maxWaiting-2<<20 {
		h.forward.offer(parcel{signal: traces, body: make([]byte, 1<<20)})
	}
	const n = 20_000
	var all []*hubpb.Span
	for i := range uint64(n) {
		s := spanAt(i+1, 1, 0, hubpb.Side_SIDE_CLIENT, "/s.S/M", nil, "x")
		s.Id = i + 1
		all = append(all, s)
	}
	newReporter(t, agentsOf(t, h), 1, "front").reportSpans(nil, all...)
	close(stands)
	closeHub(t, h)
	if s := h.forward.status(); len(s.Dropped) != 0 || s.Waiting != 0 {
		t.Errorf("%+v", s)
	}
	own := slices.DeleteFunc(c.bodies, func(b []byte) bool { return b[0] == 0 })
	slices.SortFunc(own, bytes.Compare)
	own = slices.CompactFunc(own, bytes.Equal) // while the collector stands, a try may end without an answer: then another comes
	if got := toldSpans(t, own); len(got) != n || len(own) != n/maxToldSpans {
		t.Errorf("%d spans of %d, in %d requests", len(got), n, len(own))
	}
}

// TestOwnSpansToHub: another hub knows the calls of processes by the metrics that it is told, all of them, and leaves out the spans of some.
func TestOwnSpansToHub(t *testing.T) {
	dir := t.TempDir()
	to := openHub(t, Config{Dir: dir})
	from := openHub(t, Config{Forward: &Forward{URL: "http://" + to.Addrs()[forOTLPHTTP]}})
	front := newReporter(t, agentsOf(t, from), 1, "front")
	front.reportSpans([]*hubpb.Route{calls(hubpb.Side_SIDE_CLIENT, "/s.S/M", nil, "back:1", 20)}, spanAt(1, 1, 0, hubpb.Side_SIDE_CLIENT, "/s.S/M", nil, "back:1"))
	closeHub(t, from)
	if s := to.intake.status(); s.LeftOut[OfHub] != 1 || s.Spans != 0 || s.Held != 0 {
		t.Errorf("%+v", s)
	}
	if s := from.forward.status(); s.Sent != 2 || s.Rejected != 0 {
		t.Errorf("%+v", s)
	}
	to = reopen(t, to)
	defer closeHub(t, to)
	if m, err := to.Map(t.Context(), to.began.Add(-1e12), to.began.Add(1e12)); err != nil || len(m.Routes) != 1 || m.Routes[0].Calls != 20 || m.Routes[0].Sources != routemap.FromMetrics {
		t.Errorf("%v: %+v", err, m.Report)
	}
}
