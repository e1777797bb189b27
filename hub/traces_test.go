package hub

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// TestTracesAPI: traces that came are listed and shown whole, those that show a route on the map among them; questions that make no sense are told so.
func TestTracesAPI(t *testing.T) {
	dir := t.TempDir()
	h := openHub(t, Config{Dir: dir})
	data := callSpans(0, 20, "catalog")
	for _, rs := range data.ResourceSpans {
		for _, s := range rs.ScopeSpans[0].Spans {
			if s.SpanId[7] == 1 && s.TraceId[15] == 7 {
				s.Status = &tracepb.Status{Code: tracepb.Status_STATUS_CODE_ERROR}
				s.EndTimeUnixNano += 20e6
			}
		}
	}
	if r := post(t, h, marshal(t, data), "Content-Type", typeProtobuf); r.code != http.StatusOK {
		t.Fatal(r.code)
	}
	closeHub(t, h)
	h = openHub(t, Config{Dir: dir})
	defer closeHub(t, h)
	all := decode[TraceList](t, get(t, h, "/api/v1/traces"))
	if len(all.Traces) != 20 || all.Kept != 20 || all.Seen != 20 {
		t.Fatalf("%d traces, %d kept of %d", len(all.Traces), all.Kept, all.Seen)
	}
	m := decode[Map](t, get(t, h, "/api/v1/map"))
	route := m.Routes[0].ID()
	slow := decode[TraceList](t, get(t, h, "/api/v1/traces?min=11ms&route="+route))
	if len(slow.Traces) != 1 || slow.Traces[0].ID != fmt.Sprintf("01%030x", 7) || !slow.Traces[0].Failed || slow.Traces[0].Duration != 30e6 || slow.Traces[0].Spans != 2 || slow.Traces[0].Service != "front" || len(slow.Traces[0].Why) != 3 {
		t.Errorf("%+v", slow)
	}
	for query, n := range map[string]int{"max=11ms": 19, "min=10ms&max=10ms&route=" + route: 19, "limit=4": 4, "from=0001-01-01T00:00:00Z&to=9999-01-01T00:00:00Z": 20, "route=0123456789abcdef": 0, "from=2h&to=1h": 0} {
		if l := decode[TraceList](t, get(t, h, "/api/v1/traces?"+query)); len(l.Traces) != n || l.Traces == nil {
			t.Errorf("%s: %d traces, want %d", query, len(l.Traces), n)
		}
	}
	one := decode[Trace](t, get(t, h, "/api/v1/trace?id="+slow.Traces[0].ID))
	if len(one.Spans) != 2 || one.Duration != 30e6 || !one.Failed || !one.Window.From.Before(one.Window.To) {
		t.Fatalf("%+v", one)
	}
	client, server := one.Spans[0], one.Spans[1]
	if client.Kind != "client" || client.Parent != "" || client.Error != "error" || client.Route != route || fmt.Sprint(client.Critical) != "[[0 1000000] [9000000 30000000]]" {
		t.Errorf("%+v", client)
	}
	if server.Kind != "server" || server.Parent != "0000000000000001" && server.Parent != fmt.Sprintf("%016x", uint64(client.ID)) || server.Start != 1e6 || server.Route != route || fmt.Sprint(server.Critical) != "[[1000000 9000000]]" {
		t.Errorf("%+v", server)
	}
	for _, e := range m.Routes[0].Evidence {
		if r := get(t, h, "/api/v1/trace?id="+e.Trace); r.code != http.StatusOK {
			t.Errorf("%s shows the route, and is not kept: %d", e.Trace, r.code)
		}
	}
	if s := decode[Status](t, get(t, h, "/api/v1/status")); s.Store.Traces != 20 || s.Store.Seen != 20 {
		t.Errorf("%+v", s.Store)
	}
	for path, code := range map[string]int{
		"traces?route=x": 400, "traces?limit=0": 400, "traces?limit=501": 400, "traces?min=5": 400, "traces?max=-5ms": 400, "traces?min=2ms&max=1ms": 400, "traces?points=3": 400, "traces?from=x": 400,
		"trace": 400, "trace?id=": 400, "trace?id=xyz0": 400, "trace?id=abc": 400, "trace?id=" + strings.Repeat("ab", 33): 400, "trace?id=ff&from=1h": 400, "trace?id=ffff": 404,
	} {
		if r := get(t, h, "/api/v1/"+path); r.code != code || !strings.Contains(string(r.body), `"error"`) {
			t.Errorf("%s: %d %s, want %d", path, r.code, r.body, code)
		}
	}
}
