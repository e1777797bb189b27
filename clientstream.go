package stile

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"github.com/stile-ipc/stile/internal/lazyctx"
	"github.com/stile-ipc/stile/telemetry"
	"github.com/stile-ipc/stile/transport/wire"
)

// errStreamDone tells a sender that the call is over; why is found by RecvMsg.
var errStreamDone = errors.New("stile: the call is over")

// errGoingAway is what users see of errRefused.
var errGoingAway = status.Error(codes.Unavailable, "the server is going away and took no new call")

// clientStream is one local call. It implements [grpc.ClientStream] with that
// interface's rules: one goroutine may send while one other receives.
type clientStream struct {
	mux    *clientMux
	id     uint64
	in     inbox
	out    outflow
	ctx    context.Context
	cancel context.CancelFunc // of ctx; nil when ctx is the caller's own
	try    *lazyctx.Attempt   // the caller's context, if the policy's chain made it

	desc             *grpc.StreamDesc
	method           string
	info             callInfo
	stats            []stats.Handler
	begin            time.Time
	maxSend, maxRecv int // bytes
	pack             packer
	unpack           unpacker
	packed           packed // of the sending goroutine

	rec         clientRecord
	sent, got   atomic.Int64 // bytes of messages
	opened      bool         // entered in the connection's table
	sentLast    bool
	encodingSet bool
	headerSeen  atomic.Bool // InHeader was reported
	received    bool        // a message was
	whole       bool        // the response was read as a whole
	grantRoom   [4]byte     // of the receiving goroutine
	call        wire.Call
	inTrace     wire.Trace // of call, if it has one
	head        []byte     // encoded call

	unwatch  func() bool // guarded by in.mu
	finished atomic.Bool
	finish1  sync.Once
}

var _ grpc.ClientStream = (*clientStream)(nil)

// start opens the call on m: sections, and the first message too when msg is
// not nil. errRefused: nothing was sent.
func (s *clientStream) start(m *clientMux, msg *packed, last bool) error {
	if err := m.open(s.ctx, s); err != nil {
		if s.ctx.Err() != nil {
			return contextError(s.ctx)
		}
		return err
	}
	s.opened = true
	defer m.opened()
	if size := headerListSize(s.call.MD); uint64(size) > uint64(m.settings.maxHeaderList) {
		return status.Errorf(codes.Internal, "header list size to send violates the maximum size (%d bytes) set by server", m.settings.maxHeaderList)
	}
	s.head = wire.EndSection(wire.AppendCall(wire.BeginSection(s.head[:0]), &s.call), 0)
	s.head = slices.Grow(s.head, prefixLen) // kept, so that the next call finds the room
	var b batch
	if msg != nil {
		b = msg.batch()
	}
	b.flags, b.head = wire.FlagCall, s.head
	if last {
		b.endFlags = wire.FlagHalfClose
	}
	s.outHeader()
	err := s.out.send(s.ctx, &b)
	if s.rec.span != nil && err == nil {
		s.rec.span.Sent = telemetry.Now()
	}
	return err
}

// watch ends the call when its context does.
func (s *clientStream) watch() {
	stop := context.AfterFunc(s.ctx, func() { s.end(contextError(s.ctx), false) })
	s.in.mu.Lock()
	s.unwatch = stop
	s.in.mu.Unlock()
}

func (s *clientStream) Context() context.Context { return s.ctx }

func (s *clientStream) Header() (metadata.MD, error) {
	h, err := s.in.waitHeader(s.ctx)
	if err != nil { // RecvMsg tells it
		s.finish(rpcError(err))
		return nil, nil
	}
	if h == nil { // trailers only
		return nil, nil
	}
	s.inHeader(h)
	return headerMD(h), nil
}

func headerMD(h *wire.Head) metadata.MD {
	md := make(metadata.MD, len(h.MD)+1)
	for k, v := range h.MD {
		md[k] = v
	}
	md["content-type"] = []string{contentType(h.ContentSubtype)}
	return md
}

