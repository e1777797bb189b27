package stile

import (
	"cmp"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/stile-ipc/stile/telemetry"
	"github.com/stile-ipc/stile/transport"
	"github.com/stile-ipc/stile/transport/shm"
)

// Connection tells what one end of a local connection is and has done. Its counts
// are of this end, since it was made; those of connections over unix sockets are not
// kept and are 0.
type Connection struct {
	Role      string    `json:"role"`      // "client" or "server": what this process is
	Address   string    `json:"address"`   // of the server's listener
	Transport string    `json:"transport"` // "shm" or "unix"
	PeerPID   int       `json:"peer_pid"`  // as in [AuthInfo]
	Since     time.Time `json:"since"`

	FramesIn  uint64 `json:"frames_in"`
	FramesOut uint64 `json:"frames_out"`
	BytesIn   uint64 `json:"bytes_in"` // payloads
	BytesOut  uint64 `json:"bytes_out"`
	Doorbells uint64 `json:"doorbells"` // times the peer was woken, a system call each
	Parks     uint64 `json:"parks"`     // times this end went to sleep
	Polls     uint64 `json:"polls"`     // times a caller received on its own goroutine
	// Spin is the time this end spent waiting without sleep, whether it paid or not.
	Spin time.Duration `json:"spin_ns"`
}

// Connections lists the local connections of this process that are open, clients' and
// servers', by age. It may be called at any time; to publish them beside other
// variables:
//
//	expvar.Publish("stile", expvar.Func(func() any { return stile.Connections() }))
func Connections() []Connection {
	list := slices.Collect(maps.Values(live.snapshot()))
	slices.SortFunc(list, func(a, b Connection) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Role, b.Role))
	})
	return list
}

// live are the open connections of this process.
var live register

// register holds what is fixed of each connection.
type register struct {
	mu   sync.Mutex
	list map[transport.Conn]Connection
	open map[transport.Conn]openCalls // of those that are counted
}

// openCalls tells how many calls a connection has now, and calls each, if it is not nil, with the routes of those of which it is known.
type openCalls func(each func(*telemetry.Route)) int

// opensOf tells of the calls in a connection's table, which mu guards. routeOf is where a call counts; nil: it is not known.
func opensOf[S any](link *telemetry.Link, mu *sync.Mutex, calls *table[S], routeOf func(*S) *telemetry.Route) openCalls {
	if link == nil { // they are not counted
		return nil
	}
	link.TellsOpen()
	return func(each func(*telemetry.Route)) int {
		mu.Lock()
		defer mu.Unlock()
		if each != nil {
			calls.all(func(_ uint64, s *S) {
				if r := routeOf(s); r != nil {
					each(r)
				}
			})
		}
		return calls.size
	}
}

// add adds a connection. open is nil if its calls are not counted.
func (r *register) add(conn transport.Conn, role string, server net.Addr, open openCalls) {
	info := conn.Info()
	c := Connection{Role: role, Address: server.String(), Transport: info.Transport, PeerPID: -1, Since: time.Now()}
	if info.Peer.Known {
		c.PeerPID = info.Peer.PID
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.list == nil {
		r.list, r.open = make(map[transport.Conn]Connection), make(map[transport.Conn]openCalls)
	}
	r.list[conn] = c
	if open != nil {
		r.open[conn] = open
	}
}

func (r *register) drop(conn transport.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.list, conn)
	delete(r.open, conn)
}

// inFlight is how many calls are open now that are counted, by who made and who serves them, and on how many connections. It calls each as openCalls does.
func (r *register) inFlight(each func(*telemetry.Route)) (made, served, connections int) {
	r.mu.Lock()
	clients, servers := make([]openCalls, 0, len(r.open)), []openCalls(nil)
	for conn, open := range r.open {
		if r.list[conn].Role == "client" {
			clients = append(clients, open)
		} else {
			servers = append(servers, open)
		}
	}
	r.mu.Unlock() // a connection's lock is never taken under this one
	for _, open := range clients {
		made += open(each)
	}
	for _, open := range servers {
		served += open(each)
	}
	return made, served, len(clients) + len(servers)
}

// counts is a connection that keeps them.
type counts interface{ Stats() shm.Stats }

// snapshot returns the connections with their counts.
func (r *register) snapshot() map[transport.Conn]Connection {
	r.mu.Lock()
	list := maps.Clone(r.list)
	r.mu.Unlock()
	for conn, c := range list {
		counted, ok := conn.(counts)
		if !ok {
			continue
		}
		s := counted.Stats()
		c.FramesIn, c.FramesOut, c.BytesIn, c.BytesOut = s.FramesIn, s.FramesOut, s.BytesIn, s.BytesOut
		c.Doorbells, c.Parks, c.Polls, c.Spin = s.Doorbells, s.Parks, s.Polls, s.Spin
		list[conn] = c
	}
	return list
}
