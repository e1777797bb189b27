package hub

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/stile-ipc/stile/hub/hubpb"
)

// TestRecords: of each window of a process it is known which policies were in force with which limits, and when calls came of which route: also of those of an hour ago, and of a hub that was restarted.
func TestRecords(t *testing.T) {
	h := openHub(t, Config{})
	agents := agentsOf(t, h)
	front, back := newReporter(t, agents, 1, "front"), newReporter(t, agents, 2, "back", "/b")
	begin := time.Now().Add(-30 * time.Second).UTC()
	report := func(r *reporter, from time.Time, routes []*hubpb.Route, policies ...*hubpb.Policy) {
		r.sequence++
		r.send(&hubpb.ReportRequest{Process: r.is, Hub: r.hub, Sequence: r.sequence, FromUnixNano: from.UnixNano(), ToUnixNano: from.Add(10 * time.Second).UnixNano(), Routes: routes, Policies: policies})
	}
	made, served := calls(hubpb.Side_SIDE_CLIENT, "/s.S/M", back, "/b", 5), calls(hubpb.Side_SIDE_SERVER, "/s.S/M", front, "/b", 5)
	made.Arrivals, served.Arrivals = []int64{-100, 300, 0, 50}, []int64{10, 20}
	p := policyOf("/etc/p.yaml", `{"x-stile": {"version": "a"}}`)
	p.Controls = []*hubpb.Control{{Kind: "limit", Method: "/s.S/M", Limit: 7, Most: 20, InFlight: 3, Pending: 1}}
	report(front, begin, []*hubpb.Route{made}, p)
	report(back, begin.Add(time.Second), []*hubpb.Route{served})
	report(front, begin.Add(10*time.Second), nil)                  // of which there is nothing to tell
	report(back, begin.Add(-time.Hour), []*hubpb.Route{served}, p) // by a clock that is off
	was := h
	h = reopen(t, h)
	if n := was.agents.status().Unrecorded; n != 1 {
		t.Errorf("%d of a clock that is off", n)
	}
	defer closeHub(t, h)
	m, err := h.Map(t.Context(), time.Now().Add(-time.Hour), time.Now().Add(time.Minute))
	if err != nil || len(m.Routes) != 1 {
		t.Fatal(m, err)
	}
	route := m.Routes[0].ID()
	got := decode[Records](t, get(t, h, "/api/v1/records?from=2h"))
	if len(got.Records) != 2 || got.More || got.Damaged != 0 {
		t.Fatalf("%+v", got)
	}
	of, by := got.Records[0], got.Records[1]
	if of.Service != "front" || by.Service != "back" || !of.From.Equal(begin) || of.To.Sub(of.From) != 10*time.Second || of.PID != 1 {
		t.Errorf("%+v\n%+v", of, by)
	}
	if len(of.Policies) != 1 || of.Policies[0].Version != "v" || of.Policies[0].Source != "/etc/p.yaml" || len(of.Policies[0].Controls) != 1 || of.Policies[0].Controls[0] != (PolicyControl{"limit", "/s.S/M", "", "", 7, 20, 3, 1}) {
		t.Errorf("%+v", of.Policies)
	}
	if len(of.Arrived) != 1 || of.Arrived[0].Route != route || of.Arrived[0].Side != "client" || of.Arrived[0].Calls != 5 || !slices.Equal(of.Arrived[0].At, []int64{-100, 200, 200, 250}) {
		t.Errorf("%+v", of.Arrived)
	}
	if len(by.Arrived) != 1 || by.Arrived[0].Route != route || by.Arrived[0].Side != "server" || !slices.Equal(by.Arrived[0].At, []int64{10, 30}) {
		t.Errorf("%+v", by.Arrived)
	}
	for query, want := range map[string]int{"&process=" + by.Process: 1, "&limit=1": 1, "&route=" + route: 2, "&from=20s": 0} {
		if all := decode[Records](t, get(t, h, "/api/v1/records?from=2h"+query)); query != "&from=20s" && len(all.Records) != want || all.More != (query == "&limit=1") {
			t.Errorf("%s: %+v", query, all)
		}
	}
	if all := decode[Records](t, get(t, h, "/api/v1/records?from=2h&route=0000000000000001")); len(all.Records) != 2 || len(all.Records[0].Arrived) != 0 {
		t.Errorf("of a route that is not there: %+v", all)
	}
	for _, bad := range []string{"process=x", "route=x", "limit=0", "limit=9999", "what=1"} {
		if reply := get(t, h, "/api/v1/records?"+bad); reply.code != http.StatusBadRequest {
			t.Errorf("%s: %d", bad, reply.code)
		}
	}
}

// TestArrivalsRefused: a report with arrivals that cannot be is not taken in.
func TestArrivalsRefused(t *testing.T) {
	h := openHub(t, Config{})
	defer closeHub(t, h)
	r := newReporter(t, agentsOf(t, h), 1, "front")
	for name, all := range map[string][]int64{"not in order": {5, -1}, "far off": {1 << 62}, "before all time": {-1 << 62}, "too far in all": {1 << 46, 1 << 46}, "too many": make([]int64, maxReportArrivals+1)} {
		route := calls(hubpb.Side_SIDE_CLIENT, "/s.S/M", nil, "x", 1)
		route.Arrivals = all
		_, err := r.agents.Report(t.Context(), &hubpb.ReportRequest{Process: r.is, Hub: r.hub, Sequence: 1, Routes: []*hubpb.Route{route}})
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
}
