package stile

import (
	"context"
	"errors"
	"math"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"github.com/stile-ipc/stile/internal/spans"
	"github.com/stile-ipc/stile/telemetry"
	"github.com/stile-ipc/stile/transport"
	"github.com/stile-ipc/stile/transport/wire"
)

// goAwayPatience is how long a draining server takes calls from a client that
// has not acknowledged its GoAway: as long as a server of grpc-go waits for the
// answer to its ping. Later calls are refused; the client makes them elsewhere.
const goAwayPatience = 5 * time.Second

// serverConn is the server's side of one connection: the table of its calls.
type serverConn struct {
	door *door
	conn transport.Conn
	lend transport.Lender // conn, if it is one
	link *telemetry.Link  // counts calls; nil: they are not counted

	readsTimes   bool // the client does
	clientTraces bool // the client chooses which of its calls are traced

	reliever transport.Reliever // conn, if it is one and there are methods that do not block
	ctx      context.Context    // of the connection; holds the peer and handlers' tags
	end      context.CancelFunc
	peer     *peer.Peer

	calls   wire.CallCache // the reader's
	claims  spans.Claims   // the reader's
	lastKey uint64         // the reader's
	latest  *callContext   // the reader's: the call of the last stream frame
	batch   *inlineBatch   // the reader's: calls it is to run itself
	spare   atomic.Pointer[inlineBatch]
	gone    atomic.Bool // the connection has ended
	limited bool        // the server limits the number of calls

	mu       sync.Mutex // held for short sections only, never while writing
	streams  table[callContext]
	waiters  atomic.Int32
	slot     atomic.Pointer[worker] // one that polls for the next call
	refusing atomic.Int32           // refusals being written
	active   uint32                 // calls whose status has not been sent
	running  uint32                 // handlers, if their number is limited
	waiting  []*serverStream        // calls that no handler has begun, because as many run as may
	parts    partTable
	draining bool // GoAway was sent
	sealed   bool // no further call is taken
	drained  chan struct{}
	isIdle   bool // drained is closed
}

// newServerConn makes the server's side of a connection that came in beside the
// listener at addr.
func newServerConn(d *door, conn transport.Conn, addr net.Addr) *serverConn {
	c := &serverConn{
		door: d, conn: conn, peer: peerOf(conn.Info(), nearOf(addr), addr),
		drained: make(chan struct{}),
	}
	c.lastKey = connections.Add(1) << 40
	c.lend, _ = conn.(transport.Lender)
	c.readsTimes, c.clientTraces = conn.Info().Client.ReadsTimes, conn.Info().Client.Traces
	c.link = newLink(d.own.recorder, telemetry.Server, conn, conn.Info().Client.Process, addr)
	if len(d.own.nonBlocking) > 0 {
		c.reliever, _ = conn.(transport.Reliever)
	}
	c.parts.limit = partsLimit(int(d.headerList()))
	c.limited = d.set.maxStreams != math.MaxUint32
	ctx, cancel := context.WithCancel(peer.NewContext(context.Background(), c.peer))
	c.end = cancel
	for _, sh := range d.set.stats {
		ctx = sh.TagConn(ctx, &stats.ConnTagInfo{RemoteAddr: c.peer.Addr, LocalAddr: c.peer.LocalAddr})
		sh.HandleConn(ctx, &stats.ConnBegin{})
	}
	c.ctx = ctx
	return c
}

func (c *serverConn) start() {
	live.add(c.conn, "server", c.peer.LocalAddr, opensOf(c.link, &c.mu, &c.streams, (*callContext).openOn))
	c.conn.Start(c)
}

// HandleFrame implements [transport.Handler].
func (c *serverConn) HandleFrame(h wire.Header, b *wire.Buf) {
	if err := c.handle(h, b); err != nil {
		c.conn.Fail(err)
	}
}

