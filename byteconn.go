package stile

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/stile-ipc/stile/transport"
	"github.com/stile-ipc/stile/transport/wire"
)

// byteStream is the only stream of a connection that carries bytes.
const byteStream = 1

// byteConn is a [net.Conn] over a transport.Conn: one stream each way, with the
// flow control of calls. Read and Write may be called at once, and by several
// goroutines, whose data is then not mixed within one Write.
type byteConn struct {
	conn   transport.Conn
	lender transport.Lender // conn, if it is one
	remote net.Addr
	local  net.Addr

	in      inbox
	out     outflow
	waiters atomic.Int32

	reading, writing     sync.Mutex
	readLimit, sendLimit deadline
	once                 sync.Once
	closed               atomic.Bool
}

// newByteConn starts the connection, which it owns. role is this end's.
func newByteConn(conn transport.Conn, role string, local, remote net.Addr) *byteConn {
	server := local
	if role == "client" {
		server = remote
	}
	c := &byteConn{conn: conn, local: local, remote: remote}
	c.lender, _ = conn.(transport.Lender)
	c.readLimit.passed, c.sendLimit.passed = make(chan struct{}), make(chan struct{})
	c.in.init(byteStream, conn, &c.waiters)
	c.out.init(byteStream, byteStream, conn)
	live.add(conn, role, server, nil)
	conn.Start((*byteHandler)(c))
	return c
}

// byteHandler is what a byteConn's transport sees of it.
type byteHandler byteConn

// HandleFrame implements [transport.Handler].
func (c *byteHandler) HandleFrame(h wire.Header, b *wire.Buf) {
	var err error
	switch {
	case h.Stream != byteStream:
		b.Release()
		err = errProtocol("stream %d on a connection of bytes", h.Stream)
	case h.Type == wire.TypeStream && h.Flags&^wire.FlagHalfClose == 0:
		err = c.in.deliver(byteStream, &delivery{buf: b, data: b.B, ended: h.Flags != 0})
	case h.Type == wire.TypeWindow:
		var n uint32
		if n, err = wire.ParseWindow(b.B); err == nil {
			err = c.out.add(byteStream, n)
		} else {
			err = errProtocol("%v", err)
		}
		b.Release()
	default:
		b.Release()
		err = errProtocol("frame type %d, flags %#x on a connection of bytes", h.Type, uint8(h.Flags))
	}
	if err != nil {
		c.conn.Fail(err)
	}
}

// HandleClose implements [transport.Handler]. A peer that is gone, by whatever way,
// reads as the end of the stream, as with a unix socket.
func (c *byteHandler) HandleClose(err error) {
	read, write := err, error(syscall.EPIPE)
	switch {
	case errors.Is(err, transport.ErrPeerGone):
		read = io.EOF
	case errors.Is(err, transport.ErrClosed):
		read, write = net.ErrClosed, net.ErrClosed
	}
	live.drop(c.conn)
	c.out.fail(byteStream, write)
	c.in.fail(byteStream, read, true)
}

// Read implements [net.Conn].
func (c *byteConn) Read(p []byte) (int, error) {
	c.reading.Lock()
	defer c.reading.Unlock()
	if c.closed.Load() { // even if the peer has ended the stream before
		return 0, c.opError("read", net.ErrClosed)
	}
	n, err := c.in.readSome(&c.readLimit, p, c.grant)
	return n, c.opError("read", err)
}

// grant lets the peer send n more bytes. It does not wait for a peer that does not
// read: what was read is the caller's at once.
func (c *byteConn) grant(n int) {
	h := wire.Header{Type: wire.TypeWindow, Stream: byteStream}
	head := wire.AppendWindow(make([]byte, 0, 4), uint32(n))
	if c.conn.Write(closedChan, h, head, nil) != nil {
		go func() { _ = c.conn.Write(nil, h, head, nil) }() // ends with the write or the connection
	}
}

// Write implements [net.Conn].
func (c *byteConn) Write(p []byte) (n int, err error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	if err = c.sendLimit.Err(); err == nil && len(p) == 0 {
		_, err = c.out.takeAll(0) // whether it is closed
	}
	for len(p) > 0 && err == nil {
		var k int
		k, err = c.writeSome(p)
		n, p = n+k, p[k:]
	}
	return n, c.opError("write", err)
}

