package main

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stile-ipc/stile/cmd/stile/internal/terminal"
	"github.com/stile-ipc/stile/hostmap"
	"github.com/stile-ipc/stile/hub"
	"github.com/stile-ipc/stile/routemap"
)

// TestServicesOf: a process is called as it reports, also from another PID namespace, and no other is: neither one of the same program, nor one that had the number before, nor one of another host.
func TestServicesOf(t *testing.T) {
	at := func(s float64) time.Time { return time.Unix(1_000_000, 0).Add(time.Duration(s * float64(time.Second))) }
	seen := []hostmap.Process{
		{PID: 10, Start: at(0), Exe: "/bin/catalog"}, {PID: 11, Start: at(1), Exe: "/bin/catalog"}, // the second does not report
		{PID: 20, Start: at(50)},                                                                                                                                  // another user's
		{PID: 30, OwnPID: 7, Start: at(103), Exe: "/app"}, {PID: 31, OwnPID: 7, Start: at(100), Exe: "/app"}, {PID: 32, OwnPID: 7, Start: at(104.9), Exe: "/app"}, // in containers, where they have other numbers; the last does not report
		{PID: 33, OwnPID: 1, Start: at(500), Exe: "/app"}, {PID: 34, OwnPID: 1, Start: at(500.1), Exe: "/app"}, // began one after the other, and say so later than the other began
		{PID: 40, Start: at(200), Exe: "/bin/gateway"}, {PID: 41, Start: at(300), Exe: "/bin/sh"},
		{PID: 50, Start: at(400), Exe: "/bin/catalog"}, // does not report: one beside it does, which is not seen
		{PID: 7, Start: at(101), Exe: "/app"},          // outside, with a number that those in containers have, too
	}
	for i := range seen {
		seen[i].OwnPID = cmp.Or(seen[i].OwnPID, seen[i].PID)
	}
	reporting := []hub.ProcessReport{
		{PID: 7, Start: at(101.1), Service: "outside", Executable: "/app"}, {PID: 7, Start: at(103.1), Service: "pricing", Executable: "/app"}, {PID: 7, Start: at(100.2), Service: "mailer", Executable: "/app"},
		{PID: 10, Start: at(0.9), Service: "catalog", Executable: "/bin/catalog"}, {PID: 20, Start: at(51), Service: "orders", Executable: "/opt/orders"},
		{PID: 11, Start: at(1), Service: "of another host", Executable: "/bin/catalog", Boot: "b"},
		{PID: 40, Start: at(100), Service: "before", Executable: "/bin/gateway"}, {PID: 41, Start: at(300), Service: "elsewhere", Executable: "/bin/inventory"},
		{PID: 51, Start: at(400), Service: "unseen", Executable: "/bin/catalog"},
		{PID: 1, Start: at(500.22), Service: "later", Executable: "/app"}, {PID: 1, Start: at(500.12), Service: "sooner", Executable: "/app"},
	}
	want := map[int]string{10: "catalog", 20: "orders", 30: "pricing", 31: "mailer", 7: "outside", 33: "sooner", 34: "later"}
	for i := range reporting {
		reporting[i].Boot = cmp.Or(reporting[i].Boot, "a")
	}
	for range len(reporting) { // in whichever order they come
		reporting = append(reporting[1:], reporting[0])
		if got := servicesOf(&hostmap.Host{Boot: "a", Processes: seen}, reporting); !maps.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	}
}

var told = time.Unix(1_000_000, 0)

// told on the host and by the hub: ends, and nodes.
func endOf(n int) hostmap.End { return hostmap.End{PID: n} }
func seenWay(from, to hostmap.End, transport, via string) hostmap.Edge {
	return hostmap.Edge{From: from, To: to, Transport: transport, Via: via, Count: 1, Directed: true, Known: "sock_diag"}
}
func hubRoute(from, to routemap.Node, transport string, calls uint64, cost int64, sources routemap.Sources) routemap.Route {
	r := routemap.Route{Key: routemap.Key{From: from, To: to, Transport: transport}, Stats: &routemap.Stats{}}
	r.Calls, r.Through, r.Roots, r.Sources = calls, cost, 1, sources
	return r
}