func (c *serverConn) handle(h wire.Header, b *wire.Buf) error {
	switch h.Type {
	case wire.TypeStream:
		if h.Flags&wire.FlagCall != 0 {
			return c.handleCall(h, b)
		}
		return c.handleStream(h, b)
	case wire.TypePart:
		defer b.Release()
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.parts.add(h.Stream, b.B)
	case wire.TypeReset:
		b.Release()
		c.mu.Lock()
		call := c.streams.get(h.Stream)
		c.parts.drop(h.Stream)
		c.mu.Unlock()
		if call != nil {
			c.ending(call)
			call.canceled()
			c.abandon(call)
		}
		return nil
	case wire.TypeWindow:
		defer b.Release()
		n, err := wire.ParseWindow(b.B)
		if err != nil {
			return errProtocol("%v", err)
		}
		if s, key := c.stream(h.Stream); s != nil {
			return s.out.add(key, n)
		}
		return nil
	case wire.TypeGoAway:
		b.Release()
		c.seal()
		return nil
	}
	b.Release()
	return errProtocol("frame type %d from the client", h.Type)
}

// stream returns the stream of a call and the key by which it takes what comes for
// that call alone; nil when the call is over.
func (c *serverConn) stream(id uint64) (s *serverStream, key uint64) {
	c.mu.Lock()
	call := c.streams.get(id)
	c.mu.Unlock()
	if call == nil {
		return nil, 0
	}
	return call.stream.Load(), call.key
}

// handleCall enters a new call and hands it to a worker.
func (c *serverConn) handleCall(h wire.Header, b *wire.Buf) error {
	if h.Flags&(wire.FlagHeader|wire.FlagTrailer) != 0 {
		b.Release()
		return errProtocol("server-only flags %#x from the client", uint8(h.Flags))
	}
	payload := b.B
	c.mu.Lock()
	if c.parts.size > 0 {
		payload = c.parts.take(h.Stream, payload)
	}
	c.mu.Unlock()
	section, rest, err := wire.CutSection(payload)
	c.lastKey++
	call := &callContext{conn: c, id: h.Stream, key: c.lastKey}
	var arrived time.Duration
	if c.link != nil {
		arrived = telemetry.Now()
		pace.Beat(arrived)
	}
	if err == nil {
		call.call, err = c.calls.Parse(section, int(c.door.headerList()))
	}
	if errors.Is(err, wire.ErrHeaderList) {
		b.Release()
		return c.refuse(h.Stream, codes.Internal, "header list size exceeds the server's limit")
	}
	if err != nil {
		b.Release()
		return errProtocol("%v", err)
	}
	if err := checkHeaders(call.call.MD); err != nil {
		b.Release()
		return c.refuse(h.Stream, codes.Internal, status.Convert(err).Message())
	}
	if call.call.Trace != nil && (c.link == nil || !traced.Claim(&c.claims)) {
		call.call.Trace = nil
	}
	s := newServerStream(call)
	s.rec.arrived = arrived
	c.mu.Lock()
	if c.streams.get(h.Stream) != nil {
		err = errProtocol("call %d opened twice", h.Stream)
	}
	full := c.active >= c.door.set.maxStreams
	if err != nil || c.sealed || full {
		c.mu.Unlock()
		b.Release()
		s.recycle()
		if err == nil {
			err = c.refuse(h.Stream, wire.ResetRefused, "")
		}
		return err
	}
	c.streams.put(h.Stream, call)
	if c.limited {
		c.active++
	}
	c.mu.Unlock()
	c.door.handlers.Add(1)
	d := delivery{buf: b, data: rest, ended: h.Flags&wire.FlagHalfClose != 0}
	err = s.in.deliver(call.key, &d)
	switch {
	case !c.admit(s):
	case c.inlines(s, h.Flags):
		c.queue(s)
	default:
		c.dispatch(s)
	}
	return err
}

