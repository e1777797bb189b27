package hub

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/stile-ipc/stile/hub/hubpb"
	"github.com/stile-ipc/stile/hub/internal/store"
	"github.com/stile-ipc/stile/routemap"
)

// TestMetrics: what Prometheus is told is what came, of routes with names that are anything, and its own linter has nothing to say.
func TestMetrics(t *testing.T) {
	h := openHub(t, Config{})
	defer closeHub(t, h)
	m := routemap.New()
	key := func(from string) routemap.Key {
		return routemap.Key{From: routemap.Node{Kind: routemap.Service, Name: from}, To: routemap.Node{Kind: routemap.Service, Name: "back"}, Transport: "shm", Operation: "s.S/M", Mode: routemap.Sync}
	}
	front := &routemap.Stats{Calls: 4, Errors: map[string]uint64{"NOT_FOUND": 1}, Waits: routemap.Waits{Calls: 4, Handler: 3e9}, Switches: 7, Decisions: routemap.Decisions{CacheHits: 3}}
	for _, ns := range []int64{1, 1 << 20, 1<<20 - 1, 1 << 40} {
		front.Client.Record(ns)
	}
	m.Counted(key("front"), front)
	hostile := "<script>\xff\"\n\\ queue a"
	m.Counted(key(hostile), &routemap.Stats{Calls: 1, Errors: map[string]uint64{hostile: 1}})
	m.Counted(routemap.Key{From: routemap.Node{Kind: routemap.Queue, Name: "a"}, Operation: "same"}, &routemap.Stats{Waits: routemap.Waits{Calls: 1}})
	m.Counted(routemap.Key{From: routemap.Node{Kind: routemap.Service, Name: "queue a"}, Operation: "same"}, &routemap.Stats{Waits: routemap.Waits{Calls: 1}})
	h.totals.add(m, time.Now())
	h.totals.add(m, time.Now())
	newReporter(t, agentsOf(t, h), 1, "front").report()
	for at := range int64(2) {
		q := reported(time.Now().Unix()+at, 100+uint64(at)*5, 4, 1)
		q.BlockedNs = 5e8
		q.Groups = append(q.Groups, &hubpb.QueueGroup{Name: "audit"})
		h.agents.queues.take(&hubpb.Process{Identity: id(2, 16)}, store.Finest, []*hubpb.Queue{q})
		h.agents.queues.window()
	}
	r := get(t, h, "/metrics")
	if r.code != http.StatusOK {
		t.Fatalf("%d, %s", r.code, r.body)
	}
	route := `{mode="sync",network_transport="shm",peer_service="back",rpc_method="s.S/M",service_name="front"`
	for _, want := range []string{
		`rpc_client_call_duration_seconds_bucket` + route + `,le="2.048e-06"} 2`, `rpc_client_call_duration_seconds_bucket` + route + `,le="0.001048576"} 4`,
		`rpc_client_call_duration_seconds_bucket` + route + `,le="+Inf"} 8`, `rpc_client_call_duration_seconds_count` + route + `} 8`,
		`stile_call_errors_total{error_type="NOT_FOUND",` + route[1:] + `} 2`, `stile_call_context_switches_total` + route + `} 14`,
		`stile_queue_messages{messaging_destination_name="orders",place="unix:/q"} 105`, `stile_queue_blocked_seconds_total{messaging_destination_name="orders",place="unix:/q"} 1`,
		`stile_queue_lag_messages{messaging_consumer_group_name="billing",messaging_destination_name="orders",place="unix:/q"} 4`,
		`stile_queue_handled_messages_total{messaging_consumer_group_name="billing",messaging_destination_name="orders",place="unix:/q"} 5`,
		`stile_hub_reports_total 1`, `stile_hub_failing 0`, `stile_hub_routes 4`, `stile_hub_routes_let_go_total 0`, `stile_hub_other_calls_total 0`,
		`stile_call_decisions_total{decision="cache_hits",` + route[1:] + `} 6`,
	} {
		if !strings.Contains(string(r.body), want+"\n") {
			t.Errorf("it does not say %s", want)
		}
	}
	if wait := regexp.MustCompile(`(?m)^stile_call_wait_seconds_total\{.*part="handler".*service_name="front"\} 6$`); !wait.Match(r.body) {
		t.Error("it does not say how long handlers took")
	}
	parts := func(service string) int {
		return len(regexp.MustCompile(`(?m)^stile_call_wait_seconds_total\{.*service_name="`+service+`"\} `).FindAllString(string(r.body), -1))
	}
	if front, unknown := parts("front"), parts("queue a"); front != 4 || unknown != 2 {
		t.Errorf("%d parts of calls that their client tells of, %d of those that the server alone tells of", front, unknown)
	}
	problems, err := promlint.New(strings.NewReader(string(r.body))).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
	if lines := strings.Split(string(r.body), "\n"); !slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, `<script>?\"\n\\ queue a`) }) {
		t.Error("a strange name is not there")
	}
}

