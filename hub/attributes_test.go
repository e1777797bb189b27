package hub

import (
	"fmt"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/emptypb"
)

// attributes are a million of a span, in protobuf, of a key and a value each.
func attributes(key func(n int) string, value string) (all []byte) {
	const million = 1_000_000
	for n := range million {
		text := protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), value))
		one := append(protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), key(n)), text...)
		all = protowire.AppendBytes(protowire.AppendTag(all, 9, protowire.BytesType), one)
	}
	return all
}

// overdone is a call of front to catalog whose client's span has these attributes before its own.
func overdone(t *testing.T, number int, more []byte) []byte {
	t.Helper()
	data := callSpans(number, 1, "catalog")
	i := slices.IndexFunc(data.ResourceSpans, func(r *tracepb.ResourceSpans) bool {
		return r.GetResource().GetAttributes()[0].GetValue().GetStringValue() == "front"
	})
	front := data.ResourceSpans[i]
	data.ResourceSpans = slices.Delete(data.ResourceSpans, i, i+1)
	span := append(slices.Clone(more), marshal(t, front.ScopeSpans[0].Spans[0])...)
	front.ScopeSpans = nil
	scope := protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), span)
	body := append(marshal(t, front), protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), scope)...)
	return append(protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), body), marshal(t, data)...)
}

// TestMillionAttributes: a span of a million attributes is taken if its request is no larger than one may be, and nothing is kept but what tells of calls, also if that comes last. Attributes have no
// limit of their own, and so none is counted as left out. In a larger request, and in JSON always, they are refused with the reason, which counts. By gRPC and HTTP, with gzip and without.
func TestMillionAttributes(t *testing.T) {
	dir := t.TempDir()
	h := openHub(t, Config{Dir: dir, readWithin: time.Minute}) // the race detector takes long to unzip
	defer func() { closeHub(t, h) }()
	cc := dial(t, h)
	byGRPC := func(body []byte, opts ...grpc.CallOption) bool {
		request, answer := new(emptypb.Empty), new(emptypb.Empty)
		request.ProtoReflect().SetUnknown(body)
		err := cc.Invoke(t.Context(), exportMethod, request, answer, opts...)
		if code := status.Code(err); code != codes.OK && code != codes.ResourceExhausted || len(answer.ProtoReflect().GetUnknown()) > 0 {
			t.Errorf("gRPC: %v, %v", err, answer)
		}
		return err == nil
	}
	byHTTP := func(body []byte, headers ...string) bool {
		r := post(t, h, body, headers...)
		if r.code != http.StatusRequestEntityTooLarge && (r.code != http.StatusOK || len(r.body) > 0) {
			t.Errorf("HTTP: %d %s", r.code, r.body)
		}
		return r.code == http.StatusOK
	}
	used := func() int64 {
		var m runtime.MemStats
		for range 3 { // pools give theirs back at the second
			runtime.GC()
		}
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}

	few := attributes(func(n int) string { return fmt.Sprintf("%06x", n) }, "x")
	number := 0
	body := func(number int) []byte { return overdone(t, number, few) }
	if n := len(body(0)); n > maxBody || n < maxBody/2 {
		t.Fatalf("a body of %d bytes", n)
	}
	ways := map[string]func(body []byte) bool{ // whether it is taken; if not, as it is too large
		"gRPC": func(body []byte) bool { return byGRPC(body) },
		"HTTP": func(body []byte) bool { return byHTTP(body, "Content-Type", typeProtobuf) },
	}
	withGzip := map[string]func(body []byte) bool{
		"gRPC, gzip": func(body []byte) bool { return byGRPC(body, grpc.UseCompressor("gzip")) },
		"HTTP, gzip": func(body []byte) bool {
			return byHTTP(zipped(t, body), "Content-Type", typeProtobuf, "Content-Encoding", "gzip")
		},
	}
	if !testing.Short() { // to zip keeps the race detector busy for most of a minute
		maps.Copy(ways, withGzip)
	}
	before := used()
	for name, taken := range ways {
		if number++; !taken(body(number)) {
			t.Errorf("%s: it is not taken", name)
		}
	}
	if grown := used() - before; grown > 8<<20 { // buffers of connections among it
		t.Errorf("%d bytes are held", grown)
	}

	delete(ways, "HTTP") // who sends on may be cut off before there is an answer
	maps.Copy(ways, withGzip)
	large := overdone(t, 0, attributes(func(int) string { return "rpc.method" }, "Get"))
	for name, taken := range ways {
		if taken(large) {
			t.Errorf("%s: what is too large is taken", name)
		}
	}
	text := `{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"01","spanId":"02","startTimeUnixNano":"1","attributes":[` + strings.Repeat(`{"key":"x"},`, 1_000_000-1) + `{"key":"x"}]}]}]}]}`
	if byHTTP(zipped(t, []byte(text)), "Content-Type", typeJSON, "Content-Encoding", "gzip") {
		t.Error("JSON: what is too large is taken")
	}

	tooLarge := uint64(len(ways) + 1)
	s := whenRefused(t, h, tooLarge)
	if s.Spans != uint64(2*number) || len(s.LeftOut) != 0 || len(s.Refused) != 1 || s.Refused[refusedLarge] != tooLarge {
		t.Errorf("%+v", s)
	}
	closeHub(t, h)
	h = openHub(t, Config{Dir: dir})
	m := decode[Map](t, get(t, h, "/api/v1/map?from=1h"))
	if len(m.Routes) != 1 || m.Routes[0].Key.String() != "front → catalog shop.Catalog/Get" || m.Routes[0].Calls != uint64(number) || m.Routes[0].Paired != m.Routes[0].Calls {
		t.Errorf("%+v", m.Routes)
	}
}