// tellOf is a host of programs by PID, those of which run services report, as a hub tells of its ways.
func tellOf(programs, services map[int]string, edges []hostmap.Edge, routes []routemap.Route, more ...hub.ProcessReport) *hostView {
	h := &hostmap.Host{Boot: "a", Edges: edges}
	for n, name := range programs {
		h.Processes = append(h.Processes, hostmap.Process{PID: n, OwnPID: n, Start: told, Name: name})
	}
	for n, name := range services {
		more = append(more, hub.ProcessReport{PID: int64(n), Start: told, Service: name, Boot: "a"})
	}
	v := viewOf(h, servicesOf(h, more))
	v.tell(&routemap.Report{Routes: routes, Window: routemap.Window{From: told, To: told.Add(time.Minute)}}, &hub.Processes{Boot: "a", Processes: more})
	return v
}

type toldWay struct {
	via     string
	routes  int
	calls   uint64
	cost    int64
	sources routemap.Sources
}

func (v *hostView) mustTell(t *testing.T, want ...toldWay) {
	t.Helper()
	for i, e := range v.Edges {
		if got := (toldWay{e.Via, e.Routes, e.Calls, e.Cost, e.Sources}); got != want[i] {
			t.Errorf("%+v, want %+v", got, want[i])
		}
	}
}

// TestHostTold: a way has the routes of its two ends, by whichever name the hub knows them and each once and in its direction; those that cost most are first, and what no route tells of is last.
func TestHostTold(t *testing.T) {
	topic := routemap.Node{Kind: routemap.Queue, Name: "sent"}
	v := tellOf(
		map[int]string{1: "front", 2: "catalog", 3: "backupd", 4: "postgres", 5: "java", 6: "front", 7: "mail"}, map[int]string{1: "web", 2: "catalog", 7: "mailer", 99: "front"},
		[]hostmap.Edge{
			seenWay(endOf(6), endOf(2), routemap.TCPLoopback, "untold"), seenWay(endOf(3), endOf(2), routemap.SHM, "cheap"), seenWay(endOf(2), endOf(4), routemap.TCPLoopback, "127.0.0.1:5432"),
			seenWay(endOf(1), endOf(5), routemap.TCPLoopback, "traced"), seenWay(endOf(7), endOf(1), routemap.UnixStream, "queue"), seenWay(endOf(1), endOf(2), routemap.SHM, "dear"),
		},
		[]routemap.Route{
			hubRoute(serviceNode("web"), serviceNode("catalog"), "", 10, 500, routemap.FromStile), hubRoute(serviceNode("web"), serviceNode("catalog"), "", 20, 300, routemap.FromTraces),
			hubRoute(programNode("backupd"), serviceNode("catalog"), "", 90, 0, routemap.FromStile), hubRoute(serviceNode("catalog"), externalNode("127.0.0.1:5432"), "", 40, 100, routemap.FromTraces),
			hubRoute(serviceNode("java"), serviceNode("web"), "", 600, 20000, routemap.FromMetrics), // back: there is no way for it
			hubRoute(serviceNode("web"), serviceNode("java"), "", 6, 200, routemap.FromMetrics),
			hubRoute(serviceNode("web"), topic, routemap.Broker, 3, 50, routemap.FromStile), hubRoute(topic, serviceNode("mailer"), routemap.Broker, 2, 40, routemap.FromStile), hubRoute(serviceNode("front"), serviceNode("catalog"), "", 1000, 9000, routemap.FromStile),
		})
	v.mustTell(t, toldWay{"dear", 2, 30, 800, routemap.FromStile | routemap.FromTraces}, toldWay{"traced", 1, 6, 200, routemap.FromMetrics}, toldWay{"127.0.0.1:5432", 1, 40, 100, routemap.FromTraces},
		toldWay{"queue", 1, 2, 40, routemap.FromStile}, toldWay{"cheap", 1, 90, 0, routemap.FromStile}, toldWay{"untold", 0, 0, 0, 0})
	if n := v.untold(); n != 1 {
		t.Errorf("%d ways are not told of", n)
	}
}

