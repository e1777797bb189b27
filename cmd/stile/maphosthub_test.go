package main

import (
	"cmp"
	"maps"
	"testing"
	"time"

	"github.com/stile-ipc/stile/hostmap"
	"github.com/stile-ipc/stile/hub"
	"github.com/stile-ipc/stile/routemap"
)

// TestServicesOf: a process is called as it reports, also from another PID namespace, and no other is: neither one of the same program, nor one that had the number before, nor one of another host.
func TestServicesOf(t *testing.T) {
	at := func(s float64) time.Time { return time.Unix(1_000_000, 0).Add(time.Duration(s * float64(time.Second))) }
	seen := []hostmap.Process{
		{PID: 10, Start: at(0), Name: "catalog", Exe: "/bin/catalog"}, {PID: 11, Start: at(1), Name: "catalog", Exe: "/bin/catalog"}, // the second does not report
		{PID: 20, Start: at(50), Name: "orders"},                                                                        // another user's
		{PID: 30, Start: at(100), Name: "mailer", Exe: "/app"}, {PID: 31, Start: at(103), Name: "pricing", Exe: "/app"}, // in containers, where they have other numbers
		{PID: 40, Start: at(200), Name: "gateway", Exe: "/bin/gateway"}, {PID: 41, Start: at(300), Name: "sh", Exe: "/bin/sh"},
	}
	reporting := []hub.ProcessReport{
		{PID: 7, Start: at(103.1), Service: "pricing", Executable: "/app"}, {PID: 7, Start: at(100.2), Service: "mailer", Executable: "/app"},
		{PID: 10, Start: at(0.9), Service: "catalog", Executable: "/bin/catalog"}, {PID: 20, Start: at(49), Service: "orders", Executable: "/opt/orders"},
		{PID: 11, Start: at(1), Service: "of another host", Executable: "/bin/catalog", Boot: "b"},
		{PID: 40, Start: at(100), Service: "before", Executable: "/bin/gateway"}, {PID: 41, Start: at(300), Service: "elsewhere", Executable: "/bin/inventory"},
	}
	want := map[int]string{10: "catalog", 20: "orders", 30: "mailer", 31: "pricing"}
	for i := range reporting {
		reporting[i].Boot = cmp.Or(reporting[i].Boot, "a")
	}
	if got := servicesOf(&hostmap.Host{Boot: "a", Processes: seen}, reporting); !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if len(reporting) != 7 || reporting[2].PID != 10 {
		t.Errorf("the reports are others: %v", reporting)
	}
}

// TestHostTold: a way has the routes of its two ends, by whichever name the hub knows them and in whichever direction, each once; those that cost most are first, and what no route tells of is last.
func TestHostTold(t *testing.T) {
	start := time.Unix(1_000_000, 0)
	process := func(pid int, name string) hostmap.Process {
		return hostmap.Process{PID: pid, Start: start, Name: name}
	}
	way := func(from, to hostmap.End, via string) hostmap.Edge {
		return hostmap.Edge{From: from, To: to, Transport: routemap.TCP, Via: via, Count: 1, Directed: true, Known: "sock_diag"}
	}
	pid := func(n int) hostmap.End { return hostmap.End{PID: n} }
	far := hostmap.End{Address: "192.0.2.7:443"}
	v := viewOf(&hostmap.Host{
		Processes: []hostmap.Process{process(1, "front"), process(2, "catalog"), process(3, "backupd"), process(4, "postgres"), process(5, "java"), process(6, "front"), process(7, "mail")},
		Edges: []hostmap.Edge{
			way(pid(6), pid(2), "untold"), way(pid(3), pid(2), "cheap"), way(pid(2), pid(4), "127.0.0.1:5432"), way(pid(1), far, far.Address), way(pid(1), pid(5), "traced"), way(pid(7), pid(1), "queue"), way(pid(1), pid(2), "dear"),
		},
	})
	route := func(from, to routemap.Node, calls uint64, cost int64, sources routemap.Sources) routemap.Route {
		r := routemap.Route{Key: routemap.Key{From: from, To: to}, Stats: &routemap.Stats{}}
		r.Calls, r.Through, r.Roots, r.Sources = calls, cost, 1, sources
		return r
	}
	service := func(name string) routemap.Node { return routemap.Node{Kind: routemap.Service, Name: name} }
	external := func(name string) routemap.Node { return routemap.Node{Kind: routemap.External, Name: name} }
	topic := routemap.Node{Kind: routemap.Queue, Name: "sent"}
	v.tell(&routemap.Report{Routes: []routemap.Route{
		route(service("web"), service("catalog"), 10, 500, routemap.FromStile), route(service("web"), service("catalog"), 20, 300, routemap.FromTraces),
		route(routemap.Node{Kind: routemap.Process, Name: "backupd"}, service("catalog"), 90, 0, routemap.FromStile), route(service("catalog"), external("127.0.0.1:5432"), 40, 100, routemap.FromTraces),
		route(service("web"), external("192.0.2.7:443"), 5, 0, routemap.FromStile), route(service("java"), service("web"), 6, 200, routemap.FromMetrics),
		route(service("web"), topic, 3, 50, routemap.FromStile), route(topic, service("mailer"), 2, 40, routemap.FromStile), route(service("front"), service("catalog"), 1000, 9000, routemap.FromStile),
	}}, []hub.ProcessReport{{PID: 1, Start: start, Service: "web"}, {PID: 2, Start: start, Service: "catalog"}, {PID: 7, Start: start, Service: "mailer"}, {PID: 99, Start: start, Service: "front"}})
	type told struct {
		via     string
		routes  int
		calls   uint64
		cost    int64
		sources routemap.Sources
	}
	want := []told{
		{"dear", 2, 30, 800, routemap.FromStile | routemap.FromTraces}, {"traced", 1, 6, 200, routemap.FromMetrics}, {"127.0.0.1:5432", 1, 40, 100, routemap.FromTraces},
		{"queue", 1, 2, 40, routemap.FromStile}, {"cheap", 1, 90, 0, routemap.FromStile}, {"192.0.2.7:443", 1, 5, 0, routemap.FromStile}, {"untold", 0, 0, 0, 0},
	}
	for i, e := range v.Edges {
		if got := (told{e.Via, e.Routes, e.Calls, e.Cost, e.Sources}); got != want[i] {
			t.Errorf("%+v, want %+v", got, want[i])
		}
	}
	if n := v.untold(); n != 1 {
		t.Errorf("%d ways are not told of", n)
	}
}
