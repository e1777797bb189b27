package stile

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"

	"github.com/stile-ipc/stile/policy"
	"github.com/stile-ipc/stile/telemetry"
	"github.com/stile-ipc/stile/transport"
	"github.com/stile-ipc/stile/transport/local"
)

// door is the local side of a server: the rendezvous beside each listener, the
// connections that came through them and the services behind.
type door struct {
	set     serverSettings
	own     ownServerOptions
	log     *slog.Logger
	methods methodTable
	workers workers
	full    func(ctx context.Context, method string) error // of the policy; nil: none
	server  *grpc.Server                                   // whose door it is, for those who look it up

	mu        sync.Mutex
	listeners map[transport.Listener]struct{}
	conns     map[*serverConn]struct{}
	state     doorState
	accepting sync.WaitGroup // accept loops
	handlers  sync.WaitGroup // running handlers

	breaches atomic.Int64 // connections ended because the client broke the protocol
}

type doorState int

const (
	doorOpen doorState = iota
	doorDraining
	doorStopped
)

func newDoor(s *grpc.Server, set serverSettings, table serviceTable, own ownServerOptions) *door {
	d := &door{
		server: s, set: set, own: own, log: own.logger, methods: newMethodTable(table),
		listeners: map[transport.Listener]struct{}{}, conns: map[*serverConn]struct{}{},
	}
	if d.log == nil {
		d.log = slog.Default()
	}
	d.own.recorder = telemetry.Process()
	reportByEnvironment()
	if own.policy != nil {
		d.full = policy.Full(own.policy)
	}
	if err := d.methods.mark(own.nonBlocking); err != nil {
		d.log.Warn("stile: NonBlocking names what the server does not have", "error", err)
	}
	return d
}

// open publishes the rendezvous beside lis and accepts there. The result closes
// it again. A door that cannot open is said in the log: the listener serves on.
func (d *door) open(lis net.Listener) func() {
	keys, err := local.KeysForListener(lis)
	if errors.Is(err, local.ErrAddress) || errors.Is(err, local.ErrUnsupported) {
		return func() {} // no address a client could look for
	}
	heedLimit()
	shut := strings.Join(d.set.shut, "; ")
	var l transport.Listener
	if err == nil {
		l, err = local.Listen(local.ListenConfig{
			Dir: d.own.dir, Keys: keys, AllowUIDs: d.own.allowUIDs, Logger: d.log,
			NoSHM: d.own.noSharedMemory || socketsOnly(), Shut: shut,
			Settings: settings{maxStreams: d.set.maxStreams, maxHeaderList: d.headerList(), process: telemetry.Self, readsTraces: true}.encode(),
		})
	}
	if shut != "" {
		d.log.Info("stile: the local door stays shut, calls are plain gRPC", "address", lis.Addr().String(), "reason", shut)
	}
	if err != nil {
		d.log.Warn("stile: no local door beside the listener, calls are plain gRPC", "address", lis.Addr().String(), "error", err)
		return func() {}
	}
	if !d.add(l) {
		_ = l.Close()
		return func() {}
	}
	go d.accept(l, lis.Addr())
	return func() { d.remove(l) }
}

func (d *door) headerList() uint32 {
	if d.set.maxHeaderList > 0 {
		return d.set.maxHeaderList
	}
	return defaultHeaderList
}

func (d *door) add(l transport.Listener) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.state != doorOpen {
		return false
	}
	d.listeners[l] = struct{}{}
	d.accepting.Add(1)
	return true
}

func (d *door) remove(l transport.Listener) {
	d.mu.Lock()
	_, ours := d.listeners[l]
	delete(d.listeners, l)
	d.mu.Unlock()
	if ours { // else it is being stopped
		_ = l.Close()
	}
}

func (d *door) accept(l transport.Listener, addr net.Addr) {
	defer d.accepting.Done()
	for {
		conn, err := l.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				d.log.Warn("stile: the local door closed", "error", err)
			}
			return
		}
		c := newServerConn(d, conn, addr)
		d.mu.Lock()
		late := d.state == doorStopped
		if !late {
			d.conns[c] = struct{}{} // also while draining: the client may have sent a call
		}
		d.mu.Unlock()
		c.start()
		if late {
			_ = conn.Close()
		}
	}
}

// forget drops a connection that ended.
func (d *door) forget(c *serverConn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.conns, c)
}

// broke takes note of a connection whose client broke the protocol. The log has
// the first alone: a hostile client can come back as often as it likes.
func (d *door) broke(c *serverConn, cause error) {
	if d.breaches.Add(1) > 1 {
		return
	}
	p := c.conn.Info().Peer
	d.log.Warn("stile: a local client broke the protocol and was cut off; further ones are only counted",
		"error", cause, "pid", p.PID, "uid", p.UID)
}

// enter moves to a later state and returns the listeners to shut.
func (d *door) enter(state doorState) []transport.Listener {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.state = max(d.state, state)
	listeners := slices.Collect(maps.Keys(d.listeners))
	clear(d.listeners)
	return listeners
}

func (d *door) connections() []*serverConn {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Collect(maps.Keys(d.conns))
}

// gracefulStop takes no new connections, asks clients to make no new calls, and
// returns when all calls have ended. stop may cut it short.
func (d *door) gracefulStop() {
	for _, l := range d.enter(doorDraining) {
		if g, ok := l.(interface{ Drain() }); ok {
			g.Drain()
		} else {
			_ = l.Close()
		}
	}
	d.accepting.Wait()
	conns := d.connections()
	for _, c := range conns {
		c.drain()
	}
	for _, c := range conns {
		c.waitDrained()
		_ = c.conn.Close()
	}
	d.stop()
	d.handlers.Wait()
}

// stop ends every connection, and so every call, at once.
func (d *door) stop() {
	for _, l := range d.enter(doorStopped) {
		_ = l.Close()
	}
	d.accepting.Wait()
	conns := d.connections()
	for _, c := range conns {
		c.conn.Fail(transport.ErrClosed)
	}
	for _, c := range conns {
		_ = c.conn.Close()
	}
	if d.set.waitForHandlers {
		d.handlers.Wait()
	}
	d.workers.close()
}
