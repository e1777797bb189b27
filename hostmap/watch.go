package hostmap

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/stile-ipc/stile/routemap"
)

// When who waits at a socket is told of.
const (
	fullFrom     = 0.9 // of a send buffer
	fullShare    = 0.1 // of samples
	limitedShare = 0.1 // of the time that a connection was busy
	busyShare    = 0.01
	backlogShare = 0.05 // of samples
	deepFrom     = 0.8  // of a send buffer, or of a backlog's limit
	deepShare    = 0.05
)

// queue is how full a socket is.
type queue struct {
	sent, buffer   uint64        // bytes, with what the kernel needs for them
	backlog, limit uint64        // connections, of one who listens
	busy, limited  time.Duration // since the connection began: had something to send, and could not as its peer had no room
}

// Pressure is where From waits for To, or may: at sockets of which one says so. Of who waits to be accepted it is not known who it is.
type Pressure struct {
	From      End    `json:"from"`
	To        End    `json:"to"`
	Transport string `json:"transport"`
	Via       string `json:"via,omitempty"`

	Samples int           `json:"samples"` // in which there was such a socket
	Full    int           `json:"full"`    // of them, those in which a send queue had 0.9 of its buffer or more
	Deep    int           `json:"deep"`    // 0.8, or a backlog of its limit
	Backlog int           `json:"backlog"` // those in which somebody waited to be accepted
	Most    float64       `json:"most"`    // how full a send queue or a backlog was, at most
	Busy    time.Duration `json:"busy"`    // ns that connections had something to send
	Limited time.Duration `json:"limited"` // of it, ns in which their peer had no room

	Blocking     bool `json:"blocking"` // it is a blocking point
	Backpressure bool `json:"backpressure"`
}

// watch puts samples of sockets together. It is not safe for concurrent use.
type watch struct {
	samples int
	ways    map[key]*Pressure
	seen    map[uint64]times // TCP's, by inode
	owners  map[uint64][]int
	nobody  map[uint64]bool // sockets whose owner was looked for, and not found
	wanting bool            // one has come since
}

type times struct{ busy, limited time.Duration }

func newWatch() *watch {
	return &watch{ways: map[key]*Pressure{}, seen: map[uint64]times{}, owners: map[uint64][]int{}, nobody: map[uint64]bool{}}
}

// know takes in who has which sockets.
func (w *watch) know(procs []proc) {
	w.wanting = false
	for _, p := range procs {
		for _, inode := range p.sockets {
			if !slices.Contains(w.owners[inode], p.PID) {
				w.owners[inode] = append(w.owners[inode], p.PID)
			}
		}
	}
}

// end is who has a socket: the first of them, for those that follow have it from that one; or what is said of it.
func (w *watch) end(inode uint64, otherwise string) End {
	if all := w.owners[inode]; len(all) > 0 {
		return End{PID: slices.Min(all)}
	}
	if inode != 0 && !w.nobody[inode] { // one that nobody has accepted has no inode
		w.nobody[inode], w.wanting = true, true
	}
	return End{Address: otherwise}
}

// sight is a socket in a sample: From waits there for To.
type sight struct {
	from, to       End
	transport, via string
	inode          uint64
	queue          queue
}

// sample takes in what there is at a moment.
func (w *watch) sample(unix []unixSocket, tcp []tcpSocket, pipes []pipe) {
	w.samples++
	now := map[key]*Pressure{} // of this sample
	for _, s := range slices.Concat(w.unix(unix), w.tcp(tcp), sightsOf(pipes)) {
		if s.from == s.to {
			continue
		}
		k := key{s.from, s.to, s.transport, s.via}
		if now[k] == nil {
			now[k] = &Pressure{}
		}
		now[k].look(s.queue)
		was, known := w.seen[s.inode]
		if !known || s.inode == 0 {
			was = times{s.queue.busy, s.queue.limited}
		}
		now[k].Busy += max(s.queue.busy-was.busy, 0)
		now[k].Limited += max(s.queue.limited-was.limited, 0)
		w.seen[s.inode] = times{s.queue.busy, s.queue.limited}
	}
	for k, p := range now {
		w.at(k).add(p)
	}
}

// look notes how full a socket is, in one sample.
func (p *Pressure) look(q queue) {
	share := 0.0
	if q.buffer > 0 {
		share = float64(q.sent) / float64(q.buffer)
		if share >= fullFrom {
			p.Full = 1
		}
	}
	if q.backlog > 0 {
		p.Backlog = 1
		share = max(share, float64(q.backlog)/float64(max(q.limit, 1)))
	}
	if share >= deepFrom {
		p.Deep = 1
	}
	p.Most = max(p.Most, share)
}

