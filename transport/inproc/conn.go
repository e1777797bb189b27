// Package inproc carries frames between two ends in one process.
//
// It is the twin of the transports between processes: the same order, the same
// back-pressure, the same ends, and no kernel. It blocks on channels only, so
// that everything above it can be tested in the virtual time of testing/synctest.
package inproc

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"github.com/stile-ipc/stile/transport"
	"github.com/stile-ipc/stile/transport/wire"
)

const name = "inproc"

var errPeerGone = fmt.Errorf("inproc: %w", transport.ErrPeerGone)

// Addr is the name of an in-process endpoint.
type Addr string

// Network returns "inproc".
func (Addr) Network() string { return name }

func (a Addr) String() string { return string(a) }

// Pipe returns the two ends of a new connection.
func Pipe() (a, b transport.Conn) { return pipe("pipe") }

func pipe(addr Addr) (client, server *conn) {
	up, down := newQueue(), newQueue()
	return newConn(down, up, addr), newConn(up, down, addr)
}

type conn struct {
	in, out *queue
	info    transport.Info
	handled chan struct{} // closed after HandleClose

	mu      sync.Mutex
	cause   error
	started bool
}

func newConn(in, out *queue, addr Addr) *conn {
	return &conn{
		in:      in,
		out:     out,
		info:    transport.Info{Transport: name, Peer: self(), LocalAddr: addr, RemoteAddr: addr},
		handled: make(chan struct{}),
	}
}

// self is the identity of both ends, where the platform has one.
func self() transport.Cred {
	uid := os.Geteuid()
	if uid < 0 {
		return transport.Cred{}
	}
	return transport.Cred{PID: os.Getpid(), UID: uid, GID: os.Getegid(), Known: true}
}

func (c *conn) Start(h transport.Handler) {
	c.mu.Lock()
	c.started = true
	c.mu.Unlock()
	go c.deliver(h)
}

func (c *conn) deliver(h transport.Handler) {
	for {
		f, ok := c.in.pop()
		if !ok {
			break
		}
		h.HandleFrame(f.h, f.b)
	}
	h.HandleClose(c.end(errPeerGone, true))
	close(c.handled)
}

func (c *conn) Write(cancel <-chan struct{}, h wire.Header, head, body []byte) error {
	n := len(head) + len(body)
	h.Len = uint32(min(n, wire.MaxPayload+1))
	if err := check(h); err != nil {
		return fmt.Errorf("inproc: frame with %d payload bytes refused: %w", n, err)
	}
	select {
	case <-cancel:
		return transport.ErrCanceled
	default:
	}
	b := wire.GetBuf(n)
	copy(b.B[copy(b.B, head):], body)
	for {
		ok, wait := c.out.push(frame{h, b})
		switch {
		case ok:
			return nil
		case wait == nil:
			b.Release()
			return c.ended()
		}
		select {
		case <-wait:
		case <-cancel:
			b.Release()
			return transport.ErrCanceled
		}
	}
}

// check refuses what a peer in another process would refuse to parse.
func check(h wire.Header) error {
	var enc [wire.HeaderSize]byte
	wire.PutHeader(enc[:], h)
	_, err := wire.ParseHeader(enc[:])
	return err
}

// ended is why the outgoing direction takes no more: this end's cause or, while
// this end still has frames to handle, the peer's end.
func (c *conn) ended() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause != nil {
		return c.cause
	}
	return errPeerGone
}

// Poll returns at once: a channel's wake-up is all there is to gain.
func (c *conn) Poll(*atomic.Bool) {}

func (c *conn) Fail(err error) {
	if err == nil {
		err = transport.ErrClosed
	}
	c.end(err, true)
}

func (c *conn) Close() error {
	c.end(transport.ErrClosed, false)
	c.mu.Lock()
	started := c.started
	c.mu.Unlock()
	if started {
		<-c.handled
	}
	return nil
}

// end ends both directions and returns the first cause. With discard, frames the
// peer has not handled yet are lost, but only if this call is the first.
func (c *conn) end(err error, discard bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause != nil {
		return c.cause
	}
	c.cause = err
	c.out.shut(discard)
	c.in.kill()
	return err
}

func (c *conn) Info() transport.Info { return c.info }