// writeSome sends as much of p as the window and one frame take, at least a byte.
func (c *byteConn) writeSome(p []byte) (int, error) {
	limit := wire.MaxPayload
	if c.lender != nil && len(p) >= minLoan {
		limit = initialWindow
	}
	n, err := c.out.take(&c.sendLimit, min(len(p), limit))
	if err != nil {
		return 0, err
	}
	if n >= minLoan && c.lender != nil {
		if loan, ok := c.lender.Lend(n); ok {
			copy(loan.B, p)
			err = c.out.writeLoan(&c.sendLimit, c.lender, c.out.frame(0), nil, loan)
			if err != nil {
				c.lender.Return(loan)
				c.out.giveBack(n)
				return 0, err
			}
			return n, nil
		}
	}
	sent := 0
	for sent < n {
		k := min(n-sent, wire.MaxPayload)
		if err := c.out.write(&c.sendLimit, c.out.frame(0), nil, p[sent:sent+k]); err != nil {
			c.out.giveBack(n - sent)
			return sent, err
		}
		sent += k
	}
	return n, nil
}

// CloseWrite tells the peer that nothing more will be written; reading goes on.
func (c *byteConn) CloseWrite() error {
	c.writing.Lock()
	defer c.writing.Unlock()
	if _, err := c.out.takeAll(0); err != nil {
		return c.opError("close", err)
	}
	err := c.out.write(&c.sendLimit, c.out.frame(wire.FlagHalfClose), nil, nil)
	c.out.fail(byteStream, syscall.EPIPE)
	return c.opError("close", err)
}

// Close implements [net.Conn]. What was written reaches a peer that reads.
func (c *byteConn) Close() error {
	err := net.ErrClosed
	c.once.Do(func() {
		err = nil
		c.closed.Store(true)
		c.out.fail(byteStream, net.ErrClosed)
		c.in.fail(byteStream, net.ErrClosed, false)
		c.in.discard()
		_ = c.conn.Close()
		c.readLimit.set(time.Time{})
		c.sendLimit.set(time.Time{})
	})
	return c.opError("close", err)
}

// LocalAddr implements [net.Conn].
func (c *byteConn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements [net.Conn].
func (c *byteConn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline implements [net.Conn].
func (c *byteConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline implements [net.Conn].
func (c *byteConn) SetReadDeadline(t time.Time) error { c.readLimit.set(t); return nil }

// SetWriteDeadline implements [net.Conn].
func (c *byteConn) SetWriteDeadline(t time.Time) error { c.sendLimit.set(t); return nil }

// opError dresses an error as package net does. io.EOF stays as it is. A frame on its
// way when the connection ended has the transport's cause.
func (c *byteConn) opError(op string, err error) error {
	switch {
	case err == nil || err == io.EOF:
		return err
	case errors.Is(err, transport.ErrCanceled):
		err = os.ErrDeadlineExceeded
	case errors.Is(err, transport.ErrClosed):
		err = net.ErrClosed
	case errors.Is(err, transport.ErrPeerGone):
		err = syscall.EPIPE
	}
	return &net.OpError{Op: op, Net: c.remote.Network(), Source: c.local, Addr: c.remote, Err: err}
}

// deadline is a point in time that can be moved, as a context for those who wait.
type deadline struct {
	mu     sync.Mutex
	timer  *time.Timer
	passed chan struct{} // closed when it has passed; another one once it is moved
}

var _ context.Context = (*deadline)(nil)

// set moves the deadline. Zero: never.
func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil && !d.timer.Stop() {
		<-d.passed // the timer's function runs, or has run
	}
	d.timer = nil
	over := false
	select {
	case <-d.passed:
		over = true
	default:
	}
	left := time.Until(t)
	switch {
	case !t.IsZero() && left <= 0:
		if !over {
			close(d.passed)
		}
		return
	case over:
		d.passed = make(chan struct{})
	}
	if !t.IsZero() {
		passed := d.passed
		d.timer = time.AfterFunc(left, func() { close(passed) })
	}
}

// Done implements [context.Context].
func (d *deadline) Done() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.passed
}

// Err implements [context.Context].
func (d *deadline) Err() error {
	select {
	case <-d.Done():
		return os.ErrDeadlineExceeded
	default:
		return nil
	}
}

// Deadline implements [context.Context]; nobody needs to know.
func (d *deadline) Deadline() (time.Time, bool) { return time.Time{}, false }

// Value implements [context.Context].
func (d *deadline) Value(any) any { return nil }
