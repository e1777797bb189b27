package stile

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"github.com/stile-ipc/stile/telemetry"
	"github.com/stile-ipc/stile/transport"
	"github.com/stile-ipc/stile/transport/wire"
)

// errRefused says that the server will not look at a call, so that it may be
// made again another way.
var errRefused = errors.New("stile: call refused by a server that is going away")

// errProtocol wraps what a peer did wrong at the level of calls.
func errProtocol(format string, args ...any) error {
	return fmt.Errorf("%w: %s", transport.ErrProtocol, fmt.Sprintf(format, args...))
}

// clientMux is the client's side of one connection: the table of its calls.
type clientMux struct {
	conn          transport.Conn
	lender        transport.Lender // conn, if it is one
	link          *telemetry.Link  // counts calls; nil: they are not counted
	place         place
	settings      settings // the server's
	maxHeaderList uint32   // bytes of response metadata; 0: no limit of its own
	peer          *peer.Peer
	ctx           context.Context // of the connection, as the stats handlers tagged it
	stats         []stats.Handler
	slots         chan struct{}
	lastID        atomic.Uint64
	closed        atomic.Bool      // no new calls: the server drains or the connection ended
	onDown        func(*clientMux) // takes no more calls
	onGone        func(*clientMux) // has ended
	down          chan struct{}    // closed with closed

	// latest is the reader's: the stream of the last frame. Should it have ended, or
	// serve another call, then it drops what comes for the id.
	latest struct {
		id uint64
		s  *clientStream
	}

	mu      sync.Mutex // held for short sections only, never while writing
	streams table[clientStream]
	parts   partTable
	cause   error // why the connection ended

	waiters atomic.Int32
	opening atomic.Int32 // streams being entered, or whose first frame is not written
	leaving atomic.Bool  // the server's GoAway has come, or the address is not the target's any more
	bye     atomic.Bool  // GoAway was acknowledged
}

// connections counts those of the process, on both sides. Each numbers its calls in a
// range of its own, so that a stream that is used again is not taken for an earlier
// call of another connection.
var connections atomic.Uint64

// newClientMux starts the connection to the server at p for e. e.down is called
// from the reader when the connection takes no more calls, and again should it
// then end by a breach of the protocol; e.gone when it has ended.
func newClientMux(conn transport.Conn, p place, s settings, e *entrance) *clientMux {
	own := &e.set
	m := &clientMux{
		conn: conn, place: p, settings: s, stats: own.stats, maxHeaderList: own.maxHeaderList,
		onDown: e.down, onGone: e.gone, down: make(chan struct{}),
	}
	m.lender, _ = conn.(transport.Lender)
	m.link = newLink(e.d.own.recorder, telemetry.Client, conn, s.process, p.addr)
	m.peer = peerOf(conn.Info(), p.addr, nearOf(p.addr))
	m.ctx = context.Background()
	for _, sh := range m.stats {
		m.ctx = sh.TagConn(m.ctx, &stats.ConnTagInfo{RemoteAddr: m.peer.Addr, LocalAddr: m.peer.LocalAddr})
		sh.HandleConn(m.ctx, &stats.ConnBegin{Client: true})
	}
	if s.maxStreams < 1<<20 {
		m.slots = make(chan struct{}, s.maxStreams)
	}
	m.parts.limit = partsLimit(m.headerLimit())
	m.lastID.Store(connections.Add(1) << 40)
	live.add(conn, "client", p.addr, opensOf(m.link, &m.mu, &m.streams, func(s *clientStream) *telemetry.Route { return s.rec.route }))
	m.event("connected", "", false)
	conn.Start(m)
	return m
}

// open enters s in the table. It waits for a free slot when the server limits
// the number of streams, until ctx ends. errRefused: no new calls here.
func (m *clientMux) open(ctx context.Context, s *clientStream) error {
	if m.slots != nil {
		waited, err := m.takeSlot(ctx)
		s.rec.waited, s.rec.slot = s.rec.waited+waited, s.rec.slot+waited
		if err != nil {
			return err
		}
	}
	s.mux, s.id = m, m.lastID.Add(1)
	s.in.init(s.id, m.conn, &m.waiters)
	s.out.init(s.id, s.id, m.conn)
	m.opening.Add(1)
	m.mu.Lock()
	open := !m.closed.Load()
	if open {
		m.streams.put(s.id, s)
	}
	m.mu.Unlock()
	if open {
		return nil
	}
	m.opened()
	if m.slots != nil {
		<-m.slots
	}
	return errRefused
}

// takeSlot waits for a free slot.
func (m *clientMux) takeSlot(ctx context.Context) (waited time.Duration, err error) {
	select {
	case m.slots <- struct{}{}:
		return 0, nil
	default:
	}
	began := telemetry.Now()
	select {
	case m.slots <- struct{}{}:
	case <-m.down:
		err = errRefused
	case <-ctx.Done():
		err = transport.ErrCanceled
	}
	return telemetry.Now() - began, err
}

