package hub

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/stile-ipc/stile/hub/hubpb"
	"github.com/stile-ipc/stile/routemap"
)

func agentsOf(t *testing.T, h *Hub) hubpb.AgentsClient {
	t.Helper()
	cc, err := grpc.NewClient(h.Addrs()[forOTLPGRPC], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return hubpb.NewAgentsClient(cc)
}

// reporter is a process that reports.
type reporter struct {
	t        *testing.T
	agents   hubpb.AgentsClient
	is       *hubpb.Process
	hub      []byte
	sequence uint64
}

func newReporter(t *testing.T, agents hubpb.AgentsClient, n byte, service string, listens ...string) *reporter {
	r := &reporter{t: t, agents: agents, is: &hubpb.Process{Identity: id(uint64(n), 16), Service: service, Boot: "boot", Listens: listens, Pid: int64(n)}}
	r.hub = r.send(&hubpb.ReportRequest{Process: r.is}).GetHub()
	return r
}

// again goes on with a hub that was restarted.
func (r *reporter) again(h *Hub) {
	r.t.Helper()
	r.agents = agentsOf(r.t, h)
	r.hub = r.send(&hubpb.ReportRequest{Process: r.is}).GetHub()
}

func (r *reporter) send(req *hubpb.ReportRequest) *hubpb.ReportResponse {
	r.t.Helper()
	answer, err := r.agents.Report(r.t.Context(), req)
	if err != nil {
		r.t.Fatal(err)
	}
	return answer
}

func (r *reporter) report(routes ...*hubpb.Route) *hubpb.ReportResponse {
	r.t.Helper()
	r.sequence++
	return r.send(&hubpb.ReportRequest{Process: r.is, Hub: r.hub, Sequence: r.sequence, ToUnixNano: int64(10 * time.Second), Routes: routes, Load: &hubpb.Load{VoluntarySwitches: 100}})
}

// calls is n of a method, of 1 ms each.
func calls(side hubpb.Side, method string, peer *reporter, address string, n uint64) *hubpb.Route {
	r := &hubpb.Route{Side: side, Method: method, Transport: "shm", Address: address, PeerPid: 77, Codes: map[uint32]uint64{0: n - 1, 5: 1}, Wakes: 3, SpinNs: 40}
	if peer != nil {
		r.Peer = peer.is.GetIdentity()
	}
	const bucket = 16*32 - 9 // of 2^20 ns, about: 1 ms is in it or near it
	r.Duration = &hubpb.Histogram{First: bucket, Counts: []uint64{n}, Sum: float64(n * lowestOf(bucket)), Min: lowestOf(bucket), Max: lowestOf(bucket)}
	return r
}

// lowestOf is the least value of a bucket.
func lowestOf(b uint64) uint64 { return (b - (b>>5-1)<<5) << (b>>5 - 1) }

func routesOf(t *testing.T, h *Hub) map[string]uint64 {
	t.Helper()
	m, err := h.Map(t.Context(), time.Now().Add(-time.Hour), time.Now().Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]uint64{}
	for _, r := range m.Routes {
		got[fmt.Sprint(r.Key, " ", r.Transport)] = r.Calls
	}
	return got
}

// reopen closes a hub, which keeps what it has, and opens it again.
func reopen(t *testing.T, h *Hub) *Hub {
	t.Helper()
	closeHub(t, h)
	return openHub(t, Config{Dir: h.cfg.Dir})
}

// TestWhoIsWho: who is at the other end of a route is found by what connections say, then by the addresses on which processes of the host listen; what is not known is named as
// it was called. Calls count once, whoever tells of them.
func TestWhoIsWho(t *testing.T) {
	h := openHub(t, Config{})
	agents := agentsOf(t, h)
	front, back, far := newReporter(t, agents, 1, "front"), newReporter(t, agents, 2, "back", "127.0.0.1:50051", "/run/back.sock"), newReporter(t, agents, 3, "far", "10.0.0.1:50051")
	far.is.Boot = "another"
	far.report()
	client, server := hubpb.Side_SIDE_CLIENT, hubpb.Side_SIDE_SERVER
	front.report(
		calls(client, "/s.S/Known", back, "/elsewhere", 5), calls(client, "/s.S/ByPort", nil, "localhost:50051", 2), calls(client, "/s.S/ByPath", nil, "unix:/run/back.sock", 3),
		calls(client, "/s.S/Far", nil, "10.0.0.1:50051", 4), calls(client, "/s.S/Nowhere", nil, "db.internal:5432", 6),
		&hubpb.Route{Side: client, Method: "send orders", Transport: "broker", Topic: "orders", Codes: map[uint32]uint64{0: 7}},
	)
	back.report(calls(server, "/s.S/Known", front, "/elsewhere", 5), calls(server, "/s.S/Stranger", nil, "/elsewhere", 8))
	h = reopen(t, h)
	defer closeHub(t, h)
	want := map[string]uint64{
		"front → back s.S/Known shm": 5, "front → back s.S/ByPort shm": 2, "front → back s.S/ByPath shm": 3, "front → far s.S/Far shm": 4, "front → external db.internal:5432 s.S/Nowhere shm": 6,
		"front → queue orders send orders broker": 7, "process unknown on another host → back s.S/Stranger shm": 8,
	}
	if got := routesOf(t, h); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v\nwant %v", got, want)
	}
	m, err := h.Map(t.Context(), time.Now().Add(-time.Hour), time.Now().Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range m.Routes {
		if r.Operation == "s.S/Known" && (r.Paired != 5 || r.Errors["NOT_FOUND"] != 1 || r.Client.Count() != 5 || r.Server.Count() != 5 || r.Switches != 18+38 || r.Wakes != 2*3 || r.Spin != 2*40) { // 5 of 27, and 5 of 13
			t.Errorf("%+v", r.Stats)
		}
	}
}

// TestPlaced: where a process listens is known from when it says so first, and reports that count for nothing do not fill the directory.
func TestPlaced(t *testing.T) {
	now := time.Unix(1e9, 0)
	a := newAgents(func() time.Time { return now })
	say := func(sequence uint64, listens ...string) {
		t.Helper()
		_, fresh, err := a.take(&hubpb.ReportRequest{Process: &hubpb.Process{Identity: id(1, 16), Service: "s", Boot: "b", Listens: listens}, Sequence: sequence, Hub: a.self[:]}, 0)
		if err != nil || fresh != (sequence > 0) {
			t.Fatal(fresh, err)
		}
	}
	say(0)
	say(0, "10.0.0.1:1")
	for i := range 1000 {
		say(0, fmt.Sprintf("10.0.1.1:%d", i))
	}
	if a.where.find("b", "10.0.0.1:1") != "s" || len(a.where) != 3 {
		t.Errorf("%d places", len(a.where))
	}
	if say(1, "10.0.0.2:1"); a.where.find("b", "10.0.0.2:1") != "s" {
		t.Error("a report that counts is not heeded")
	}
	say(0, "10.0.0.3:1")
	a.draw(routemap.New(), now, false)
	if a.where.find("b", "10.0.0.3:1") != "s" || len(a.where) != 3 {
		t.Errorf("%d places after the window", len(a.where))
	}
	if say(0, "10.0.0.4:1"); a.where.find("b", "10.0.0.4:1") != "s" {
		t.Error("nothing new is heeded in the next window")
	}
}

// TestStrangers: what a server tells of a client that the hub does not know yet waits for it for a window, and counts once; who is still unknown then does not report.
func TestStrangers(t *testing.T) {
	now := time.Unix(1e9, 0)
	a := newAgents(func() time.Time { return now })
	front, back := &hubpb.Process{Identity: id(1, 16), Service: "front"}, &hubpb.Process{Identity: id(2, 16), Service: "back"}
	server := func(client uint64) *hubpb.Route {
		r := calls(hubpb.Side_SIDE_SERVER, "/s.S/M", nil, "x", 5)
		r.Peer, r.PeerPid = id(client, 16), int64(client)
		return r
	}
	report := func(p *hubpb.Process, sequence uint64, routes ...*hubpb.Route) {
		t.Helper()
		if _, _, err := a.take(&hubpb.ReportRequest{Process: p, Hub: a.self[:], Sequence: sequence, Routes: routes}, 0); err != nil {
			t.Fatal(err)
		}
	}
	came := false
	draw := func(last bool) (map[string]uint64, upTo) {
		m := routemap.New()
		told := a.draw(m, now, last)
		came = told.any
		now = now.Add(10 * time.Second)
		got := map[string]uint64{}
		for _, r := range m.Report().Routes {
			got[r.Key.String()] = r.Calls
		}
		return got, told.reported
	}
	same := func(what string, got, want any) {
		t.Helper()
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	report(back, 1, server(1), server(7), calls(hubpb.Side_SIDE_CLIENT, "/s.S/Own", nil, "y", 3))
	got, kept := draw(false)
	same("first", got, map[string]uint64{"back → external y s.S/Own": 3})
	same("kept of the first", kept, upTo{})
	if !came {
		t.Error("the first has nothing to keep")
	}
	report(back, 2, server(7))
	client := calls(hubpb.Side_SIDE_CLIENT, "/s.S/M", nil, "x", 5)
	client.Peer = id(2, 16)
	report(front, 1, client)
	got, kept = draw(false)
	same("second", got, map[string]uint64{"front → back s.S/M": 5, "process unknown on another host → back s.S/M": 10})
	same("kept of the second", kept, upTo{identity(id(1, 16)): 1, identity(id(2, 16)): 2})
	report(back, 3, server(8))
	got, _ = draw(true)
	same("last", got, map[string]uint64{"process unknown on another host → back s.S/M": 5})
	report(back, 4, server(9))
	_, _ = draw(false)
	got, kept = draw(false)
	same("nobody else came", got, map[string]uint64{"process unknown on another host → back s.S/M": 5})
	same("kept of it", kept, upTo{identity(id(2, 16)): 4})
}

// TestDecisionsReported: what a policy decided is with the route on which it did, whoever tells of it and also where no call was made; what a server decides, as it says.
func TestDecisionsReported(t *testing.T) {
	h := openHub(t, Config{})
	agents := agentsOf(t, h)
	front, back := newReporter(t, agents, 1, "front"), newReporter(t, agents, 2, "back")
	of := func(side hubpb.Side, method string, peer *reporter, d *hubpb.Decisions) *hubpb.Route {
		r := calls(side, method, peer, "x", 5)
		if r.Decisions = d; method == "/s.S/Cached" {
			r.Codes, r.Duration = nil, nil
		}
		return r
	}
	front.report(of(hubpb.Side_SIDE_CLIENT, "/s.S/M", back, &hubpb.Decisions{Retries: 1, Hedges: 2, Breaker: 3, Limit: 4, Budget: 5, CacheHits: 7, Coalesced: 8, Fallbacks: 9, Late: 10}), of(hubpb.Side_SIDE_CLIENT, "/s.S/Cached", back, &hubpb.Decisions{CacheHits: 70}))
	served := of(hubpb.Side_SIDE_SERVER, "/s.S/M", front, &hubpb.Decisions{Admission: 6, Late: 1})
	served.DeadlineLeft = served.Duration
	back.report(served)
	h = reopen(t, h)
	defer closeHub(t, h)
	m, err := h.Map(t.Context(), time.Now().Add(-time.Hour), time.Now().Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]routemap.Decisions{"s.S/M": {Retries: 1, Hedges: 2, Breaker: 3, Limit: 4, Budget: 5, Admission: 6, CacheHits: 7, Coalesced: 8, Fallbacks: 9, Late: 11}, "s.S/Cached": {CacheHits: 70}}
	for _, r := range m.Routes {
		if r.Decisions != want[r.Operation] || r.Operation == "s.S/M" && (r.Calls != 5 || r.Left.Count() != 5) || r.Operation == "s.S/Cached" && r.Calls != 0 {
			t.Errorf("%s: %+v", r.Key, r.Stats)
		}
	}
	if len(m.Routes) != 2 {
		t.Errorf("%d routes", len(m.Routes))
	}
	if reply := get(t, h, "/api/v1/brief?from=1h"); reply.code != 200 || !strings.Contains(string(reply.body), `"cacheHits":70`) || !strings.Contains(string(reply.body), `"deadlineLeft":{"count":5`) {
		t.Errorf("%d, %s", reply.code, reply.body)
	}
	for _, r := range m.Routes {
		if reply := get(t, h, "/api/v1/series?from=1h&route="+r.ID()); reply.code != 200 {
			t.Errorf("%s: %d, %s", r.Key, reply.code, reply.body)
		}
	}
}

// TestReportedTwice: a window that comes twice counts once, and one that is for an earlier start of the hub does not.
func TestReportedTwice(t *testing.T) {
	h := openHub(t, Config{})
	r := newReporter(t, agentsOf(t, h), 1, "front")
	r.report(calls(hubpb.Side_SIDE_CLIENT, "/s.S/M", nil, "x", 5))
	r.sequence--
	r.report(calls(hubpb.Side_SIDE_CLIENT, "/s.S/M", nil, "x", 5))
	current := r.hub
	r.hub = id(9, 16)
	if answer := r.report(calls(hubpb.Side_SIDE_CLIENT, "/s.S/M", nil, "x", 5)); string(answer.GetHub()) != string(current) {
		t.Errorf("%x, not %x", answer.GetHub(), current)
	}
	h = reopen(t, h)
	defer closeHub(t, h)
	if got := routesOf(t, h); len(got) != 1 || got["front → external x s.S/M shm"] != 5 {
		t.Errorf("%v", got)
	}
	if again := newReporter(t, agentsOf(t, h), 1, "front"); string(again.hub) == string(current) {
		t.Error("a hub that was opened again is the same as before")
	}
}

// TestOnDisk: a process is told which of its windows are on disk, and only those.
func TestOnDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, in, s := newAgents(time.Now), newIntake(100, time.Now), &fakeStore{}
		k := newKeeper(in, a, &totals{}, s, time.Now, slog.New(slog.DiscardHandler))
		report := func(sequence uint64) (kept uint64) {
			kept, _, err := a.take(&hubpb.ReportRequest{Process: &hubpb.Process{Identity: id(1, 16), Service: "s"}, Hub: a.self[:], Sequence: sequence}, 0)
			if err != nil {
				t.Fatal(err)
			}
			return kept
		}
		s.full.Store(true)
		report(1)
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if kept := report(2); kept != 0 {
			t.Errorf("window %d is kept while the disk is full", kept)
		}
		s.full.Store(false)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if kept := report(3); kept != 2 {
			t.Errorf("window %d is kept, not 2", kept)
		}
		if err := k.close(); err != nil {
			t.Error(err)
		}
	})
}

