package stile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"

	"github.com/stile-ipc/stile/transport"
	"github.com/stile-ipc/stile/transport/local"
)

// bytesPrefix keeps doors for bytes apart from doors for calls at the same address.
const bytesPrefix = "bytes-"

func byteKeys(keys []local.Key) []local.Key {
	out := make([]local.Key, len(keys))
	for i, k := range keys {
		out[i] = bytesPrefix + k
	}
	return out
}

// Listen listens at addr as [net.Listen] does, and beside it at a local door through
// which a [Dialer] on this host reaches it by shared memory. addr is the path of a
// unix socket, which has a slash or begins with "@" or "unix:", or a TCP address
// with host and port. Accept gives connections of both kinds; those through the door
// have CloseWrite, deadlines and half-close too, and their data arrives in order and
// without loss while the peer lives.
//
// It serves protocols other than gRPC: net/http, ttrpc, Redis. Services of
// grpc-go are faster through [NewServer].
//
// Where no door can be had, which is logged once, the listener works without.
func Listen(addr string) (net.Listener, error) {
	network, address := splitAddr(addr)
	lis, err := net.Listen(network, address)
	if err != nil || off() {
		return lis, err
	}
	door, err := openByteDoor(lis)
	if err != nil {
		slog.Warn("stile: no local door beside the listener", "address", lis.Addr().String(), "error", err)
		return lis, nil
	}
	l := &byteListener{
		Listener: lis, door: door, accepted: make(chan net.Conn),
		failed: make(chan error), done: make(chan struct{}),
	}
	l.loops.Go(l.acceptOutside)
	l.loops.Go(l.acceptLocal)
	return l, nil
}

// splitAddr tells the network of an address.
func splitAddr(addr string) (network, address string) {
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		return "unix", strings.TrimPrefix(path, "//")
	}
	if strings.HasPrefix(addr, "@") || strings.ContainsRune(addr, '/') {
		return "unix", addr
	}
	return "tcp", strings.TrimPrefix(addr, "tcp:")
}

func openByteDoor(lis net.Listener) (transport.Listener, error) {
	heedLimit()
	keys, err := local.KeysForListener(lis)
	if err != nil {
		return nil, err
	}
	return local.Listen(local.ListenConfig{Keys: byteKeys(keys), NoSHM: socketsOnly()})
}

// byteListener is a listener with a local door.
type byteListener struct {
	net.Listener
	door     transport.Listener
	accepted chan net.Conn
	failed   chan error // of the listener itself
	done     chan struct{}
	once     sync.Once
	loops    sync.WaitGroup
}

// acceptOutside hands on what the listener itself accepts, and its errors, after which
// it goes on: they may be temporary, and each Accept is to see one that is not.
func (l *byteListener) acceptOutside() {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			select {
			case l.failed <- err:
			case <-l.done:
				return
			}
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		l.hand(c)
	}
}

func (l *byteListener) acceptLocal() {
	for {
		c, err := l.door.Accept()
		if err != nil {
			return // closed
		}
		l.hand(newByteConn(c, "server", l.Addr(), nearOf(l.Addr())))
	}
}

func (l *byteListener) hand(c net.Conn) {
	select {
	case l.accepted <- c:
	case <-l.done:
		_ = c.Close()
	}
}

// Accept implements [net.Listener].
func (l *byteListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.accepted:
		return c, nil
	case err := <-l.failed:
		return nil, err
	case <-l.done:
		return nil, &net.OpError{Op: "accept", Net: l.Addr().Network(), Addr: l.Addr(), Err: net.ErrClosed}
	}
}

// Close implements [net.Listener]. Accepted connections go on.
func (l *byteListener) Close() error {
	err := error(&net.OpError{Op: "close", Net: l.Addr().Network(), Addr: l.Addr(), Err: net.ErrClosed})
	l.once.Do(func() {
		close(l.done)
		err = errors.Join(l.Listener.Close(), l.door.Close())
		l.loops.Wait()
	})
	return err
}

// Dialer connects to what [Listen] serves: through shared memory where there is a local
// door at the address, else with net.Dialer. The zero value is ready. Its methods
// have the shapes that other libraries ask for, such as http.Transport.DialContext.
type Dialer struct {
	net.Dialer        // used where there is no local door
	Dir        string // folder of the local doors; empty: as STILE_DIR says, or the usual ones
	AllowUIDs  []int  // uids trusted as servers besides the own one; needs Dir
}

// Dial connects to address on the named network.
func (d *Dialer) Dial(network, address string) (net.Conn, error) {
	return d.DialContext(context.Background(), network, address)
}

// DialContext connects to address on the named network, "tcp" or "unix" for a door.
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if !off() {
		for _, a := range d.addresses(ctx, network, address) {
			if c, err := d.knock(ctx, a); err == nil {
				return c, nil
			}
			if ctx.Err() != nil {
				break
			}
		}
	}
	return d.Dialer.DialContext(ctx, network, address)
}

// addresses resolves an address; what cannot be resolved is net.Dialer's to report.
func (d *Dialer) addresses(ctx context.Context, network, address string) (out []net.Addr) {
	switch network {
	case "unix":
		return []net.Addr{&net.UnixAddr{Net: "unix", Name: address}}
	case "tcp", "tcp4", "tcp6":
	default:
		return nil
	}
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return nil
	}
	if host == "" {
		host = "localhost"
	}
	r := d.Resolver
	if r == nil {
		r = net.DefaultResolver
	}
	port, err := r.LookupPort(ctx, network, service)
	if err != nil {
		return nil
	}
	ips, err := r.LookupNetIP(ctx, "ip"+network[3:], host)
	if err != nil {
		return nil
	}
	for _, ip := range ips {
		ip = ip.Unmap()
		out = append(out, &net.TCPAddr{IP: ip.AsSlice(), Port: port, Zone: ip.Zone()})
	}
	return out
}

func (d *Dialer) knock(ctx context.Context, a net.Addr) (net.Conn, error) {
	key, err := local.KeyOf(a)
	if err != nil {
		return nil, fmt.Errorf("stile: dial %v: %w", a, err)
	}
	heedLimit()
	cfg := local.DialConfig{Dir: d.Dir, AllowUIDs: d.AllowUIDs, NoSHM: socketsOnly()}
	conn, _, err := local.Dial(ctx, bytesPrefix+key, cfg)
	if err != nil {
		return nil, fmt.Errorf("stile: dial %v: %w", a, err)
	}
	return newByteConn(conn, "client", nearOf(a), a), nil
}
