package hub

import (
	"net/http"
	"strings"
	"testing"
)

// TestSeriesAPI: a route's series has the calls that the map has, and questions that make no sense are told so.
func TestSeriesAPI(t *testing.T) {
	dir := t.TempDir()
	h := openHub(t, Config{Dir: dir})
	if r := post(t, h, marshal(t, callSpans(0, 20, "catalog")), "Content-Type", typeProtobuf); r.code != http.StatusOK {
		t.Fatal(r.code)
	}
	closeHub(t, h)
	h = openHub(t, Config{Dir: dir})
	defer closeHub(t, h)
	m := decode[struct {
		Routes []struct {
			ID    string
			Calls uint64
		}
	}](t, get(t, h, "/api/v1/map"))
	if len(m.Routes) != 1 || m.Routes[0].Calls != 20 {
		t.Fatalf("%+v", m)
	}
	id := m.Routes[0].ID
	s := decode[Series](t, get(t, h, "/api/v1/series?route="+id))
	var calls, counted, empty int64
	for _, p := range s.Points {
		calls += int64(p.Calls)
		if p.Duration == nil {
			empty++
			continue
		}
		if d := p.Duration; d.Min != 10e6 || d.Max != 10e6 || d.P50 != 10e6 || d.P99 != 10e6 || d.Sum != 10e6*float64(d.Count) {
			t.Errorf("%+v", d)
		}
		for _, b := range p.Duration.Buckets {
			if b[0] > 10e6 || b[1] <= 10e6 {
				t.Errorf("a bucket from %d to %d", b[0], b[1])
			}
			counted += b[2]
		}
	}
	if calls != 20 || counted != 20 || empty < int64(len(s.Points))-2 || len(s.Points) > DefaultPoints || s.Route.ID != id || s.Route.To.Name != "catalog" || s.Window.From != s.Points[0].From {
		t.Errorf("%d calls, %d in buckets, %d points of which %d are empty: %+v", calls, counted, len(s.Points), empty, s.Route)
	}
	for query, code := range map[string]int{
		"": 400, "route=x": 400, "route=0x0000000000000a": 400, "route=" + strings.ToUpper(id): 400, "route=" + id + "0": 400, "route=0123456789abcdef": 404, "route=" + id + "&from=2h&to=1h": 404,
		"route=" + id + "&points=0": 400, "route=" + id + "&points=241": 400, "route=" + id + "&points=many": 400, "route=" + id + "&limit=3": 400, "route=" + id + "&from=1m&to=2m": 400, "route=" + id + "&points=240": 200,
		"route=" + id + "&from=0001-01-01T00:00:00Z": 400, "route=" + id + "&from=2000-01-01T00:00:00Z&to=9999-01-01T00:00:00Z": 400, "route=" + id + "&from=2399h": 200,
	} {
		if r := get(t, h, "/api/v1/series?"+query); r.code != code || code != 200 && !strings.Contains(string(r.body), `"error"`) {
			t.Errorf("%s: %d %s, want %d", query, r.code, r.body, code)
		}
	}
}
