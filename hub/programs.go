package hub

import (
	"cmp"
	"context"
	"encoding/binary"
	"time"

	"google.golang.org/grpc/peer"

	"github.com/stile-ipc/stile"
	"github.com/stile-ipc/stile/hub/hubpb"
	"github.com/stile-ipc/stile/routemap"
)

const (
	maxPrograms   = maxProcesses // whose programs are known, of those that do not report
	maxLooks      = 1_000        // at such processes, for a report: each costs 20 to 50 µs
	unknownClient = "unknown"
)

// program is what a process runs that does not report.
type program struct {
	name string
	seen time.Time // a server told of it
}

// pidOf is the process at the other end of a call that came through Stile's door, as the hub's kernel numbers it; 0: it is not known, or in a PID namespace that the hub does not see.
func pidOf(ctx context.Context) int64 {
	p, _ := peer.FromContext(ctx)
	if p == nil {
		return 0
	}
	info, _ := p.AuthInfo.(stile.AuthInfo)
	return int64(max(info.PID, 0))
}

// see looks which programs the clients run of which a server tells by their numbers, and which do not report, while they are there. Numbers mean the same to both if the hub's kernel numbers
// the server as the server does itself.
func (a *agents) see(r *hubpb.ReportRequest, server int64) {
	if server == 0 || server != r.GetProcess().GetPid() {
		return
	}
	until := time.Unix(0, r.GetToUnixNano())
	for id, pid := range a.unseen(r) {
		if name := programOf(pid, until); name != "" {
			a.mu.Lock()
			a.programs[id] = program{name, a.clock()}
			a.mu.Unlock()
		}
	}
}

// unseen are the clients of which a server tells, which do not report, and of whose programs nothing is known: by identity, their numbers.
func (a *agents) unseen(r *hubpb.ReportRequest) map[identity]int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := map[identity]int64{}
	for _, route := range r.GetRoutes() {
		if route.GetSide() != hubpb.Side_SIDE_SERVER || len(route.GetPeer()) != len(identity{}) || route.GetPeerPid() <= 0 {
			continue
		}
		id := identity(route.GetPeer())
		if p, known := a.programs[id]; known {
			p.seen = a.clock()
			a.programs[id] = p
		} else if a.processes[id] == nil && len(out) < maxLooks && len(a.programs)+len(out) < maxPrograms {
			out[id] = route.GetPeerPid()
		}
	}
	return out
}

// programsLocked returns the names of programs, but for those of which nobody has told for long.
func (a *agents) programsLocked(now time.Time) map[identity]string {
	names := make(map[identity]string, len(a.programs))
	for id, p := range a.programs {
		if now.Sub(p.seen) > processGoneAfter {
			delete(a.programs, id)
			continue
		}
		names[id] = p.name
	}
	return names
}

// silent is the node of a client that does not report, and of which its server tells: the program, where the hub sees it, as it would be called if it did report. Others are one for each host
// but the hub's, which is not named: a process's number means nothing elsewhere, in other PID namespaces, or later.
func (n *names) silent(server *hubpb.Process, client []byte) routemap.Node {
	node := routemap.Node{Kind: routemap.Process, Name: unknownClient}
	if len(client) == len(identity{}) {
		node.Name = cmp.Or(n.programs[identity(client)], unknownClient)
	}
	if server.GetBoot() != n.boot {
		node.Name += " on " + cmp.Or(server.GetHost(), "another host")
	}
	return node
}

// note notes a client that a node stands for.
func (n *names) note(node routemap.Node, client []byte) {
	if len(client) == len(identity{}) {
		n.drawn.Seen(node, binary.BigEndian.Uint64(client)) // identities are random
	}
}