// TestBadReports: what contradicts itself is refused with the reason, and counted; nothing of it is on the map.
func TestBadReports(t *testing.T) {
	h := openHub(t, Config{})
	defer closeHub(t, h)
	agents := agentsOf(t, h)
	long := strings.Repeat("x", maxReportName+1)
	who := func(change func(*hubpb.Process)) *hubpb.ReportRequest {
		p := &hubpb.Process{Identity: id(1, 16), Service: "front"}
		change(p)
		return &hubpb.ReportRequest{Process: p, Sequence: 1, Hub: h.agents.self[:]}
	}
	with := func(change func(*hubpb.Route)) *hubpb.ReportRequest {
		r := calls(hubpb.Side_SIDE_CLIENT, "/s.S/M", nil, "x", 5)
		change(r)
		req := who(func(*hubpb.Process) {})
		req.Routes = []*hubpb.Route{r}
		return req
	}
	bad := map[string]*hubpb.ReportRequest{
		"nobody":    {Sequence: 1},
		"identity":  who(func(p *hubpb.Process) { p.Identity = []byte("short") }),
		"no name":   who(func(p *hubpb.Process) { p.Service = "" }),
		"long name": who(func(p *hubpb.Process) { p.Service = long }),
		"listens":   who(func(p *hubpb.Process) { p.Listens = make([]string, maxListens+1) }),
		"long at":   who(func(p *hubpb.Process) { p.Listens = []string{long} }),
		"method":    with(func(r *hubpb.Route) { r.Method = long }),
		"topic":     with(func(r *hubpb.Route) { r.Topic = long }),
		"side":      with(func(r *hubpb.Route) { r.Side = 7 }),
		"peer":      with(func(r *hubpb.Route) { r.Peer = []byte{1} }),
		"wait":      with(func(r *hubpb.Route) { r.Waits = &hubpb.Waits{Handler: -1} }),
		"buckets":   with(func(r *hubpb.Route) { r.Duration.First = math.MaxUint32 }),
		"many": with(func(r *hubpb.Route) {
			r.Gap = &hubpb.Histogram{Counts: make([]uint64, 100_000), Max: 1}
			r.Gap.Counts[0] = 1
		}),
		"overflow":   with(func(r *hubpb.Route) { r.Gap = &hubpb.Histogram{Counts: []uint64{math.MaxUint64, 2}, Max: 1} }),
		"least":      with(func(r *hubpb.Route) { r.Duration.Min = 0 }),
		"most":       with(func(r *hubpb.Route) { r.Duration.Max = math.MaxUint64 }),
		"sum":        with(func(r *hubpb.Route) { r.Duration.Sum = math.NaN() }),
		"zeroes":     with(func(r *hubpb.Route) { r.Gap = &hubpb.Histogram{Counts: []uint64{5, 0}, Max: 1} }),
		"huge":       with(func(r *hubpb.Route) { r.Gap = &hubpb.Histogram{Counts: []uint64{5}, Sum: math.MaxFloat64} }),
		"no such":    with(func(r *hubpb.Route) { r.Waits = &hubpb.Waits{Calls: math.MaxUint64} }),
		"infinite":   with(func(r *hubpb.Route) { r.Duration.Sum = math.Inf(1) }),
		"backwards":  {Process: who(func(*hubpb.Process) {}).Process, FromUnixNano: 5, ToUnixNano: 1},
		"overlong":   {Process: who(func(*hubpb.Process) {}).Process, ToUnixNano: math.MaxInt64},
		"wraps":      {Process: who(func(*hubpb.Process) {}).Process, FromUnixNano: math.MinInt64, ToUnixNano: math.MaxInt64},
		"too many":   {Process: who(func(*hubpb.Process) {}).Process, Routes: make([]*hubpb.Route, maxReportRoutes+1)},
		"repeats":    with(func(r *hubpb.Route) { r.Repeats = &hubpb.Repeats{Calls: 1, Same: 2} }),
		"decisions":  with(func(r *hubpb.Route) { r.Decisions = &hubpb.Decisions{Late: math.MaxUint64} }),
		"left":       with(func(r *hubpb.Route) { r.DeadlineLeft = &hubpb.Histogram{First: math.MaxUint32, Counts: []uint64{1}} }),
		"policies":   {Process: who(func(*hubpb.Process) {}).Process, Policies: []*hubpb.Policy{{}}},
		"calls wrap": with(func(r *hubpb.Route) { r.Codes = map[uint32]uint64{0: math.MaxUint64, 1: 2} }),
	}
	for name, r := range bad {
		for i := range r.Routes {
			if r.Routes[i] == nil {
				r.Routes[i] = &hubpb.Route{}
			}
		}
		if _, err := agents.Report(t.Context(), r); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
	if s := h.intake.status(); s.Refused[refusedReport] != uint64(len(bad)) {
		t.Errorf("%d of %d are counted: %v", s.Refused[refusedReport], len(bad), s.Refused)
	}
	if s := h.agents.status(); s.Processes != 0 || s.Reports != 0 {
		t.Errorf("%+v", s)
	}
}

// TestReportsBounded: what processes report of one window, and how many there are, is bounded; who had no room can come again in the next.
func TestReportsBounded(t *testing.T) {
	a := newAgents(time.Now)
	routes := make([]*hubpb.Route, maxReportRoutes)
	for i := range routes {
		routes[i] = &hubpb.Route{Side: hubpb.Side_SIDE_CLIENT, Method: "/s/M", Codes: map[uint32]uint64{0: 1}}
	}
	taken := 0
	for n := range maxProcesses + 10 {
		r := &hubpb.ReportRequest{Process: &hubpb.Process{Identity: id(uint64(n), 16), Service: "s"}, Hub: a.self[:], Sequence: 1, Routes: routes}
		if n > 2*maxWindowRoutes/maxReportRoutes {
			r.Sequence, r.Routes = 0, nil
		}
		if _, _, err := a.take(r, 0); err == nil && r.Sequence > 0 {
			taken++
		}
	}
	if s := a.status(); s.Processes != maxProcesses || taken != maxWindowRoutes/maxReportRoutes {
		t.Errorf("%+v, %d reports taken", s, taken)
	}
	a.draw(routemap.New(), time.Now(), false)
	if _, _, err := a.take(&hubpb.ReportRequest{Process: &hubpb.Process{Identity: id(20, 16), Service: "s"}, Hub: a.self[:], Sequence: 2, Routes: routes}, 0); err != nil {
		t.Error(err)
	}
}

// TestReportToken: where there are tokens, one that writes is needed.
func TestReportToken(t *testing.T) {
	h := openHub(t, Config{Tokens: []Token{{Role: Write, Secret: strings.Repeat("w", 32)}, {Role: Read, Secret: strings.Repeat("r", 32)}}})
	defer closeHub(t, h)
	agents := agentsOf(t, h)
	for token, want := range map[string]codes.Code{"": codes.Unauthenticated, strings.Repeat("r", 32): codes.Unauthenticated, strings.Repeat("w", 32): codes.OK} {
		ctx := metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+token)
		if _, err := agents.Report(ctx, &hubpb.ReportRequest{Process: &hubpb.Process{Identity: id(1, 16), Service: "s"}}); status.Code(err) != want {
			t.Errorf("%q: %v", token, err)
		}
	}
}

