package semconv

import (
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/stile-ipc/stile/routemap"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestNames: old and new names say the same.
func TestNames(t *testing.T) {
	for name, c := range map[string]struct {
		span  string // its name
		attrs string // NAME=VALUE, parted by blanks
		want  routemap.Span
	}{
		"gRPC, old":      {"x", "rpc.system=grpc rpc.service=s.S rpc.method=Get rpc.grpc.status_code=14", routemap.Span{Operation: "s.S/Get", Class: "grpc UNAVAILABLE"}},
		"gRPC, new":      {"x", "rpc.system.name=grpc rpc.method=s.S/Get rpc.response.status_code=UNAVAILABLE", routemap.Span{Operation: "s.S/Get", Class: "grpc UNAVAILABLE"}},
		"a deadline":     {"x", "rpc.response.status_code=DEADLINE_EXCEEDED", routemap.Span{Class: routemap.ClassTimeout}},
		"a cancellation": {"x", "rpc.grpc.status_code=1", routemap.Span{Class: routemap.ClassCancel}},
		"all well":       {"x", "rpc.grpc.status_code=0 http.status_code=404", routemap.Span{}},
		"HTTP, old": {"HTTP GET", "http.method=get http.url=http://a.b/orders/17?x=1 http.status_code=500 net.peer.name=a.b net.peer.port=80 http.response_content_length=7",
			routemap.Span{Operation: "GET /orders/{id}", Class: "http 500", Peer: "a.b:80", PeerKind: routemap.External, Response: 7}},
		"HTTP, new": {"GET", "http.request.method=GET url.full=http://a.b/orders/17?x=1 http.response.status_code=504 server.address=::1 network.transport=tcp http.request.body.size=9 http.request.resend_count=1",
			routemap.Span{Operation: "GET /orders/{id}", Class: routemap.ClassTimeout, Peer: "::1", PeerKind: routemap.External, Transport: routemap.TCPLoopback, Request: 9, Resent: true}},
		"HTTP's route":  {"x", "http.method=GET http.route=/orders/:id", routemap.Span{Operation: "GET /orders/:id"}},
		"database":      {"x", "db.system=postgresql db.name=shop db.operation=SELECT db.statement=SELECT", routemap.Span{Operation: "SELECT shop", Peer: "postgresql shop", PeerKind: routemap.External}},
		"database, new": {"x", "db.system.name=postgresql db.namespace=shop db.operation.name=SELECT db.query.text=SELECT", routemap.Span{Operation: "SELECT shop", Peer: "postgresql shop", PeerKind: routemap.External}},
		"messages":      {"x", "messaging.system=nats messaging.destination.name=orders messaging.message.body.size=3", routemap.Span{Peer: "nats", PeerKind: routemap.Queue, Destination: "orders", Request: 3}},
		"a socket":      {"x", "network.transport=unix server.address=/run/s peer.service=db", routemap.Span{Peer: "db", PeerKind: routemap.External, Transport: routemap.UnixStream}},
		"an error":      {"x", "rpc.system.name=grpc rpc.method=s.S/Get error.type=_OTHER", routemap.Span{Operation: "s.S/Get", Class: "_OTHER"}},
		"OpenTracing":   {"x", "span.kind=server error=true component=x", routemap.Span{Kind: routemap.Server, Class: routemap.ClassError}},
		"error's type":  {"x", "error=true error.type=java.net.X", routemap.Span{Class: "java.net.X"}},
		"error, or not": {"x", "error=false error.type=x", routemap.Span{}},
		"a huge type":   {"x", "error=true error.type=" + strings.Repeat("x", 100), routemap.Span{Class: strings.Repeat("x", 64)}},
		"service, host": {"x", "service.name=shop host.name=h ip=10.0.0.1", routemap.Span{Service: "shop", Host: "h"}},
	} {
		var f Facts
		for a := range strings.FieldsSeq(c.attrs) {
			name, value, _ := strings.Cut(a, "=")
			if _, read := names[name]; !read && name != "component" {
				t.Errorf("%s: %s is not read", c.span, name)
			}
			f.Set(name, value)
		}
		got := routemap.Span{Name: c.span}
		f.Apply(&got)
		if got.Print != 0 != (strings.Contains(c.attrs, "url") || strings.Contains(c.attrs, "SELECT")) {
			t.Errorf("%s: print %d", name, got.Print)
		}
		c.want.Name, got.Print = c.span, 0
		for _, size := range []*int64{&c.want.Request, &c.want.Response} {
			if *size == 0 {
				*size = -1
			}
		}
		if got.Operation != c.want.Operation || got.Class != c.want.Class || got.Peer != c.want.Peer || got.PeerKind != c.want.PeerKind || got.Transport != c.want.Transport || got.Kind != c.want.Kind ||
			got.Destination != c.want.Destination || got.Request != c.want.Request || got.Response != c.want.Response || got.Resent != c.want.Resent || got.Service != c.want.Service || got.Host != c.want.Host {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}