// Trailer implements [grpc.ClientStream]. A response of a trailer alone carries
// the content type there, as in grpc-go.
func (s *clientStream) Trailer() metadata.MD {
	s.in.mu.Lock()
	defer s.in.mu.Unlock()
	if !s.in.hasTrailer {
		return metadata.MD{}
	}
	md := make(metadata.MD, len(s.in.trailer.MD)+1)
	for k, v := range s.in.trailer.MD {
		md[k] = v
	}
	if !s.in.hasHeader {
		md["content-type"] = []string{contentType(s.info.contentSubtype)}
	}
	return md
}

func (s *clientStream) SendMsg(m any) error {
	if s.sentLast {
		err := status.Errorf(codes.Internal, "SendMsg called after CloseSend")
		s.finish(err)
		return err
	}
	if !s.desc.ClientStreams {
		s.sentLast = true
	}
	p := &s.packed
	err := s.pack.pack(p, m)
	if err == nil {
		err = checkSize(len(p.data), s.maxSend)
	}
	if err != nil {
		p.free()
		s.finish(err)
		return err
	}
	defer p.free()
	b := p.batch()
	if s.sentLast {
		b.endFlags = wire.FlagHalfClose
	}
	if s.finished.Load() || s.out.send(s.ctx, &b) != nil {
		return io.EOF // the status is RecvMsg's to tell
	}
	s.sent.Add(int64(len(p.data)))
	s.outPayload(m, p)
	return nil
}

func checkSize(size, limit int) error {
	if size > limit {
		return status.Errorf(codes.ResourceExhausted, "trying to send message larger than max (%d vs. %d)", size, limit)
	}
	return nil
}

func (s *clientStream) CloseSend() error {
	if s.sentLast {
		return nil
	}
	s.sentLast = true
	if !s.finished.Load() {
		_ = s.out.send(s.ctx, &batch{endFlags: wire.FlagHalfClose})
	}
	return nil
}

func (s *clientStream) RecvMsg(m any) error {
	err := s.recv(m)
	if err == nil && !s.desc.ServerStreams {
		err = s.recvEnd()
	}
	if errors.Is(err, errRefused) {
		err = errGoingAway
	}
	if err != nil {
		s.finish(err)
	} else if !s.desc.ServerStreams {
		s.finish(nil)
	}
	return err
}

// recvEnd reads the end of a call that has one response.
func (s *clientStream) recvEnd() error {
	msg, err := s.in.readMessage(s.ctx, s.maxRecv, s.grant)
	switch {
	case err == io.EOF:
		return s.endStatus(nil)
	case err != nil:
		return readError(err)
	}
	msg.release()
	return status.Error(codes.Internal, "cardinality violation: expected <EOF> for non server-streaming RPCs, but received another message")
}

// recv reads one message. io.EOF: the call ended with OK.
func (s *clientStream) recv(m any) error {
	msg, err := s.in.readMessage(s.ctx, s.maxRecv, s.grant)
	if herr := s.readHeader(); herr != nil {
		msg.release()
		return herr
	}
	if err == io.EOF {
		if err := s.endStatus(io.EOF); err != io.EOF {
			return err
		}
		if !s.desc.ServerStreams && !s.received {
			return status.Error(codes.Internal, "cardinality violation: received no response message from non-server-streaming RPC")
		}
		return io.EOF
	}
	if err != nil {
		return readError(err)
	}
	defer msg.release()
	return s.unpackInto(&msg, m)
}

// take reads the header and the message of a whole response.
func (s *clientStream) take(msg *message, m any) error {
	if err := s.readHeader(); err != nil {
		return err
	}
	return s.unpackInto(msg, m)
}

func (s *clientStream) unpackInto(msg *message, m any) error {
	wireLen := len(msg.data)
	s.seeResponse(msg)
	size, err := s.unpack.unpack(msg, m)
	if err != nil {
		return err
	}
	s.received = true
	s.got.Add(int64(wireLen))
	s.inPayload(m, size, wireLen)
	return nil
}

// endStatus is the call's status, or ok.
func (s *clientStream) endStatus(ok error) error {
	t := s.in.status()
	s.inTrailer(t)
	if err := statusOf(t); err != nil {
		return err
	}
	return ok
}