// TestHostTransports: calls are where they go: of the ways between two services each has those of its transport, also where it is another replica's or on another host; what goes through a broker,
// or by what nobody tells, may be on all of them.
func TestHostTransports(t *testing.T) {
	memory := seenWay(endOf(2), endOf(1), routemap.SHM, "memory")
	memory.Directed = false
	v := tellOf(map[int]string{1: "web", 2: "catalog", 3: "web"}, map[int]string{1: "web", 2: "catalog", 3: "web"},
		[]hostmap.Edge{
			seenWay(endOf(1), endOf(2), routemap.UnixStream, "door"), memory, seenWay(endOf(3), endOf(2), routemap.UnixStream, "replica's"), seenWay(endOf(3), endOf(2), routemap.TCPLoopback, "tcp"),
			seenWay(endOf(1), hostmap.End{Address: "192.0.2.8:8080"}, routemap.TCP, "192.0.2.8:8080"), seenWay(endOf(2), endOf(1), routemap.Pipe, "answers"),
		},
		[]routemap.Route{
			hubRoute(serviceNode("web"), serviceNode("catalog"), routemap.SHM, 1000, 5000, routemap.FromStile), hubRoute(serviceNode("web"), serviceNode("catalog"), "", 3, 30, routemap.FromTraces), hubRoute(serviceNode("web"), serviceNode("catalog"), routemap.TCP, 4, 20, routemap.FromTraces),
		},
		hub.ProcessReport{Service: "catalog", Boot: "b", Listens: []string{"192.0.2.8:8080"}})
	both := routemap.FromStile | routemap.FromTraces
	v.mustTell(t, toldWay{"memory", 3, 1003, 5030, both}, toldWay{"tcp", 3, 7, 50, both}, toldWay{"192.0.2.8:8080", 3, 7, 50, both}, toldWay{"door", 3, 3, 30, both}, toldWay{"replica's", 3, 3, 30, both}, toldWay{"answers", 3, 3, 30, both})
}

// TestHostElsewhere: an end on another host is who alone listens there and reports, or on whose host others do that report.
func TestHostElsewhere(t *testing.T) {
	at := func(address string) hostmap.End { return hostmap.End{Address: address} }
	out := func(address string) hostmap.Edge { return seenWay(endOf(1), at(address), routemap.TCP, address) }
	v := tellOf(map[int]string{1: "front"}, map[int]string{1: "web"},
		[]hostmap.Edge{
			out("192.0.2.8:8080"), seenWay(at("192.0.2.8"), endOf(1), routemap.TCP, "192.0.2.1:80"), seenWay(at("192.0.2.66"), endOf(1), routemap.TCP, "192.0.2.1:81"), out("172.17.0.2:8080"),
			seenWay(endOf(1), at(hostmap.Unseen), routemap.UnixStream, "/run/hidden"), seenWay(endOf(1), at(hostmap.Unseen), routemap.UnixStream, "/run/other"),
		},
		[]routemap.Route{
			hubRoute(serviceNode("web"), serviceNode("orders"), routemap.TCP, 2, 800, routemap.FromStile), hubRoute(serviceNode("orders"), serviceNode("web"), routemap.TCP, 4, 600, routemap.FromStile),
			hubRoute(programNode("cron on db2"), serviceNode("web"), routemap.SHM, 5, 60, routemap.FromStile), // of the web there
			hubRoute(serviceNode("web"), serviceNode("billing"), routemap.TCP, 5, 70, routemap.FromStile), hubRoute(serviceNode("web"), serviceNode("hidden"), routemap.UnixStream, 6, 50, routemap.FromStile),
		},
		hub.ProcessReport{Service: "orders", Boot: "b", Host: "db2", Listens: []string{"192.0.2.8:8080", "127.0.0.1:443", "[::]:81"}},
		hub.ProcessReport{Service: "billing", Boot: "c", Listens: []string{"172.17.0.2:8080"}}, hub.ProcessReport{Service: "billing's test", Boot: "d", Listens: []string{"172.17.0.2:8080"}}, // each its host's own
		hub.ProcessReport{Service: "billing", Listens: []string{"192.0.2.66:1"}}, hub.ProcessReport{Service: "orders"}, // who knows where
		hub.ProcessReport{Service: "hidden", Boot: "a", Listens: []string{"/run/hidden"}},
	)
	v.mustTell(t, toldWay{"192.0.2.8:8080", 1, 2, 800, routemap.FromStile}, toldWay{"192.0.2.1:80", 1, 4, 600, routemap.FromStile}, toldWay{"/run/hidden", 1, 6, 50, routemap.FromStile},
		toldWay{"192.0.2.1:81", 0, 0, 0, 0}, toldWay{"172.17.0.2:8080", 0, 0, 0, 0}, toldWay{"/run/other", 0, 0, 0, 0})
	if v.Unplaced != 2 {
		t.Errorf("%d do not say where they are", v.Unplaced)
	}
}

