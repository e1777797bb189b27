package inproc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"

	"github.com/stile-ipc/stile/transport"
)

// Transport connects ends by name. Names are private to one Transport value. The
// zero value is ready; it must not be copied after its first use. Its methods are
// safe for concurrent use.
type Transport struct {
	mu        sync.Mutex
	listeners map[string]*listener
}

// New returns a Transport with no names in use.
func New() *Transport { return &Transport{} }

// Name returns "inproc".
func (t *Transport) Name() string { return name }

// Listen takes the name addr, which must not be empty nor in use.
func (t *Transport) Listen(addr string) (transport.Listener, error) {
	if addr == "" {
		return nil, errors.New("inproc: listen: empty name")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.listeners[addr] != nil {
		return nil, fmt.Errorf("inproc: listen %q: %w", addr, syscall.EADDRINUSE)
	}
	if t.listeners == nil {
		t.listeners = make(map[string]*listener)
	}
	l := &listener{t: t, addr: Addr(addr), incoming: make(chan *conn), closed: make(chan struct{})}
	t.listeners[addr] = l
	return l, nil
}

// Dial connects to the listener named addr and returns when it has accepted. It
// fails at once when there is none.
func (t *Transport) Dial(ctx context.Context, addr string) (transport.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("inproc: dial %q: %w", addr, err)
	}
	t.mu.Lock()
	l := t.listeners[addr]
	t.mu.Unlock()
	if l == nil {
		return nil, fmt.Errorf("inproc: dial %q: %w", addr, syscall.ECONNREFUSED)
	}
	client, server := pipe(l.addr)
	select {
	case l.incoming <- server:
		return client, nil
	case <-l.closed:
		return nil, fmt.Errorf("inproc: dial %q: %w", addr, syscall.ECONNREFUSED)
	case <-ctx.Done():
		return nil, fmt.Errorf("inproc: dial %q: %w", addr, ctx.Err())
	}
}

type listener struct {
	t        *Transport
	addr     Addr
	incoming chan *conn // never buffered: a dialer is accepted or not
	closed   chan struct{}
	once     sync.Once
}

func (l *listener) Accept() (transport.Conn, error) {
	select {
	case <-l.closed:
		return nil, fmt.Errorf("inproc: accept %q: %w", l.addr, net.ErrClosed)
	default:
	}
	select {
	case c := <-l.incoming:
		return c, nil
	case <-l.closed:
		return nil, fmt.Errorf("inproc: accept %q: %w", l.addr, net.ErrClosed)
	}
}

func (l *listener) Close() error {
	l.once.Do(func() {
		l.t.mu.Lock()
		delete(l.t.listeners, string(l.addr))
		l.t.mu.Unlock()
		close(l.closed)
	})
	return nil
}

func (l *listener) Addr() net.Addr { return l.addr }