// readHeader takes note of the response header once it is there.
func (s *clientStream) readHeader() error {
	if s.encodingSet {
		return nil
	}
	h := s.in.responseHeader()
	if h == nil {
		return nil
	}
	s.encodingSet = true
	s.inHeader(h)
	s.unpack.setEncoding(h.Encoding, s.unpack.dc)
	if s.unpack.encoding != "" && !s.info.accepts(s.unpack.encoding) {
		return status.Errorf(codes.Internal, "grpc: peer compressed the response with %q which is not allowed by AcceptCompressors", h.Encoding)
	}
	return nil
}

// grant lets the server send n more bytes.
func (s *clientStream) grant(n int) {
	h := wire.Header{Type: wire.TypeWindow, Stream: s.id}
	_ = s.mux.conn.Write(s.ctx.Done(), h, wire.AppendWindow(s.grantRoom[:0], uint32(n)), nil)
}

// finish ends the call on this side; err is its outcome, nil or io.EOF for OK.
// Only the first call counts. It never blocks.
func (s *clientStream) finish(err error) { s.end(err, true) }

// end is finish; read tells whether the caller is done with reading. If it is not,
// messages that have arrived can still be received.
func (s *clientStream) end(err error, read bool) {
	s.finish1.Do(func() {
		if err == io.EOF {
			err = nil
		}
		s.finished.Store(true)
		s.in.mu.Lock()
		unwatch := s.unwatch
		s.in.mu.Unlock()
		if unwatch != nil {
			unwatch()
		}
		if s.opened {
			s.hangUp(err, read)
		}
		s.after(err)
		if s.cancel != nil {
			s.cancel()
		}
	})
}

// hangUp gives back what the connection holds for the call, and tells the server
// if it does not know that the call is over.
func (s *clientStream) hangUp(err error, read bool) {
	s.in.mu.Lock()
	over := s.in.over
	s.in.mu.Unlock()
	if err != nil {
		s.in.fail(s.id, err, false)
	}
	if read {
		s.in.discard()
	} else {
		s.in.keep(s.id)
	}
	s.out.fail(s.id, errStreamDone)
	if !over && s.out.sent.Load() {
		s.sendReset(err)
	} else {
		s.mux.forget(s.id)
	}
}

// sendReset tells the server that the call is over, and then makes room for another
// one, which must not come to the server first. It does not wait for a server that
// does not read: a frame that does not fit now is sent later.
func (s *clientStream) sendReset(err error) {
	code := codes.Canceled
	if err != nil {
		code = status.Code(err)
	}
	h := wire.Header{Type: wire.TypeReset, Stream: s.id}
	head := wire.AppendReset(nil, &wire.Reset{Code: uint32(code)})
	m := s.mux
	if m.conn.Write(closedChan, h, head, nil) == nil {
		m.forget(h.Stream)
		return
	}
	go func() { // ends with the write or the connection
		_ = m.conn.Write(nil, h, head, nil)
		m.forget(h.Stream)
	}()
}

var closedChan = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// after gives the caller what its options ask for.
func (s *clientStream) after(err error) {
	var trailer metadata.MD
	if len(s.info.trailer) > 0 || len(s.stats) > 0 {
		trailer = s.Trailer()
	}
	for _, md := range s.info.header {
		if h := s.in.responseHeader(); h != nil {
			*md = headerMD(h)
		} else {
			*md = nil
		}
	}
	for _, md := range s.info.trailer {
		*md = trailer
	}
	for _, p := range s.info.peer {
		if s.opened {
			*p = *s.mux.peer
		}
	}
	if err != nil {
		s.report()
	}
	if errors.Is(err, errRefused) { // the call is made again, and ends there
		s.endStats(errGoingAway, trailer)
		return
	}
	s.record(err)
	s.endStats(err, trailer)
	for _, f := range s.info.onFinish {
		f(err)
	}
}

// report tells the policy's chain what is to be known of an attempt that has failed.
func (s *clientStream) report() {
	if s.try == nil {
		return
	}
	s.try.Report = lazyctx.Report{Known: true, Sent: s.out.sent.Load(), Answered: s.in.responseHeader() != nil}
	if t := s.in.status(); t != nil {
		s.try.Report.Trailer = t.MD
	}
	if span := s.rec.span; span != nil {
		s.try.Report.Trace = span.Trace
	}
}
