package hub

import (
	"bytes"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/emptypb"

	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"

	"github.com/stile-ipc/stile/routemap"
)

const metricsMethod = "/" + metricsService + "/Export"

func postMetrics(t testing.TB, h *Hub, body []byte, headers ...string) reply {
	t.Helper()
	return request(t, http.MethodPost, "http://"+h.Addrs()[forOTLPHTTP]+"/v1/metrics", body, headers...)
}

// callMetrics is what a service tells of n calls of one more, by delta.
func callMetrics(service, peer string, n uint64) *metricspb.MetricsData {
	l := &teller{now: time.Now(), began: time.Now().Add(-time.Minute)}
	s := clientSeries(service, peer, "OK", n, 0, 0, 0)
	s.delta = true
	return &metricspb.MetricsData{ResourceMetrics: []*metricspb.ResourceMetrics{s.data(l)}}
}

// TestExportMetrics: metrics that come each way are on the map, also after the hub was closed and opened again; what is not of calls is no fault of who sends it.
func TestExportMetrics(t *testing.T) {
	dir := t.TempDir()
	h := openHub(t, Config{Dir: dir})
	cc := dial(t, h)
	for i, opts := range [][]grpc.CallOption{nil, {grpc.UseCompressor("gzip")}} {
		answer := new(emptypb.Empty)
		if err := cc.Invoke(t.Context(), metricsMethod, callMetrics("front", []string{"a", "b"}[i], 10), answer, opts...); err != nil || len(answer.ProtoReflect().GetUnknown()) != 0 {
			t.Fatal(err, answer)
		}
	}
	if r := postMetrics(t, h, zipped(t, marshal(t, callMetrics("front", "c", 10))), "Content-Type", typeProtobuf, "Content-Encoding", "gzip"); r.code != http.StatusOK || len(r.body) != 0 {
		t.Errorf("%d %q", r.code, r.body)
	}
	text, err := protojson.Marshal(callMetrics("front", "d", 10))
	if err != nil {
		t.Fatal(err)
	}
	if r := postMetrics(t, h, text, "Content-Type", typeJSON); r.code != http.StatusOK || string(r.body) != "{}" {
		t.Errorf("%d %q", r.code, r.body)
	}
	others := &metricspb.MetricsData{ResourceMetrics: []*metricspb.ResourceMetrics{{ScopeMetrics: []*metricspb.ScopeMetrics{{Metrics: []*metricspb.Metric{{
		Name: "go.goroutine.count", Data: &metricspb.Metric_Gauge{Gauge: &metricspb.Gauge{DataPoints: []*metricspb.NumberDataPoint{{}, {}}}},
	}}}}}}}
	if r := postMetrics(t, h, marshal(t, others), "Content-Type", typeProtobuf); r.code != http.StatusOK || len(r.body) != 0 {
		t.Errorf("%d %q", r.code, r.body)
	}
	if s := decode[Status](t, get(t, h, "/api/v1/status")); s.Metrics.Points != 4 || s.Metrics.Others != 2 || len(s.Metrics.LeftOut) != 0 || s.Metrics.Series != 4 {
		t.Errorf("%+v", s.Metrics)
	}
	closeHub(t, h)
	h = openHub(t, Config{Dir: dir})
	defer closeHub(t, h)
	m := decode[Map](t, get(t, h, "/api/v1/map"))
	for _, r := range m.Routes {
		if r.Calls != 10 || r.Sources != routemap.FromMetrics || r.From.Name != "front" || r.Client.Count() != 10 {
			t.Errorf("%s: %+v", r.Key, r.Stats)
		}
	}
	if len(m.Routes) != 4 {
		t.Errorf("%d routes", len(m.Routes))
	}
}

// TestRefusedMetrics: what cannot be taken is refused as spans are, and what is left out is told.
func TestRefusedMetrics(t *testing.T) {
	h := openHub(t, Config{Tokens: []Token{{Role: Write, Secret: strings.Repeat("w", 32)}, {Role: Read, Secret: strings.Repeat("r", 32)}}})
	defer closeHub(t, h)
	token := []string{"Authorization", "Bearer " + strings.Repeat("w", 32)}
	body := marshal(t, callMetrics("front", "a", 1))
	for what, c := range map[string]struct {
		body    []byte
		headers []string
		want    int
	}{
		"no token":      {body, []string{"Content-Type", typeProtobuf}, http.StatusUnauthorized},
		"no body":       {[]byte{0xff}, append(token, "Content-Type", typeProtobuf), http.StatusBadRequest},
		"a part":        {append(bytes.Clone(body), 0x0a), append(token, "Content-Type", typeProtobuf), http.StatusBadRequest},
		"no JSON":       {[]byte("{"), append(token, "Content-Type", typeJSON), http.StatusBadRequest},
		"a bomb":        {zipped(t, make([]byte, maxBody+1)), append(token, "Content-Type", typeProtobuf, "Content-Encoding", "gzip"), http.StatusRequestEntityTooLarge},
		"JSON, a bomb":  {[]byte(`{"resourceMetrics":[` + strings.Repeat("{},", 1<<20) + `{}]}`), append(token, "Content-Type", typeJSON), http.StatusBadRequest},
		"another kind":  {body, append(token, "Content-Type", "text/plain"), http.StatusUnsupportedMediaType},
		"what is right": {body, append(token, "Content-Type", typeProtobuf), http.StatusOK},
	} {
		if r := postMetrics(t, h, c.body, c.headers...); r.code != c.want {
			t.Errorf("%s: %d, want %d: %.200s", what, r.code, c.want, r.body)
		}
	}
	if err := dial(t, h).Invoke(t.Context(), metricsMethod, callMetrics("front", "a", 1), new(emptypb.Empty)); status.Code(err) != codes.Unauthenticated {
		t.Error(err)
	}
	wrong := callMetrics("front", "a", 1)
	wrong.ResourceMetrics[0].ScopeMetrics[0].Metrics[0].GetHistogram().DataPoints[0].Count = 77
	r := postMetrics(t, h, marshal(t, wrong), append(token, "Content-Type", typeProtobuf)...)
	if n, why := partial(t, r.body); r.code != http.StatusOK || n != 1 || !strings.Contains(why, "contradicts itself") {
		t.Errorf("%d: %d, %s", r.code, n, why)
	}
	text, err := protojson.Marshal(wrong)
	if err != nil {
		t.Fatal(err)
	}
	if r := postMetrics(t, h, text, append(token, "Content-Type", typeJSON)...); !strings.Contains(string(r.body), `"rejectedDataPoints":"1"`) {
		t.Errorf("%s", r.body)
	}
}