// opened follows an open once the stream's first frame is written, or never will
// be. The server's GoAway is acknowledged when no such frame is to come.
//
// opening is counted up before closed is looked at and closed is set before
// opening is, so either the stream is refused or the GoAway waits for it.
func (m *clientMux) opened() {
	if m.opening.Add(-1) == 0 && m.leaving.Load() {
		m.sayGoAway()
	}
}

// sayGoAway does not wait for the server to read it.
func (m *clientMux) sayGoAway() {
	if m.bye.Swap(true) {
		return
	}
	go func() { // ends with the write or the connection
		_ = m.conn.Write(nil, wire.Header{Type: wire.TypeGoAway}, nil, nil)
	}()
}

// forget removes a stream whose call is over. Only the first call for an id counts.
func (m *clientMux) forget(id uint64) {
	m.mu.Lock()
	ok := m.streams.remove(id)
	m.parts.drop(id)
	over := m.streams.size == 0 && m.leaving.Load()
	m.mu.Unlock()
	if ok && m.slots != nil {
		<-m.slots
	}
	if over {
		go func() { _ = m.conn.Close() }()
	}
}

// stream returns the call, or nil, and whether parts of sections have come for any.
func (m *clientMux) stream(id uint64) (s *clientStream, parts bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.streams.get(id), m.parts.size > 0
}

// HandleFrame implements [transport.Handler].
func (m *clientMux) HandleFrame(h wire.Header, b *wire.Buf) {
	if err := m.handle(h, b); err != nil {
		m.conn.Fail(err)
	}
}

func (m *clientMux) handle(h wire.Header, b *wire.Buf) error {
	if h.Type == wire.TypeGoAway {
		b.Release()
		m.drain()
		return nil
	}
	if h.Type == wire.TypeStream && h.Flags == 0 && h.Stream == m.latest.id && m.latest.s != nil { // one of many messages
		return m.latest.s.in.deliver(h.Stream, &delivery{buf: b, data: b.B})
	}
	s, parts := m.stream(h.Stream)
	if s == nil { // late: the call is over on this side
		b.Release()
		return nil
	}
	m.latest.id, m.latest.s = h.Stream, s
	switch h.Type {
	case wire.TypeStream:
		return m.handleStream(s, h, b, parts)
	case wire.TypePart:
		defer b.Release()
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.streams.get(h.Stream) == nil {
			return nil
		}
		return m.parts.add(h.Stream, b.B)
	case wire.TypeReset:
		defer b.Release()
		r, err := wire.ParseReset(b.B)
		if err != nil {
			return errProtocol("%v", err)
		}
		s.reset(h.Stream, &r)
		return nil
	case wire.TypeWindow:
		defer b.Release()
		n, err := wire.ParseWindow(b.B)
		if err != nil {
			return errProtocol("%v", err)
		}
		return s.out.add(h.Stream, n)
	}
	b.Release()
	return errProtocol("frame type %d from the server", h.Type)
}

func (m *clientMux) handleStream(s *clientStream, h wire.Header, b *wire.Buf, parts bool) error {
	payload := b.B
	if parts && h.Flags&(wire.FlagHeader|wire.FlagTrailer) != 0 {
		m.mu.Lock()
		payload = m.parts.take(h.Stream, payload)
		m.mu.Unlock()
	}
	if h.Flags&(wire.FlagCall|wire.FlagHalfClose) != 0 {
		b.Release()
		return errProtocol("client-only flags %#x from the server", uint8(h.Flags))
	}
	d := delivery{buf: b}
	err := m.cutSections(&d, h.Flags, payload)
	if err != nil {
		b.Release()
		return errProtocol("%v", err)
	}
	if d.ended || d.err != nil {
		s.out.fail(h.Stream, errStreamDone)
	}
	return s.in.deliver(h.Stream, &d)
}

// cutSections splits a payload. A header or trailer that HTTP/2 would not carry
// fails the call alone, as it does in grpc-go.
func (m *clientMux) cutSections(d *delivery, flags wire.Flags, payload []byte) (err error) {
	var section []byte
	if flags&wire.FlagHeader != 0 {
		if section, payload, err = wire.CutSection(payload); err != nil {
			return err
		}
		d.header, err = wire.ParseHead(section, m.headerLimit())
		if d.err, err = m.judge(d.header.MD, err); d.err != nil || err != nil {
			return err
		}
		d.hasHeader, d.headerSize = true, len(section)
	}
	if flags&wire.FlagTrailer != 0 {
		if section, payload, err = wire.CutSection(payload); err != nil {
			return err
		}
		d.trailer, err = wire.ParseTrailer(section, m.headerLimit())
		if d.err, err = m.judge(d.trailer.MD, err); err != nil {
			return err
		}
		if d.err == nil && d.trailer.Code > math.MaxInt32 {
			_, perr := strconv.ParseInt(strconv.FormatUint(uint64(d.trailer.Code), 10), 10, 32) // grpc-go reads an int32
			d.err = status.Errorf(codes.Unknown, "transport: malformed grpc-status: %v", perr)
		}
		d.ended = d.err == nil
		d.hasTrailer = d.ended
	}
	d.data = payload
	return nil
}

