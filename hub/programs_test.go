package hub

import (
	"crypto/sha256"
	"fmt"
	"testing"
	"time"

	"github.com/stile-ipc/stile/hub/hubpb"
	"github.com/stile-ipc/stile/internal/usage"
	"github.com/stile-ipc/stile/routemap"
)

// silentCalls is what a server tells of a client.
func silentCalls(client, pid uint64) *hubpb.Route {
	r := calls(hubpb.Side_SIDE_SERVER, "/s.S/M", nil, "x", 5)
	r.Peer, r.PeerPid = randomID(client), int64(pid)
	return r
}

// randomID is an identity that is always the same for a number.
func randomID(n uint64) []byte {
	sum := sha256.Sum256(id(n, 16))
	return sum[:16]
}

// TestSilentClients: clients that do not report are one node for each host, whatever numbers they have; how many they are is known. They are no more routes the more there are of them, nor in what
// Prometheus is told.
func TestSilentClients(t *testing.T) {
	now := time.Unix(1e9, 0)
	a := newAgents(func() time.Time { return now })
	servers := []*hubpb.Process{
		{Identity: id(1, 16), Service: "back", Boot: usage.Boot(), Host: "here", Pid: 10}, {Identity: id(2, 16), Service: "contained", Boot: usage.Boot(), Host: "3f9a0c", Pid: 1},
		{Identity: id(3, 16), Service: "back", Boot: "b", Host: "b", Pid: 10}, {Identity: id(4, 16), Service: "store", Boot: "c", Host: "c", Pid: 10},
	}
	all := &totals{}
	whole := routemap.New()
	const windows, each = 60, 10
	for w := range uint64(windows) {
		for i, p := range servers {
			var routes []*hubpb.Route
			for j := range uint64(each) {
				// The same numbers on all hosts, none for a client in another PID namespace; a process of its own for each call.
				routes = append(routes, silentCalls(1000+(uint64(i)*windows+w)*each+j, w*each+j%3))
			}
			if _, _, err := a.take(&hubpb.ReportRequest{Process: p, Hub: a.self[:], Sequence: w + 1, Routes: routes}, 0); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 { // as they wait for a window
			m := routemap.New()
			a.draw(m, now, false)
			all.add(m, now)
			whole.Merge(m)
			now = now.Add(10 * time.Second)
		}
	}
	got := map[string]uint64{}
	r := whole.Report()
	for _, route := range r.Routes {
		got[route.Key.String()] = route.Calls
	}
	const n = windows * each * 5
	if want := map[string]uint64{"process unknown → back s.S/M": n, "process unknown → contained s.S/M": n, "process unknown on b → back s.S/M": n, "process unknown on c → store s.S/M": n}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v\nwant %v", got, want)
	}
	if s, _ := all.status(); s.Routes != len(got) {
		t.Errorf("%+v", s)
	}
	for _, one := range r.Nodes {
		want := map[string]float64{"unknown": 2 * windows * each, "unknown on b": windows * each, "unknown on c": windows * each}[one.Name]
		if off := float64(one.Processes) - want; off > 0.25*want || off < -0.25*want {
			t.Errorf("%s is %d processes, not %g", one.Node, one.Processes, want)
		}
	}
}

// TestProgramsBounded: programs are forgotten with their processes, and no more are looked at than there is room for.
func TestProgramsBounded(t *testing.T) {
	now := time.Unix(1e9, 0)
	a := newAgents(func() time.Time { return now })
	r := &hubpb.ReportRequest{}
	for i := range uint64(2 * maxLooks) {
		r.Routes = append(r.Routes, silentCalls(1000+i, 1+i), silentCalls(1000+i, 1+i))
	}
	a.processes[identity(randomID(1000))] = &process{}
	if all := a.unseen(r); len(all) != maxLooks || all[identity(randomID(1000))] != 0 {
		t.Errorf("%d are looked at", len(all))
	}
	for i := range uint64(maxPrograms) {
		a.programs[identity(randomID(1_000_000+i))] = program{"x", now}
	}
	if all := a.unseen(r); len(all) != 0 {
		t.Errorf("%d are looked at", len(all))
	}
	now = now.Add(processGoneAfter)
	a.unseen(&hubpb.ReportRequest{Routes: []*hubpb.Route{silentCalls(1_000_000, 1)}})
	now = now.Add(time.Second)
	if names := a.programsLocked(now); len(names) != 1 || len(a.programs) != 1 || names[identity(randomID(1_000_000))] != "x" {
		t.Errorf("%d programs, %v", len(a.programs), names)
	}
}