// TestHostAddresses: who does not report is found by the address by which it is called: as the kernel has it, as targets of gRPC are spelled, and by a name, if that can be no other.
func TestHostAddresses(t *testing.T) {
	out := func(address string) hostmap.Edge {
		return seenWay(endOf(1), hostmap.End{Address: address}, routemap.TCP, address)
	}
	here := func(transport, via string) hostmap.Edge { return seenWay(endOf(1), endOf(4), transport, via) }
	mixed := seenWay(endOf(1), endOf(4), routemap.TCPLoopback, "127.0.0.1:9000") // the listener is closed: who asks is not known
	mixed.Directed = false
	calls := func(to string, calls uint64) routemap.Route {
		return hubRoute(serviceNode("web"), externalNode(to), "", calls, 1000-int64(calls), routemap.FromTraces)
	}
	v := tellOf(map[int]string{1: "front", 4: "postgres"}, map[int]string{1: "web"},
		[]hostmap.Edge{
			out("192.0.2.7:443"), out("192.0.2.9:5432"), out("192.0.2.10:6379"), out("192.0.2.11:8080"), out("192.0.2.12:8080"), out("192.0.2.13:6543"), out("[2001:db8::1]:99"),
			here(routemap.TCPLoopback, "127.0.0.1:6543"), here(routemap.UnixStream, "/run/x.sock"), here(routemap.UnixStream, "@name"), mixed,
		},
		[]routemap.Route{
			calls("192.0.2.7:443", 1), calls("c.example.com:443", 100), calls("db:5432", 2), calls("localhost:6543", 3), calls("unix:/run/x.sock", 4), calls("unix-abstract:name", 5), calls("127.0.0.1:9000", 6),
			calls("a.cache:6379", 101), calls("b.cache:6379", 102), calls("api.example.com:8080", 103), // which it is nobody tells
		})
	want := []toldWay{{"192.0.2.7:443", 1, 1, 999, 0}, {"192.0.2.9:5432", 1, 2, 998, 0}, {"127.0.0.1:6543", 1, 3, 997, 0}, {"/run/x.sock", 1, 4, 996, 0}, {"@name", 1, 5, 995, 0}, {"127.0.0.1:9000", 1, 6, 994, 0}}
	for i := range want {
		want[i].sources = routemap.FromTraces
	}
	for _, via := range []string{"192.0.2.10:6379", "192.0.2.11:8080", "192.0.2.12:8080", "192.0.2.13:6543", "[2001:db8::1]:99"} {
		want = append(want, toldWay{via: via})
	}
	v.mustTell(t, want...)
}

// TestHostNotTheHubs: on a host where the hub is not, those that do not report are one node, which the host's name tells from others; on the hub's own each is its program.
func TestHostNotTheHubs(t *testing.T) {
	v := viewOf(&hostmap.Host{Boot: "a", Processes: []hostmap.Process{{PID: 1, Name: "backupd"}, {PID: 2, Name: "catalog"}}, Edges: []hostmap.Edge{seenWay(endOf(1), endOf(2), routemap.SHM, "memory")}}, map[int]string{2: "catalog"})
	v.tell(&routemap.Report{Routes: []routemap.Route{
		hubRoute(programNode("backupd"), serviceNode("catalog"), routemap.SHM, 1000, 9, routemap.FromStile), hubRoute(programNode("unknown on db2"), serviceNode("catalog"), routemap.SHM, 7, 8, routemap.FromStile),
	}}, &hub.Processes{Boot: "the hub's", Processes: []hub.ProcessReport{{PID: 2, Service: "catalog", Boot: "a", Host: "db2"}}})
	v.mustTell(t, toldWay{"memory", 1, 7, 8, routemap.FromStile})
}