// headerLimit is how many bytes of metadata a response may have, counted as
// HTTP/2 does.
func (m *clientMux) headerLimit() int {
	if m.maxHeaderList > 0 {
		return int(m.maxHeaderList)
	}
	return defaultHeaderList
}

// judge tells what is wrong with a call's metadata alone from a broken frame.
func (m *clientMux) judge(md wire.MD, err error) (call, frame error) {
	if errors.Is(err, wire.ErrHeaderList) {
		return status.Errorf(codes.Internal, "stile: the server's metadata exceeds the limit of %d bytes", m.headerLimit()), nil
	}
	if err != nil {
		return nil, err
	}
	return checkHeaders(md), nil
}

// checkHeaders applies the rules for header fields to what a peer sent.
func checkHeaders(md wire.MD) error {
	for k, vs := range md {
		if !validName(k) {
			return status.Errorf(codes.Internal, "invalid header field name %q", k)
		}
		for _, v := range vs {
			if !strings.HasSuffix(k, "-bin") && !validValue(v) {
				return status.Errorf(codes.Internal, "invalid header field value for %q", k)
			}
		}
	}
	return nil
}

// closeLocked stops new calls and reports whether there were any before.
func (m *clientMux) closeLocked() bool {
	if m.closed.Swap(true) {
		return false
	}
	close(m.down)
	return true
}

// drain stops new calls; those under way go on. It acknowledges the server's
// GoAway, after which the server may count on seeing no new call.
func (m *clientMux) drain() {
	m.mu.Lock()
	first := m.closeLocked()
	m.leaving.Store(true)
	m.mu.Unlock()
	if !first {
		return
	}
	m.onDown(m)
	if m.opening.Load() == 0 {
		m.sayGoAway()
	}
}

// HandleClose implements [transport.Handler].
func (m *clientMux) HandleClose(err error) {
	m.mu.Lock()
	first := m.closeLocked()
	m.cause = err
	streams := m.streams.takeAll()
	m.parts.clear()
	m.mu.Unlock()
	if first || errors.Is(err, transport.ErrProtocol) {
		m.onDown(m)
	}
	for _, c := range streams {
		c.s.out.fail(c.id, err)
		c.s.in.fail(c.id, err, true)
		c.s.in.keep(c.id)
		if m.slots != nil {
			<-m.slots
		}
	}
	for _, sh := range m.stats {
		sh.HandleConn(m.ctx, &stats.ConnEnd{Client: true})
	}
	live.drop(m.conn)
	m.link.Close()
	m.event("connection ended", err.Error(), errors.Is(err, transport.ErrProtocol))
	m.onGone(m)
}

// event tells what happened to the connection, if its calls are counted.
func (m *clientMux) event(kind, detail string, bad bool) {
	if m.link != nil {
		telemetry.Process().Event(telemetry.Event{Kind: kind, Subject: m.place.addr.String(), Detail: "over " + m.conn.Info().Transport, Example: detail, Error: bad, Single: true})
	}
}

// retire stops new calls; the connection closes when those under way have ended.
func (m *clientMux) retire() {
	m.mu.Lock()
	first := m.closeLocked()
	m.leaving.Store(true)
	idle := m.streams.size == 0
	m.mu.Unlock()
	if first {
		m.onDown(m)
	}
	if idle {
		go func() { _ = m.conn.Close() }()
	}
}

// alive reports whether the connection has not ended.
func (m *clientMux) alive() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cause == nil
}

// abandon ends every call with a status and closes the connection.
func (m *clientMux) abandon(err error) {
	m.mu.Lock()
	m.closeLocked()
	m.streams.all(func(id uint64, s *clientStream) {
		s.out.fail(id, err)
		s.in.fail(id, err, true)
	})
	m.mu.Unlock()
	_ = m.conn.Close()
}

// reset records that the server ended the call without a trailer.
func (s *clientStream) reset(id uint64, r *wire.Reset) {
	err := errRefused
	switch {
	case r.Code == uint32(codes.OK):
		err = status.Error(codes.Internal, "stile: the server reset the call with status OK")
	case r.Code != wire.ResetRefused:
		err = status.Error(codes.Code(r.Code), r.Message)
	}
	s.out.fail(id, errStreamDone)
	s.in.fail(id, err, true)
}
