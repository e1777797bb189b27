// Package sock carries frames over a byte stream: a unix socket, TCP, or any
// other net.Conn.
//
// # Concurrency
//
// A connection has one reading goroutine, from Start to HandleClose, and at most
// one flusher at a time. Writers append whole frames to a bounded buffer; the
// writer that finds nobody flushing flushes what has gathered, without blocking,
// and what the kernel does not take is left to a flusher goroutine. So one write(2)
// carries the frames of many writers, and a peer that does not read never keeps a
// Write beyond its cancel. Close waits for both goroutines.
package sock

import (
	"bufio"
	"errors"
	"fmt"
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

const (
	// readSize is the read buffer in bytes: many small frames. What a large one has
	// beyond it is read straight to where it belongs.
	readSize = 16 << 10

	// lingerStall is how long Close waits for a peer that takes nothing, lingerMax
	// for one that takes little by little.
	lingerStall = time.Second
	lingerMax   = 10 * time.Second

	// drainIdle is how long frames that a peer sent before its end are awaited
	// once writing to it has failed.
	drainIdle = time.Second
)

// errPeerClosed is the cause when the stream ended between two frames.
var errPeerClosed = fmt.Errorf("sock: %w", transport.ErrPeerGone)

type conn struct {
	nc      net.Conn
	info    transport.Info
	handled chan struct{} // closed after HandleClose
	closing sync.Once
	ended   atomic.Bool // cause is set: nothing more is delivered
	burst   atomic.Bool // the last read carried several frames
	w       writer

	mu      sync.Mutex
	cause   error
	started bool
}

// New frames the stream c, which it owns from now on. info is what Info returns;
// missing addresses are taken from c.
func New(c net.Conn, info transport.Info) transport.Conn {
	if info.LocalAddr == nil {
		info.LocalAddr = c.LocalAddr()
	}
	if info.RemoteAddr == nil {
		info.RemoteAddr = c.RemoteAddr()
	}
	k := &conn{nc: c, info: info, handled: make(chan struct{})}
	k.w.init(c)
	return k
}

func (c *conn) Start(h transport.Handler) {
	c.mu.Lock()
	c.started = true
	c.mu.Unlock()
	go func() {
		err := c.end(c.receive(h))
		c.nc.Close()
		h.HandleClose(err)
		close(c.handled)
	}()
}

// receive delivers frames until the stream or the connection ends, and says why.
func (c *conn) receive(h transport.Handler) error {
	br := bufio.NewReaderSize(c.nc, readSize)
	frames := 0 // since the buffer was last empty
	for {
		if br.Buffered() == 0 {
			if burst := frames > 1; burst != c.burst.Load() {
				c.burst.Store(burst)
			}
			frames = 0
		}
		enc, err := c.peekHeader(br)
		if err != nil {
			return readError(err, len(enc))
		}
		hd, err := wire.ParseHeader(enc)
		if err != nil {
			return fmt.Errorf("sock: %w: %w", transport.ErrProtocol, err)
		}
		br.Discard(wire.HeaderSize)
		b := wire.GetBuf(int(hd.Len))
		if n, err := c.readFull(br, b.B); err != nil {
			b.Release()
			return readError(err, wire.HeaderSize+n)
		}
		frames++
		if c.ended.Load() {
			b.Release()
			continue
		}
		h.HandleFrame(hd, b)
	}
}

// peekHeader and readFull read on after a deadline that only limits the wait for
// the rest of a broken connection.
func (c *conn) peekHeader(br *bufio.Reader) ([]byte, error) {
	if c.w.broken.Load() {
		c.nc.SetReadDeadline(time.Now().Add(drainIdle))
	}
	return br.Peek(wire.HeaderSize)
}

func (c *conn) readFull(br *bufio.Reader, b []byte) (int, error) {
	if c.w.broken.Load() {
		c.nc.SetReadDeadline(time.Now().Add(drainIdle))
	}
	return io.ReadFull(br, b)
}

// readError turns an error met after n bytes of a frame into a cause.
func readError(err error, n int) error {
	switch {
	case errors.Is(err, io.EOF) && n == 0:
		return errPeerClosed
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("sock: %w: stream ends %d bytes into a frame", transport.ErrPeerGone, n)
	case errors.Is(err, syscall.ECONNRESET) && n == 0:
		// The peer closed before it had read all that was sent to it.
		return errPeerClosed
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("sock: %w: it reads no more", transport.ErrPeerGone)
	}
	return fmt.Errorf("sock: %w: %w", transport.ErrPeerGone, err)
}

// Poll returns at once: the reading goroutine sleeps in the kernel, and a second
// reader would only compete with it.
func (c *conn) Poll(*atomic.Bool) {}

func (c *conn) Info() transport.Info { return c.info }

// end sets the cause unless there is one, and returns the cause.
func (c *conn) end(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause == nil {
		c.cause = err
		c.ended.Store(true)
		c.w.refuse(err)
	}
	return c.cause
}

func (c *conn) Fail(err error) {
	if err == nil {
		err = transport.ErrClosed
	}
	c.end(err)
	c.nc.Close()
}

func (c *conn) Close() error {
	c.closing.Do(c.shut)
	return nil
}

func (c *conn) shut() {
	good := errors.Is(c.end(transport.ErrClosed), transport.ErrClosed)
	c.mu.Lock()
	started := c.started
	c.mu.Unlock()
	if good && c.drain() && started {
		c.linger()
	}
	c.nc.Close()
	if started {
		<-c.handled
	}
	if idle := c.w.idleSignal(); idle != nil {
		<-idle
	}
}

// drain waits until the kernel has taken what was written, as long as the peer
// reads, and reports whether it has.
func (c *conn) drain() bool {
	idle := c.w.idleSignal()
	if idle == nil {
		return true
	}
	tick := time.NewTicker(lingerStall)
	defer tick.Stop()
	for last, start := c.w.taken(), time.Now(); ; {
		select {
		case <-idle:
			return true
		case <-tick.C:
			now := c.w.taken()
			if now == last || time.Since(start) > lingerMax {
				return false
			}
			last = now
		}
	}
}

// linger lets a TCP peer read the end of the stream before the socket goes:
// closing it with unread bytes in it would reset the connection and take what the
// peer has not read yet along.
func (c *conn) linger() {
	tc, ok := c.nc.(*net.TCPConn)
	if !ok || tc.CloseWrite() != nil {
		return
	}
	t := time.NewTimer(lingerStall)
	defer t.Stop()
	select {
	case <-c.handled:
	case <-t.C:
	}
}