// TestHostOnly: what is left out are ways without an end in a process that has the name, be it its program's or its service's; what costs most is counted before.
func TestHostOnly(t *testing.T) {
	for _, name := range []string{"front", "web"} {
		v := tellOf(map[int]string{1: "front", 2: "catalog", 3: "mail"}, map[int]string{1: "web", 2: "catalog"}, []hostmap.Edge{seenWay(endOf(1), endOf(2), routemap.SHM, "memory"), seenWay(endOf(3), endOf(2), routemap.SHM, "other")}, nil)
		v.only(name)
		if len(v.Edges) != 1 || len(v.Host.Edges) != 1 || v.Edges[0].Via != "memory" || len(v.Processes) != 2 || !maps.Equal(v.Services, map[int]string{1: "web", 2: "catalog"}) {
			t.Errorf("%s: %+v of %+v", name, v.Edges, v.Processes)
		}
	}
}

// TestHostPrinted: a page says of which time the hub's routes are, and what may be missing because the hub does not say on which host processes are.
func TestHostPrinted(t *testing.T) {
	old := hub.ProcessReport{PID: 2, Start: told, Service: "catalog"}
	v := tellOf(map[int]string{1: "front", 2: "catalog"}, map[int]string{1: "web"}, []hostmap.Edge{seenWay(endOf(1), endOf(2), routemap.SHM, "memfd")}, []routemap.Route{hubRoute(serviceNode("web"), serviceNode("catalog"), "", 3, 7e6, routemap.FromStile)}, old)
	var out bytes.Buffer
	if err := printHost(&out, terminal.Style{}, v); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"1 of 1 ways are known from the host alone: no route that the hub has, from " + told.Format(time.RFC3339), "1 processes report, but not on which host"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
	old.Boot = "a"
	v = tellOf(map[int]string{1: "front", 2: "catalog"}, map[int]string{1: "web"}, []hostmap.Edge{seenWay(endOf(1), endOf(2), routemap.SHM, "memfd")}, []routemap.Route{hubRoute(serviceNode("web"), serviceNode("catalog"), "", 3, 7e6, routemap.FromStile)}, old)
	out.Reset()
	if err := printHostDOT(&out, v); err != nil || !strings.Contains(out.String(), `"web[1]" -> "catalog[2]" [label="shm, 3 calls, 7`) {
		t.Errorf("%v: %s", err, &out)
	}
}

// TestHostPage: a page of a host is one document that loads nothing, whatever processes and sockets are called, and has the same numbers as the text.
func TestHostPage(t *testing.T) {
	const hostile = "<script>alert(\"1\")</script>\u202e\x1b[31m"
	v := tellOf(map[int]string{1: hostile, 2: "catalog"}, map[int]string{1: hostile, 2: "catalog"}, []hostmap.Edge{seenWay(endOf(1), endOf(2), routemap.SHM, hostile), seenWay(endOf(1), hostmap.End{Address: hostile}, routemap.TCP, hostile)},
		[]routemap.Route{hubRoute(serviceNode(hostile), serviceNode("catalog"), routemap.SHM, 1234, 7e6, routemap.FromStile)})
	v.Watched, v.Samples = 2*time.Second, 20
	v.Pressure = []hostmap.Pressure{{From: endOf(1), To: endOf(2), Transport: routemap.UnixStream, Via: hostile, Samples: 20, Full: 19, Most: 1, Blocking: true, Backpressure: true}}
	v.Processes[0].Voluntary = 84
	var out bytes.Buffer
	if err := printHostHTML(&out, v); err != nil {
		t.Fatal(err)
	}
	p := parsePage(t, out.String())
	var rows []string
	for _, row := range p.all("tbody tr") {
		rows = append(rows, strings.Join(strings.Fields(content(row)), " "))
	}
	for _, want := range []string{plain(hostile+"[1]") + " → catalog[2] shm 1 0 7ms 1234 sock_diag, stile " + plain(hostile), "blocking point backpressure", "42.0"} {
		if !slices.ContainsFunc(rows, func(row string) bool {
			return strings.Contains(strings.ReplaceAll(row, " ", ""), strings.ReplaceAll(want, " ", ""))
		}) {
			t.Errorf("no %q in %q", want, rows)
		}
	}
	if strings.ContainsAny(out.String(), "\u202e\x1b") {
		t.Error("a name acts on who reads it")
	}
	if !strings.Contains(out.String(), "1 of 2 ways are known from the host alone") {
		t.Error("it is not told what the host alone knows")
	}
}
