package sock

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/stile-ipc/stile/transport"
)

// Transport connects over sockets. An address has the form that package net
// defines for the network. The listener sends one byte, accepted, before the first
// frame: a kernel's backlog alone does not tell a dialer that it was accepted.
type Transport struct {
	// Network is "unix" (also when empty) or one of net's TCP networks.
	Network string
}

const accepted = 0x53

// Name returns the network.
func (t Transport) Name() string {
	if t.Network == "" {
		return "unix"
	}
	return t.Network
}

// Listen binds addr. A socket file that exists already is an error, also when
// nobody listens to it any more.
func (t Transport) Listen(addr string) (transport.Listener, error) {
	l, err := net.Listen(t.Name(), addr)
	if err != nil {
		return nil, fmt.Errorf("sock: %w", err)
	}
	return &listener{t, l}, nil
}

// Dial connects to addr.
func (t Transport) Dial(ctx context.Context, addr string) (transport.Conn, error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, t.Name(), addr)
	if err != nil {
		return nil, fmt.Errorf("sock: %w", err)
	}
	c, err := t.greeted(ctx, nc)
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("sock: dial %s: %w", addr, err)
	}
	return c, nil
}

// greeted waits for the listener's byte.
func (t Transport) greeted(ctx context.Context, nc net.Conn) (transport.Conn, error) {
	stop := context.AfterFunc(ctx, func() { nc.SetReadDeadline(time.Unix(1, 0)) })
	var b [1]byte
	_, err := nc.Read(b[:])
	if !stop() {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("not accepted: %w", err)
	}
	if b[0] != accepted {
		return nil, fmt.Errorf("%w: greeting %#x", transport.ErrProtocol, b[0])
	}
	return t.conn(nc)
}

func (t Transport) conn(nc net.Conn) (transport.Conn, error) {
	info := transport.Info{Transport: t.Name()}
	if uc, ok := nc.(*net.UnixConn); ok {
		cred, err := PeerCred(uc)
		if err != nil {
			return nil, err
		}
		info.Peer = cred
	}
	return New(nc, info), nil
}

type listener struct {
	t Transport
	net.Listener
}

func (l *listener) Accept() (transport.Conn, error) {
	for {
		nc, err := l.Listener.Accept()
		if err != nil {
			return nil, fmt.Errorf("sock: %w", err)
		}
		// One byte fits into a new socket's buffer. A dialer that is gone already
		// is no reason to stop accepting.
		if _, err := nc.Write([]byte{accepted}); err != nil {
			nc.Close()
			continue
		}
		c, err := l.t.conn(nc)
		if err != nil {
			nc.Close()
			continue
		}
		return c, nil
	}
}

// Close is idempotent, as net's is not.
func (l *listener) Close() error {
	if err := l.Listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("sock: %w", err)
	}
	return nil
}