// TestTotalsBounded: routes without end do not fill the memory, and no call is missing.
func TestTotalsBounded(t *testing.T) {
	all := &totals{}
	for part := range 3 {
		m := routemap.New()
		for i := range maxTotals / 2 {
			m.Counted(routemap.Key{Operation: string(rune(0x4e00+part)) + string(rune(0x4e00+i))}, &routemap.Stats{Calls: 1})
		}
		all.add(m, time.Unix(int64(1e9+10*part), 0))
	}
	calls, routes := uint64(0), 0
	all.each(func(_ routemap.Key, of *total) { calls += of.Calls; routes++ })
	if calls != 3*maxTotals/2 || routes != maxTotals+1 {
		t.Errorf("%d calls on %d routes", calls, routes)
	}
	if s, _ := all.status(); s != (Totals{maxTotals + 1, maxTotals, 0, maxTotals / 2}) {
		t.Errorf("%+v", s)
	}
}

// TestTotalsLetGo: of routes without end those that are called of late are told apart, forever, and no others are told of; one that is called again counts from 0, since then. Its exemplars
// go with it.
func TestTotalsLetGo(t *testing.T) {
	all := &totals{exemplars: map[exemplarOf]exemplar{}}
	begin := time.Unix(1e9, 0)
	key := func(of string) routemap.Key { return routemap.Key{Operation: of, Mode: routemap.Sync} }
	window := func(at time.Duration, names ...string) {
		m := routemap.New()
		for _, of := range names {
			m.Counted(key(of), &routemap.Stats{Calls: 2})
		}
		all.add(m, begin.Add(at))
	}
	const each = 100 // new routes in each window
	const windows = 3 * maxTotals / each
	for i := range windows {
		names := []string{"always"}
		if i == 0 {
			names = append(names, "at first")
			all.exemplars[exemplarOf{route: key("at first").ID()}] = exemplar{}
			all.exemplars[exemplarOf{route: key("always").ID()}] = exemplar{}
		}
		for j := range each {
			names = append(names, fmt.Sprint("once ", i, " ", j))
		}
		window(time.Duration(i)*store.Finest, names...)
	}
	s, _ := all.status()
	if s.Together != 0 || s.Routes > maxTotals || s.Gone+uint64(s.Routes) != windows*each+2 || all.routes[otherRoutes] != nil {
		t.Errorf("%+v", s)
	}
	if of := all.routes[key("always")]; of.Calls != 2*windows || !of.since.Equal(begin) || len(all.exemplars) != 1 {
		t.Errorf("%+v; %d exemplars", of, len(all.exemplars))
	}
	day := windows*store.Finest + totalsFor
	window(day, "always", "at first")
	s, _ = all.status()
	if of := all.routes[key("at first")]; s.Routes != 2 || of.Calls != 2 || !of.since.Equal(begin.Add(day)) {
		t.Errorf("%+v, %+v", s, of)
	}
	window(day+totalsFor, "always")
	if s, _ = all.status(); s.Routes != 2 {
		t.Errorf("what is called each day is let go: %+v", s)
	}
	if window(day+totalsFor+store.Finest, "always"); len(all.routes) != 1 {
		t.Errorf("%d routes", len(all.routes))
	}
}

// TestMetricsToken: a scrape needs a token that reads, where there are tokens.
func TestMetricsToken(t *testing.T) {
	secret := strings.Repeat("r", 32)
	h := openHub(t, Config{Tokens: []Token{{Role: Read, Secret: secret}}})
	defer closeHub(t, h)
	if r := get(t, h, "/metrics"); r.code != http.StatusUnauthorized {
		t.Errorf("%d", r.code)
	}
	if r := get(t, h, "/metrics", "Authorization", "Bearer "+secret); r.code != http.StatusOK {
		t.Errorf("%d", r.code)
	}
}

