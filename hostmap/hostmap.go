package hostmap

import (
	"cmp"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/stile-ipc/stile/routemap"
)

// ErrUnsupported: this system does not tell.
var ErrUnsupported = errors.New("this takes Linux")

// Process is one that has an edge.
type Process struct {
	PID    int       `json:"pid"`
	OwnPID int       `json:"ownPid"` // in its own PID namespace: as it sees itself
	Start  time.Time `json:"start"`  // with the PID: which process it is. To 10 ms, two looks may differ by as much
	Name   string    `json:"name"`
	Exe    string    `json:"exe,omitempty"` // empty: it may not be read
	UID    int       `json:"uid"`
	Cgroup string    `json:"cgroup,omitempty"`
	Netns  uint64    `json:"netns"` // inode of its network namespace
	Threads
}

// Threads is what the threads of a process have done that live: since they began, or while the host was watched.
type Threads struct {
	Voluntary   uint64        `json:"voluntarySwitches"`
	Involuntary uint64        `json:"involuntarySwitches"`
	RunQueue    time.Duration `json:"runQueue"` // ns that they were ready to run and did not
}

// End is a process, or what is not on this host.
type End struct {
	PID     int    `json:"pid,omitempty"`     // 0: it is elsewhere
	Address string `json:"address,omitempty"` // of what is elsewhere
}

// Edge is a way on which From asks To; or, where nothing tells who asks, the process with the lower number is From.
type Edge struct {
	From      End    `json:"from"`
	To        End    `json:"to"`
	Transport string `json:"transport"`     // as routes have it
	Via       string `json:"via,omitempty"` // socket's path, which is where it is now if it was bound through a descriptor, or [LocalDoor]; server's address, shared memory's name
	Count     int    `json:"count"`         // of connections, pipes or pieces of memory
	Directed  bool   `json:"directed"`      // it is known who asks
	Unread    uint64 `json:"unread"`        // bytes that came and were not read, either way; of shared memory it is not known
	Known     string `json:"known"`         // how: "sock_diag", "fd" or "maps" (the kernel's list of sockets, what is open, what is mapped in /proc)
}

// Host is what a host shows at a moment.
type Host struct {
	Boot      string    `json:"boot"`      // which host it is, since it was started: the kernel's boot ID
	Processes []Process `json:"processes"` // that have edges
	Edges     []Edge    `json:"edges"`
	Seen      int       `json:"seen"`       // processes that were looked at
	Hidden    int       `json:"hidden"`     // that may not be looked at: they are other users'
	Elsewhere int       `json:"elsewhere"`  // network namespaces whose sockets may not be looked at
	Namespace int       `json:"namespaces"` // that were
	Unasked   int       `json:"unasked"`    // pipes of which it may not be asked how full they are

	Watched  time.Duration `json:"watched,omitempty"`  // ns: for how long its sockets were; 0: they were looked at once
	Samples  int           `json:"samples,omitempty"`  // how often
	Pressure []Pressure    `json:"pressure,omitempty"` // where somebody waits
}

// Only leaves out edges that have no end in one of some processes, and processes that have no edge then.
func (h *Host) Only(these func(*Process) bool) {
	stays := map[int]bool{}
	for i := range h.Processes {
		stays[h.Processes[i].PID] = these(&h.Processes[i])
	}
	h.Edges = slices.DeleteFunc(h.Edges, func(e Edge) bool { return !stays[e.From.PID] && !stays[e.To.PID] })
	h.Pressure = slices.DeleteFunc(h.Pressure, func(p Pressure) bool { return !stays[p.From.PID] && !stays[p.To.PID] })
	h.tidy()
}

// tidy leaves out processes that have no edge.
func (h *Host) tidy() {
	has := map[int]bool{}
	for _, e := range h.Edges {
		has[e.From.PID], has[e.To.PID] = true, true
	}
	for _, p := range h.Pressure {
		has[p.From.PID], has[p.To.PID] = true, true
	}
	h.Processes = slices.DeleteFunc(h.Processes, func(p Process) bool { return !has[p.PID] })
}

// proc is what is known of a process.
type proc struct {
	Process
	sockets []uint64 // inodes
	pipes   []pipeEnd
	shares  map[string]string // names of memory that is shared, by device and inode
}

// unixSocket is a unix socket that a namespace has.
type unixSocket struct {
	inode, peer uint64 // peer 0: it has none
	name        string
	file        uint32 // number of the file that it is bound to, or its lower half; 0: none
	kind        string // transport
	unread      uint64
	listens     bool
	queue       queue
}