func TestDirectory(t *testing.T) {
	d := directory{}
	d.add(&hubpb.Process{Service: "back", Boot: "b", Listens: []string{"[::]:50051", "/run/s.sock", "@s", "10.1.1.1:7"}})
	d.add(&hubpb.Process{Service: "one", Boot: "b", Listens: []string{"127.0.0.1:9"}})
	d.add(&hubpb.Process{Service: "two", Boot: "b", Listens: []string{"127.0.0.1:9"}})
	for address, want := range map[string][2]string{
		"localhost:50051": {"back", ""}, net.JoinHostPort("::1", "50051"): {"back", ""}, "127.0.0.1:50052": {"", ""}, "unix:///run/s.sock": {"back", ""}, "unix:/run/s.sock": {"back", ""}, "unix-abstract:s": {"back", ""}, "unix-abstract:t": {"", ""},
		"10.1.1.1:50051": {"", ""}, "10.1.1.1:7": {"back", "back"}, "": {"", ""}, "[::]:50051": {"back", ""}, "localhost:9": {"", ""}, "nonsense": {"", ""},
	} {
		if got := [2]string{d.find("b", address), d.find("c", address)}; got != want {
			t.Errorf("%s: %v", address, got)
		}
	}
}

// TestReportedEvents: what happened in a process is asked for by time, service and kind; of a window's events those that are too many are counted.
func TestReportedEvents(t *testing.T) {
	h := openHub(t, Config{})
	r := newReporter(t, agentsOf(t, h), 1, "front")
	now := time.Now().UnixNano()
	event := func(kind string, ago time.Duration) *hubpb.Event {
		return &hubpb.Event{Kind: kind, Subject: "/s.S/M", Detail: "<b>", Trace: "abc", Error: true, FirstUnixNano: now - int64(ago), LastUnixNano: now - int64(ago), Count: 3}
	}
	r.sequence = 1
	r.send(&hubpb.ReportRequest{Process: r.is, Hub: r.hub, Sequence: 1, Events: []*hubpb.Event{event("breaker moved", time.Minute), event("retried", 2*time.Minute)}, EventsLost: 4})
	if s := h.agents.status(); s.Lost != 4 {
		t.Errorf("%+v", s)
	}
	h = reopen(t, h)
	defer closeHub(t, h)
	for path, want := range map[string]string{
		"": "breaker moved retried", "?kind=retried": "retried", "?service=back": "", "?from=90s": "breaker moved", "?limit=1": "breaker moved",
	} {
		reply := get(t, h, "/api/v1/events"+path)
		var got Events
		if err := json.Unmarshal(reply.body, &got); err != nil || reply.code != 200 {
			t.Fatalf("%d, %s, %v", reply.code, reply.body, err)
		}
		var kinds []string
		for _, e := range got.Events {
			kinds = append(kinds, e.Kind)
			if e.Service != "front" || e.PID != 1 || e.Count != 3 || e.Trace != "abc" || !e.Error {
				t.Errorf("%+v", e)
			}
		}
		if strings.Join(kinds, " ") != want {
			t.Errorf("%s: %v", path, kinds)
		}
	}
	for _, bad := range []string{"?limit=0", "?limit=1e9", "?limit=5001", "?other=1", "?from=tomorrow"} {
		if reply := get(t, h, "/api/v1/events"+bad); reply.code != 400 {
			t.Errorf("%s: %d, %s", bad, reply.code, reply.body)
		}
	}
	for name, e := range map[string]*hubpb.Event{"backwards": {FirstUnixNano: 2, LastUnixNano: 1, Count: 1}, "none": {}, "before": {FirstUnixNano: -1, Count: 1}, "long": {Kind: strings.Repeat("x", 300), Count: 1}} {
		if err := checkReport(&hubpb.ReportRequest{Process: r.is, Events: []*hubpb.Event{e}}); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

// TestLastWords: calls of a client that ended before it had told of them count as its server says, and once if it has.
func TestLastWords(t *testing.T) {
	h := openHub(t, Config{})
	agents := agentsOf(t, h)
	gone, back := newReporter(t, agents, 1, "gone"), newReporter(t, agents, 2, "back")
	back.report(calls(hubpb.Side_SIDE_SERVER, "/s.S/M", gone, "x", 5))
	h = reopen(t, h)
	defer closeHub(t, h)
	if got := routesOf(t, h); len(got) != 1 || got["gone → back s.S/M shm"] != 5 {
		t.Errorf("%v", got)
	}
}

// TestRestartedOnce: what a hub has kept when it ended counts once, although the process was not told and sends it again; what it had not counts.
func TestRestartedOnce(t *testing.T) {
	h := openHub(t, Config{})
	route := func(n uint64) *hubpb.Route { return calls(hubpb.Side_SIDE_CLIENT, "/p.S/M", nil, "x:1", n) }
	if answer := newReporter(t, agentsOf(t, h), 1, "front").report(route(100)); answer.GetKept() != 0 {
		t.Errorf("%d windows are kept", answer.GetKept())
	}
	for range 2 { // also when nothing new comes in between
		h = reopen(t, h)
		again := newReporter(t, agentsOf(t, h), 1, "front") // its first window is the same
		if answer := again.report(route(100)); answer.GetKept() != 1 {
			t.Errorf("%d windows are kept", answer.GetKept())
		}
	}
	last := newReporter(t, agentsOf(t, h), 1, "front")
	last.sequence = 1
	last.report(route(20))
	h = reopen(t, h)
	defer closeHub(t, h)
	if got := routesOf(t, h); len(got) != 1 || !slices.Contains(slices.Collect(maps.Values(got)), 120) {
		t.Errorf("%v, want 120 calls", got)
	}
}