// TestExemplars: in OpenMetrics, and there alone, each bucket that a trace which is kept has a call in shows it, with the duration that the call had.
func TestExemplars(t *testing.T) {
	h := openHub(t, Config{})
	defer closeHub(t, h)
	m := routemap.New()
	key := routemap.Key{From: routemap.Node{Kind: routemap.Service, Name: "front"}, To: routemap.Node{Kind: routemap.Service, Name: "back"}, Operation: "s.S/M", Mode: routemap.Sync}
	stats := &routemap.Stats{Calls: 3}
	begin := time.Now().Add(-time.Hour).UnixNano()
	kept := &store.Traces{Seen: 3}
	for i, took := range []int64{0, 5e6, 1 << 37} {
		stats.Client.Record(took)
		stats.Server.Record(took / 2)
		kept.Kept = append(kept.Kept, store.Kept{Timeline: &routemap.Timeline{ID: strings.Repeat(fmt.Sprint(i+1), 32), Start: begin, Spans: []routemap.TimelineSpan{
			{ID: 7, Parent: -1, Kind: routemap.Client, Route: key.ID(), Duration: took}, {ID: 8, Kind: routemap.Server, Route: key.ID(), Half: true, Duration: took / 2}, {ID: 9, Kind: routemap.Internal, Duration: 3},
		}}})
	}
	kept.Kept = append(kept.Kept, store.Kept{Timeline: &routemap.Timeline{ID: strings.Repeat("f", 65), Spans: []routemap.TimelineSpan{{Route: key.ID(), Duration: 5e6}}}})
	m.Counted(key, stats)
	h.totals.add(m, time.Now())
	h.totals.show(kept, time.Now())
	if r := get(t, h, "/metrics"); strings.Contains(string(r.body), "trace_id") {
		t.Error("Prometheus's text has exemplars, which it has no place for")
	}
	r := get(t, h, "/metrics", "Accept", "application/openmetrics-text; version=1.0.0")
	if !strings.HasPrefix(r.header.Get("Content-Type"), "application/openmetrics-text") || !strings.HasSuffix(string(r.body), "# EOF\n") {
		t.Fatalf("%s", r.header.Get("Content-Type"))
	}
	line := regexp.MustCompile(`(?m)^(rpc_\w+)_bucket\{.*le="([^"]+)"\} (\d+) # \{(.*)\} (\S+) (\S+)$`)
	got := map[string]bool{}
	for _, found := range line.FindAllStringSubmatch(string(r.body), -1) {
		bound, err := strconv.ParseFloat(found[2], 64)
		value, err2 := strconv.ParseFloat(found[5], 64)
		at, err3 := strconv.ParseFloat(found[6], 64)
		if err := errors.Join(err, err2, err3); err != nil || value > bound || at < float64(begin)/1e9 || found[3] == "0" {
			t.Errorf("%v: %v", found, err)
		}
		labels := strings.Split(found[4], ",")
		slices.Sort(labels)
		got[fmt.Sprintf("%s %s %s", found[1], found[2], strings.Join(labels, ","))] = true
	}
	want := map[string]bool{}
	for name, span := range map[string]string{"rpc_client_call_duration_seconds": "0000000000000007", "rpc_server_call_duration_seconds": "0000000000000008"} {
		for le, trace := range map[string]string{"2.048e-06": "1", map[bool]string{true: "0.008388608", false: "0.004194304"}[strings.HasPrefix(name, "rpc_client")]: "2", "+Inf": "3"} {
			want[fmt.Sprintf(`%s %s span_id="%s",trace_id="%s"`, name, le, span, strings.Repeat(trace, 32))] = true
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("%v\nwant %v", got, want)
	}
	h.cfg.clock = func() time.Time { return time.Now().Add(2 * exemplarsFor) }
	if r := get(t, h, "/metrics", "Accept", "application/openmetrics-text; version=1.0.0"); strings.Contains(string(r.body), "trace_id") || len(h.totals.exemplars) != 0 {
		t.Error("traces that are not kept any more are shown")
	}
}