// tcpSocket is a TCP socket that a namespace has.
type tcpSocket struct {
	inode        uint64
	local, other netip.AddrPort
	listens      bool
	unread       uint64
	netns        uint64
	queue        queue
}

// pipeEnd is a pipe that a process has open.
type pipeEnd struct {
	inode         uint64
	fd            int
	reads, writes bool
}

// pipe is one that some can write and others can read.
type pipe struct {
	inode            uint64
	writers, readers []int   // PIDs
	at               pipeEnd // of the first who reads
	queue            queue
}

// pipesOf are those of processes, without those that one process alone has.
func pipesOf(procs []proc) []pipe {
	all := map[uint64]*pipe{}
	for _, p := range procs {
		for _, end := range p.pipes {
			of := all[end.inode]
			if of == nil {
				of = &pipe{inode: end.inode}
				all[end.inode] = of
			}
			if end.reads && !slices.Contains(of.readers, p.PID) {
				if of.readers = append(of.readers, p.PID); len(of.readers) == 1 {
					of.at = end
				}
			}
			if end.writes && !slices.Contains(of.writers, p.PID) {
				of.writers = append(of.writers, p.PID)
			}
		}
	}
	var out []pipe
	for _, of := range all {
		if joins := len(of.writers) > 0 && len(of.readers) > 0 && (len(of.writers) > 1 || len(of.readers) > 1 || of.writers[0] != of.readers[0]); joins {
			out = append(out, *of)
		}
	}
	slices.SortFunc(out, func(a, b pipe) int { return cmp.Compare(a.inode, b.inode) })
	return out
}

// key is what edges are one by.
type key struct {
	from, to       End
	transport, via string
}

// builder puts edges together.
type builder struct {
	owners map[uint64][]int // PIDs, by a socket's inode
	edges  map[key]*Edge
}

// build makes edges of what was seen.
func build(procs []proc, unix []unixSocket, tcp []tcpSocket, pipes []pipe) []Edge {
	b := builder{map[uint64][]int{}, map[key]*Edge{}}
	for _, p := range procs {
		for _, inode := range p.sockets {
			if !slices.Contains(b.owners[inode], p.PID) {
				b.owners[inode] = append(b.owners[inode], p.PID)
			}
		}
	}
	b.unix(unix)
	b.tcp(tcp)
	b.pipes(pipes)
	b.memory(procs)
	var all []Edge
	for _, e := range b.edges {
		all = append(all, *e)
	}
	slices.SortFunc(all, func(a, b Edge) int {
		return cmp.Or(cmp.Compare(a.From.PID, b.From.PID), cmp.Compare(a.From.Address, b.From.Address), cmp.Compare(a.To.PID, b.To.PID), cmp.Compare(a.To.Address, b.To.Address),
			cmp.Compare(a.Transport, b.Transport), cmp.Compare(a.Via, b.Via))
	})
	return all
}

// add counts an edge between processes, or with what is elsewhere. One of a process with itself is none.
func (b *builder) add(from, to End, transport, via string, directed bool, unread uint64) {
	if from == to {
		return
	}
	if !directed && from.PID > to.PID {
		from, to = to, from
	}
	k := key{from, to, transport, via}
	e := b.edges[k]
	if e == nil {
		e = &Edge{From: from, To: to, Transport: transport, Via: via, Directed: directed, Known: knownBy(transport)}
		b.edges[k] = e
	}
	e.Count++
	e.Unread += unread
}

// knownBy is how an edge is known.
func knownBy(transport string) string {
	switch transport {
	case routemap.Pipe:
		return "fd"
	case routemap.SHM:
		return "maps"
	}
	return "sock_diag"
}

// LocalDoor is what a local door is called whose path is not known: it is not in its folder any more, or its process may not be looked at.
const LocalDoor = "a local door"

// Unseen is the address of a process of this host that may not be looked at.
const Unseen = "?"

// join counts an edge between those who have two sockets.
func (b *builder) join(client, server uint64, transport, via string, directed bool, unread uint64) {
	clients, servers := b.owners[client], b.owners[server]
	for _, from := range clients {
		for _, to := range servers {
			b.add(End{PID: from}, End{PID: to}, transport, via, directed, unread)
		}
		if len(servers) == 0 {
			b.add(End{PID: from}, End{Address: Unseen}, transport, via, directed, unread)
		}
	}
	for _, to := range servers {
		if len(clients) == 0 {
			b.add(End{Address: Unseen}, End{PID: to}, transport, via, directed, unread)
		}
	}
}

