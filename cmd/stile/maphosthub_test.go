package main

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
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
		{PID: 40, Start: at(200), Exe: "/bin/gateway"}, {PID: 41, Start: at(300), Exe: "/bin/sh"},
		{PID: 50, Start: at(400), Exe: "/bin/catalog"}, // does not report: one beside it does, which is not seen
		{PID: 7, Start: at(101), Exe: "/app"},          // outside, with a number that those in containers have, too
	}
	for i := range seen {
		seen[i].OwnPID = cmp.Or(seen[i].OwnPID, seen[i].PID)
	}
	reporting := []hub.ProcessReport{
		{PID: 7, Start: at(101.1), Service: "outside", Executable: "/app"}, {PID: 7, Start: at(103.1), Service: "pricing", Executable: "/app"}, {PID: 7, Start: at(100.2), Service: "mailer", Executable: "/app"},
		{PID: 10, Start: at(0.9), Service: "catalog", Executable: "/bin/catalog"}, {PID: 20, Start: at(49), Service: "orders", Executable: "/opt/orders"},
		{PID: 11, Start: at(1), Service: "of another host", Executable: "/bin/catalog", Boot: "b"},
		{PID: 40, Start: at(100), Service: "before", Executable: "/bin/gateway"}, {PID: 41, Start: at(300), Service: "elsewhere", Executable: "/bin/inventory"},
		{PID: 51, Start: at(400), Service: "unseen", Executable: "/bin/catalog"},
	}
	want := map[int]string{10: "catalog", 20: "orders", 30: "pricing", 31: "mailer", 7: "outside"}
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
func serviceNode(name string) routemap.Node { return routemap.Node{Kind: routemap.Service, Name: name} }
func externalNode(name string) routemap.Node {
	return routemap.Node{Kind: routemap.External, Name: name}
}
func programNode(name string) routemap.Node { return routemap.Node{Kind: routemap.Process, Name: name} }

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
	v.tell(&routemap.Report{Routes: routes, Window: routemap.Window{From: told, To: told.Add(time.Minute)}}, more)
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

// TestHostTransports: calls are where they go: of two ways between the same processes each has those of its transport, and what goes some other way is on both.
func TestHostTransports(t *testing.T) {
	ways := []hostmap.Edge{seenWay(endOf(1), endOf(2), routemap.UnixStream, "door"), seenWay(endOf(2), endOf(1), routemap.SHM, "memory"), seenWay(endOf(1), endOf(3), routemap.TCPLoopback, "alone")}
	ways[1].Directed = false
	v := tellOf(map[int]string{1: "web", 2: "catalog", 3: "mail"}, map[int]string{1: "web", 2: "catalog", 3: "mail"}, ways, []routemap.Route{
		hubRoute(serviceNode("web"), serviceNode("catalog"), routemap.SHM, 10, 500, routemap.FromStile), hubRoute(serviceNode("web"), serviceNode("catalog"), "", 3, 30, routemap.FromTraces), hubRoute(serviceNode("web"), serviceNode("mail"), routemap.TCP, 4, 20, routemap.FromTraces),
	})
	both := routemap.FromStile | routemap.FromTraces
	v.mustTell(t, toldWay{"memory", 2, 13, 530, both}, toldWay{"door", 2, 3, 30, both}, toldWay{"alone", 1, 4, 20, routemap.FromTraces})
}

// TestHostElsewhere: an end on another host is who listens there and reports, who does not and is on a host where others do, and what its caller calls it, by address or by the one name that it calls on that port.
func TestHostElsewhere(t *testing.T) {
	at := func(address string) hostmap.End { return hostmap.End{Address: address} }
	out := func(address string) hostmap.Edge { return seenWay(endOf(1), at(address), routemap.TCP, address) }
	v := tellOf(map[int]string{1: "front", 4: "postgres"}, map[int]string{1: "web"},
		[]hostmap.Edge{
			out("192.0.2.7:443"), out("192.0.2.8:8080"), out("192.0.2.9:5432"), seenWay(at("192.0.2.8"), endOf(1), routemap.TCP, "192.0.2.1:80"), seenWay(at("192.0.2.66"), endOf(1), routemap.TCP, "192.0.2.1:81"),
			out("192.0.2.10:6379"), seenWay(endOf(1), endOf(4), routemap.TCPLoopback, "127.0.0.1:6543"), out("[2001:db8::1]:99"), seenWay(endOf(1), at(hostmap.Unseen), routemap.UnixStream, ""),
		},
		[]routemap.Route{
			hubRoute(serviceNode("web"), externalNode("192.0.2.7:443"), "", 1, 900, routemap.FromStile), hubRoute(serviceNode("web"), serviceNode("orders"), routemap.TCP, 2, 800, routemap.FromStile),
			hubRoute(serviceNode("web"), externalNode("db:5432"), "", 3, 700, routemap.FromTraces), hubRoute(serviceNode("orders"), serviceNode("web"), routemap.TCP, 4, 600, routemap.FromStile),
			hubRoute(programNode("cron on db2"), serviceNode("web"), routemap.TCP, 5, 60, routemap.FromStile), hubRoute(serviceNode("web"), externalNode("localhost:6543"), "", 6, 500, routemap.FromTraces),
			hubRoute(serviceNode("web"), externalNode("a.cache:6379"), "", 7, 50, routemap.FromTraces), hubRoute(serviceNode("web"), externalNode("b.cache:6379"), "", 8, 50, routemap.FromTraces), // which it is nobody tells
		},
		hub.ProcessReport{Service: "orders", Boot: "b", Host: "db2", Listens: []string{"192.0.2.8:8080", "127.0.0.1:443"}})
	v.mustTell(t, toldWay{"192.0.2.7:443", 1, 1, 900, routemap.FromStile}, toldWay{"192.0.2.8:8080", 1, 2, 800, routemap.FromStile}, toldWay{"192.0.2.9:5432", 1, 3, 700, routemap.FromTraces},
		toldWay{"192.0.2.1:80", 2, 9, 660, routemap.FromStile}, toldWay{"127.0.0.1:6543", 1, 6, 500, routemap.FromTraces},
		toldWay{"192.0.2.1:81", 0, 0, 0, 0}, toldWay{"192.0.2.10:6379", 0, 0, 0, 0}, toldWay{"[2001:db8::1]:99", 0, 0, 0, 0}, toldWay{"", 0, 0, 0, 0})
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
	const hostile = `<script>alert("1")</script>`
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
	for _, want := range []string{hostile + "[1] → catalog[2] shm 1 0 7ms 1234 sock_diag, stile " + hostile, "blocking point backpressure", "42.0"} {
		if !slices.ContainsFunc(rows, func(row string) bool {
			return strings.Contains(strings.ReplaceAll(row, " ", ""), strings.ReplaceAll(want, " ", ""))
		}) {
			t.Errorf("no %q in %q", want, rows)
		}
	}
	if !strings.Contains(out.String(), "1 of 2 ways are known from the host alone") {
		t.Error("it is not told what the host alone knows")
	}
}

// TestHubMapHalf: a map whose route has no numbers is refused, not read.
func TestHubMapHalf(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"version": %d, "routes": [{"from": {"kind": "service", "name": "a"}}]}`, routemap.ReportVersion)
	}))
	defer s.Close()
	if _, _, err := hubMap(t.Context(), s.URL); err == nil || !strings.Contains(err.Error(), "has no numbers") {
		t.Errorf("%v", err)
	}
}