// admit reports whether a handler may begin. If not, the call waits for the end of
// another one: a call that was reset does not count as open any more, but its handler
// may run on.
func (c *serverConn) admit(s *serverStream) bool {
	if !c.limited {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running < c.door.set.maxStreams {
		c.running++
		return true
	}
	c.waiting = append(c.waiting, s)
	s.cc.start() // its time passes meanwhile
	return false
}

// handled follows a handler's return: the next call may begin.
func (c *serverConn) handled() {
	if !c.limited {
		return
	}
	var next *serverStream
	c.mu.Lock()
	if len(c.waiting) > 0 {
		next = c.waiting[0]
		c.waiting = slices.Delete(c.waiting, 0, 1)
	} else {
		c.running--
	}
	c.mu.Unlock()
	if next != nil {
		c.door.workers.run(next)
	}
}

// abandon ends a call that has ended for the client and that no handler has begun.
func (c *serverConn) abandon(call *callContext) {
	if !c.limited {
		return
	}
	c.mu.Lock()
	i := slices.IndexFunc(c.waiting, func(s *serverStream) bool { return s.cc == call })
	if i < 0 {
		c.mu.Unlock()
		return
	}
	s := c.waiting[i]
	c.waiting = slices.Delete(c.waiting, i, i+1)
	c.mu.Unlock()
	s.close()
	c.door.handlers.Done()
}

func (c *serverConn) handleStream(h wire.Header, b *wire.Buf) error {
	if h.Flags&^wire.FlagHalfClose != 0 {
		b.Release()
		return errProtocol("flags %#x on an open call", uint8(h.Flags))
	}
	if c.latest == nil || c.latest.id != h.Stream {
		c.mu.Lock()
		call := c.streams.get(h.Stream)
		c.mu.Unlock()
		if call == nil {
			b.Release()
			return nil
		}
		c.latest = call
	}
	s, key := c.latest.stream.Load(), c.latest.key
	if s == nil { // late: the handler has returned
		b.Release()
		return nil
	}
	return s.in.deliver(key, &delivery{buf: b, data: b.B, ended: h.Flags&wire.FlagHalfClose != 0})
}

// maxRefusals bounds the refusals that wait for a client to read them.
const maxRefusals = 1024

// refuse ends a call that no handler will see.
func (c *serverConn) refuse(id uint64, code codes.Code, msg string) error {
	if c.refusing.Add(1) > maxRefusals {
		return errProtocol("calls go on while %d refusals are not read", maxRefusals)
	}
	head := wire.AppendReset(nil, &wire.Reset{Code: uint32(code), Message: msg})
	go func() { // a handler must not write; ends with the write or the connection
		defer c.refusing.Add(-1)
		_ = c.conn.Write(nil, wire.Header{Type: wire.TypeReset, Stream: id}, head, nil)
	}()
	return nil
}

// ending frees the place of a call that the client counts as over, or will when it
// has the status that is about to be sent: it may open another one then.
func (c *serverConn) ending(call *callContext) {
	if !c.limited {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !call.freed {
		call.freed = true
		c.active--
	}
}

// forget removes a call that is over.
func (c *serverConn) forget(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.streams.remove(id)
	c.idleLocked()
}

// drain asks the client to make no new calls.
func (c *serverConn) drain() {
	c.mu.Lock()
	first := !c.draining
	c.draining = true
	c.mu.Unlock()
	if !first {
		return
	}
	go func() { // ends with the write or the connection
		_ = c.conn.Write(nil, wire.Header{Type: wire.TypeGoAway}, nil, nil)
	}()
	go func() {
		t := time.NewTimer(goAwayPatience)
		defer t.Stop()
		select {
		case <-t.C:
		case <-c.drained:
		case <-c.ctx.Done():
		}
		c.seal()
	}()
}

// seal takes no further call: the client has acknowledged, or had its time.
func (c *serverConn) seal() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sealed = true
	c.idleLocked()
}

func (c *serverConn) idleLocked() {
	if c.sealed && c.streams.size == 0 && !c.isIdle {
		c.isIdle = true
		close(c.drained)
	}
}

// waitDrained waits until the connection takes no calls and has none.
func (c *serverConn) waitDrained() {
	select {
	case <-c.drained:
	case <-c.ctx.Done():
	}
}

// HandleClose implements [transport.Handler].
func (c *serverConn) HandleClose(err error) {
	c.Batched(false)
	c.gone.Store(true)
	c.mu.Lock()
	streams := c.streams.takeAll()
	c.sealed = true
	c.parts.clear()
	c.mu.Unlock()
	for _, call := range streams {
		call.s.lost(err)
		c.abandon(call.s)
	}
	c.end()
	for _, sh := range c.door.set.stats {
		sh.HandleConn(c.ctx, &stats.ConnEnd{})
	}
	if errors.Is(err, transport.ErrProtocol) {
		c.door.broke(c, err)
	}
	live.drop(c.conn)
	c.link.Close()
	c.door.forget(c)
}

// lost ends a call whose connection did.
func (c *callContext) lost(err error) {
	if s := c.stream.Load(); s != nil {
		s.out.fail(c.key, err)
		s.in.fail(c.key, statusCanceled, true)
	}
	c.Cancel(context.Canceled)
}

var statusCanceled = rpcError(context.Canceled)