// unix joins the two ends of connections. The one that has a name was accepted by who listens there.
func (b *builder) unix(all []unixSocket) {
	byInode := map[uint64]unixSocket{}
	for _, s := range all {
		byInode[s.inode] = s
	}
	for _, s := range all {
		if s.listens {
			continue
		}
		p, known := byInode[s.peer]
		if s.peer != 0 && !known { // it is in a namespace that may not be looked at
			if s.name != "" {
				b.join(s.peer, s.inode, s.kind, s.name, true, s.unread)
			} else {
				b.join(s.inode, s.peer, s.kind, "", false, s.unread)
			}
			continue
		}
		if s.peer == 0 || p.peer != s.inode && p.peer != 0 || p.peer == s.inode && s.inode > p.inode {
			continue
		}
		client, server, directed := s, p, true
		switch {
		case s.name != "" && p.name == "":
			client, server = p, s
		case s.name == "" && p.name == "":
			directed = false
		}
		b.join(client.inode, server.inode, s.kind, server.name, directed, s.unread+p.unread)
	}
}

// tcp joins the two ends of connections that are both on this host.
func (b *builder) tcp(all []tcpSocket) {
	type pair struct{ local, other netip.AddrPort }
	type port struct {
		netns uint64
		port  uint16
	}
	ends, listens := map[pair]tcpSocket{}, map[port]bool{}
	for _, s := range all {
		if s.listens {
			listens[port{s.netns, s.local.Port()}] = true
		} else {
			ends[pair{s.local, s.other}] = s
		}
	}
	for _, s := range all {
		if s.listens {
			continue
		}
		serves := listens[port{s.netns, s.local.Port()}]
		peer, here := ends[pair{s.other, s.local}]
		if here {
			peerServes := listens[port{peer.netns, peer.local.Port()}]
			if serves && !peerServes || serves == peerServes && s.local.Port() < peer.local.Port() {
				continue // it is found from its other end
			}
			transport := routemap.TCPLoopback
			if s.netns != peer.netns {
				transport = routemap.TCP
			}
			b.join(s.inode, peer.inode, transport, peer.local.String(), peerServes, s.unread+peer.unread)
			continue
		}
		for _, owner := range b.owners[s.inode] {
			if serves {
				b.add(End{Address: s.other.Addr().String()}, End{PID: owner}, routemap.TCP, s.local.String(), true, s.unread)
			} else {
				b.add(End{PID: owner}, End{Address: s.other.String()}, routemap.TCP, s.other.String(), true, s.unread)
			}
		}
	}
}

// pipes go from who can write to who can read.
func (b *builder) pipes(all []pipe) {
	for _, p := range all {
		for _, from := range p.writers {
			for _, to := range p.readers {
				b.add(End{PID: from}, End{PID: to}, routemap.Pipe, "", true, p.queue.sent)
			}
		}
	}
}

// maxSharers is how many processes with one piece of memory are told in pairs: of more, it is a file that all have.
const maxSharers = 16

func (b *builder) memory(procs []proc) {
	type piece struct {
		name string
		pids []int
	}
	pieces := map[string]*piece{}
	for _, p := range procs {
		for id, name := range p.shares {
			if pieces[id] == nil {
				pieces[id] = &piece{name: name}
			}
			pieces[id].pids = append(pieces[id].pids, p.PID)
		}
	}
	for _, one := range pieces {
		if len(one.pids) > maxSharers {
			continue
		}
		for i, a := range one.pids {
			for _, c := range one.pids[i+1:] {
				from, to, directed := b.asks(a, c)
				b.add(End{PID: from}, End{PID: to}, routemap.SHM, one.name, directed, 0)
			}
		}
	}
}

// asks tells which of two processes asks the other, if a socket between them does.
func (b *builder) asks(x, y int) (from, to int, directed bool) {
	forth, back := false, false
	for k, e := range b.edges {
		if e.Directed && k.transport == routemap.UnixStream {
			forth = forth || k.from.PID == x && k.to.PID == y
			back = back || k.from.PID == y && k.to.PID == x
		}
	}
	switch {
	case forth && !back:
		return x, y, true
	case back && !forth:
		return y, x, true
	}
	return x, y, false
}