func (p *Pressure) add(o *Pressure) {
	p.Samples++
	p.Full, p.Deep, p.Backlog, p.Most = p.Full+o.Full, p.Deep+o.Deep, p.Backlog+o.Backlog, max(p.Most, o.Most)
	p.Busy, p.Limited = p.Busy+o.Busy, p.Limited+o.Limited
}

// pressures are the ways on which somebody waits, as it is defined; the blocking points first.
func (w *watch) pressures(took time.Duration) []Pressure {
	all := []Pressure{}
	n := float64(w.samples)
	for _, p := range w.ways {
		p.Blocking = float64(p.Full) >= fullShare*n && p.Full > 0 || float64(p.Backlog) >= backlogShare*n && p.Backlog > 0 ||
			p.Limited > 0 && float64(p.Limited) >= limitedShare*float64(p.Busy) && float64(p.Busy) >= busyShare*float64(took)
		p.Backpressure = p.Deep > 0 && float64(p.Deep) >= deepShare*n
		if p.Blocking || p.Backpressure {
			all = append(all, *p)
		}
	}
	slices.SortFunc(all, func(a, b Pressure) int {
		return cmp.Or(-compare(a.Blocking, b.Blocking), cmp.Compare(max(b.Full, b.Backlog), max(a.Full, a.Backlog)), cmp.Compare(b.Deep, a.Deep), cmp.Compare(b.Limited, a.Limited),
			cmp.Compare(a.From.PID, b.From.PID), cmp.Compare(a.To.PID, b.To.PID), cmp.Compare(a.Via, b.Via))
	})
	return all
}

func compare(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

func (w *watch) at(k key) *Pressure {
	p := w.ways[k]
	if p == nil {
		p = &Pressure{From: k.from, To: k.to, Transport: k.transport, Via: k.via}
		w.ways[k] = p
	}
	return p
}

// sightsOf are pipes, of which the first who writes waits for the first who reads: those that follow have it from these.
func sightsOf(all []pipe) (out []sight) {
	for _, p := range all {
		out = append(out, sight{End{PID: slices.Min(p.writers)}, End{PID: slices.Min(p.readers)}, routemap.Pipe, "", 0, p.queue})
	}
	return out
}

func (w *watch) unix(all []unixSocket) (out []sight) {
	byInode := map[uint64]unixSocket{}
	for _, s := range all {
		byInode[s.inode] = s
	}
	for _, s := range all {
		if s.listens {
			out = append(out, sight{End{Address: Clients}, w.end(s.inode, Unseen), s.kind, s.name, s.inode, s.queue})
			continue
		}
		if peer, is := byInode[s.peer]; is && s.peer != 0 {
			out = append(out, sight{w.end(s.inode, Unseen), w.end(peer.inode, Unseen), s.kind, cmp.Or(peer.name, s.name), s.inode, s.queue})
		}
	}
	return out
}

func (w *watch) tcp(all []tcpSocket) (out []sight) {
	type pair struct{ local, other netip.AddrPort }
	ends, listens := map[pair]tcpSocket{}, map[uint16]uint64{}
	for _, s := range all {
		if s.listens {
			listens[s.local.Port()] = s.inode
		} else {
			ends[pair{s.local, s.other}] = s
		}
	}
	for _, s := range all {
		if s.listens {
			out = append(out, sight{End{Address: Clients}, w.end(s.inode, Unseen), routemap.TCP, s.local.String(), s.inode, s.queue})
			continue
		}
		one := sight{w.end(s.inode, Unseen), End{Address: s.other.String()}, routemap.TCP, s.other.String(), s.inode, s.queue}
		if _, serves := listens[s.local.Port()]; serves {
			one.via = s.local.String()
			one.to.Address = s.other.Addr().String()
		}
		if peer, here := ends[pair{s.other, s.local}]; here {
			one.to = w.end(cmp.Or(peer.inode, listens[peer.local.Port()]), Unseen)
			if peer.netns == s.netns {
				one.transport = routemap.TCPLoopback
			}
		}
		out = append(out, one)
	}
	return out
}

// Clients is the address of those who wait to be accepted: the kernel does not tell who they are.
const Clients = "clients"
