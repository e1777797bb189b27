package stile

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/stile-ipc/stile/transport/wire"
)

// serverStream is one call at the local door. It implements [grpc.ServerStream]
// with that interface's rules, and grpc.ServerTransportStream by
// [transportStream].
type serverStream struct {
	cc  *callContext
	in  inbox
	out outflow
	ctx context.Context // cc, as the stats handlers tagged it

	desc     *grpc.StreamDesc
	pack     packer
	unpack   unpacker
	packed   packed // of the sending goroutine
	encoding string // of the responses
	received bool   // a message was
	reusable bool   // the handler got nothing that it may keep of s
	stats    statsTimes
	rec      serverRecord

	sent, got atomic.Int64 // bytes of messages

	mu         sync.Mutex // header, trailer and what was sent of them
	serving    uint64     // the call's key; 0: none
	users      int        // who use the stream besides the handler
	header     metadata.MD
	trailer    metadata.MD
	headerSent bool
	onItsWay   chan struct{} // closed when the header that SendHeader sends is written
	done       bool          // the status was sent, or the handler has returned
	grantRoom  [4]byte
	headRoom   [48]byte // of the last frame: header section, trailer section, prefix
	endRoom    [32]byte
}

var (
	_ grpc.ServerStream          = (*serverStream)(nil)
	_ grpc.ServerTransportStream = (*transportStream)(nil)
)

// transportStream is what grpc.SetHeader and its like find in the context, also
// when the call is over.
type transportStream callContext

func (t *transportStream) Method() string { return t.call.Method }

// SetHeader implements grpc.ServerTransportStream. As in grpc-go it checks
// nothing; a key that HTTP/2 would not carry ends the call at the client.
func (t *transportStream) SetHeader(md metadata.MD) error {
	return t.use(func(s *serverStream) error { return s.setHeader(md) })
}

func (t *transportStream) SendHeader(md metadata.MD) error {
	return t.use(func(s *serverStream) error { return s.SendHeader(md) })
}

func (t *transportStream) SetTrailer(md metadata.MD) error {
	_ = t.use(func(s *serverStream) error { s.SetTrailer(md); return nil })
	return nil
}

// use calls f with the stream unless the call is over. The stream serves no other
// call before f has returned.
func (t *transportStream) use(f func(*serverStream) error) error {
	s := t.stream.Load()
	if s == nil || !s.enter(t.key) {
		return errIllegalHeaderWrite
	}
	defer s.leave()
	return f(s)
}

// enter keeps the stream from serving another call, if it still serves the one with
// this key.
func (s *serverStream) enter(key uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.serving != key {
		return false
	}
	s.users++
	return true
}

func (s *serverStream) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users--
}

// errIllegalHeaderWrite has grpc-go's text.
var errIllegalHeaderWrite = status.Error(codes.Internal, "transport: SendHeader called multiple times")

func (s *serverStream) Context() context.Context { return s.ctx }

func (s *serverStream) SetHeader(md metadata.MD) error {
	if md.Len() == 0 {
		return nil
	}
	if err := validateMD(md); err != nil {
		return status.Error(codes.Internal, err.Error())
	}
	return s.setHeader(md)
}

func (s *serverStream) setHeader(md metadata.MD) error {
	if md.Len() == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.headerSent || s.done {
		return errIllegalHeaderWrite
	}
	s.header = metadata.Join(s.header, md)
	return nil
}

func (s *serverStream) SendHeader(md metadata.MD) error {
	if err := validateMD(md); err != nil {
		return status.Error(codes.Internal, err.Error())
	}
	s.mu.Lock()
	if s.headerSent || s.done {
		s.mu.Unlock()
		return errIllegalHeaderWrite
	}
	s.header = metadata.Join(s.header, md)
	head := s.takeHeaderLocked(nil)
	written := make(chan struct{})
	s.onItsWay = written
	s.mu.Unlock()
	defer close(written)
	s.outHeader()
	if err := s.out.send(s.ctx, &batch{flags: wire.FlagHeader, head: head}); err != nil {
		return s.sendError(err)
	}
	return nil
}

// takeHeaderLocked encodes the header section; afterwards it counts as sent.
func (s *serverStream) takeHeaderLocked(room []byte) []byte {
	s.headerSent = true
	h := wire.Head{ContentSubtype: s.cc.call.ContentSubtype, Encoding: s.encoding, MD: sendable(s.header)}
	at := len(room)
	return wire.EndSection(wire.AppendHead(wire.BeginSection(room), &h), at)
}

func (s *serverStream) SetTrailer(md metadata.MD) {
	if md.Len() == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.done {
		s.trailer = metadata.Join(s.trailer, md)
	}
}

func (s *serverStream) SendMsg(m any) error {
	err := s.sendMsg(m)
	if err != nil && err != io.EOF {
		st, _ := status.FromError(rpcError(err))
		_ = s.writeStatus(st)
	}
	return err
}

func (s *serverStream) sendMsg(m any) error {
	p := &s.packed
	if err := s.pack.pack(p, m); err != nil {
		return err
	}
	defer p.free()
	if err := checkSize(len(p.data), s.cc.conn.door.set.maxSend); err != nil {
		return err
	}
	b := p.batch()
	s.mu.Lock()
	if s.done {
		s.mu.Unlock()
		return s.sendError(errStreamDone)
	}
	if !s.headerSent {
		b.flags, b.head = wire.FlagHeader, s.takeHeaderLocked(nil)
	}
	header := s.onItsWay
	s.mu.Unlock()
	if header != nil {
		<-header
	}
	if b.flags != 0 {
		s.outHeader()
	}
	if err := s.out.send(s.ctx, &b); err != nil {
		return s.sendError(err)
	}
	s.sent.Add(int64(len(p.data)))
	s.outPayload(m, p)
	return nil
}

// sendError maps the failure of a send as grpc-go's server does.
func (s *serverStream) sendError(err error) error {
	if s.ctx.Err() != nil {
		return contextError(s.ctx)
	}
	if errors.Is(err, errStreamDone) {
		return status.Error(codes.Internal, "transport: the stream is done or WriteHeader was already called")
	}
	return rpcError(err)
}

func (s *serverStream) RecvMsg(m any) error {
	err := s.recvMsg(m)
	if err != nil && err != io.EOF {
		st, _ := status.FromError(rpcError(err))
		_ = s.writeStatus(st)
	}
	return err
}

func (s *serverStream) recvMsg(m any) error {
	limit := s.cc.conn.door.set.maxRecv
	msg, err := s.in.readMessage(s.ctx, limit, s.grant)
	if err == io.EOF {
		if !s.desc.ClientStreams && !s.received {
			return status.Error(codes.Internal, "cardinality violation: received no request message from non-client-streaming RPC")
		}
		return io.EOF
	}
	if err != nil {
		return readError(err)
	}
	wireLen := len(msg.data)
	s.seeRequest(&msg)
	size, err := s.unpack.unpack(&msg, m)
	msg.release()
	if err != nil {
		return err
	}
	s.received = true
	s.got.Add(int64(wireLen))
	s.inPayload(m, size, wireLen)
	if s.desc.ClientStreams {
		return nil
	}
	msg, err = s.in.readMessage(s.ctx, limit, s.grant)
	if err == io.EOF {
		return nil
	}
	msg.release()
	if err != nil {
		return readError(err)
	}
	return status.Error(codes.Internal, "cardinality violation: received multiple request messages for non-client-streaming RPC")
}

// grant lets the client send n more bytes.
func (s *serverStream) grant(n int) {
	h := wire.Header{Type: wire.TypeWindow, Stream: s.cc.id}
	_ = s.cc.conn.conn.Write(s.ctx.Done(), h, wire.AppendWindow(s.grantRoom[:0], uint32(n)), nil)
}

// writeReply sends the response of a unary call with its status, in one frame
// when it fits.
func (s *serverStream) writeReply(reply any) error {
	p := &s.packed
	err := s.pack.pack(p, reply)
	if err == nil {
		err = checkSize(len(p.data), s.cc.conn.door.set.maxSend)
	}
	if err != nil {
		p.free()
		st, _ := status.FromError(err)
		_ = s.writeStatus(st)
		return err
	}
	defer p.free()
	s.sent.Store(int64(len(p.data)))
	lent := p.lender != nil
	if lent { // it is the peer's once it is sent
		s.seeReply(p)
	}
	b := p.batch()
	err = s.finish(&b, statusOK, func() { s.outPayload(reply, p) })
	if !lent {
		s.seeReply(p)
	}
	return err
}

// writeStatus ends the call. Only the first status is sent.
func (s *serverStream) writeStatus(st *status.Status) error {
	return s.finish(&batch{}, st, nil)
}

// finish sends b and the status behind it.
func (s *serverStream) finish(b *batch, st *status.Status, payloadSent func()) error {
	s.mu.Lock()
	if s.done {
		s.mu.Unlock()
		return nil
	}
	s.done = true
	sendHeader := !s.headerSent && (b.hasMsg || len(s.header) > 0)
	if sendHeader {
		b.flags, b.head = wire.FlagHeader, s.takeHeaderLocked(s.headRoom[:0])
	}
	if b.head == nil {
		b.head = s.headRoom[:0]
	}
	t := trailerOf(st, s.trailer)
	t.Times, s.rec.code = s.times(), t.Code
	header := s.onItsWay
	s.mu.Unlock()
	if header != nil {
		<-header
	}
	b.endFlags = wire.FlagTrailer
	b.end = wire.EndSection(wire.AppendTrailer(wire.BeginSection(s.endRoom[:0]), &t), 0)
	if sendHeader {
		s.outHeader()
	}
	s.cc.conn.ending(s.cc)
	ctx := context.Background() // a status is sent even when the deadline has passed
	if b.hasMsg {
		ctx = s.ctx
	}
	err := s.out.send(ctx, b)
	if err != nil {
		if !b.hasMsg {
			return s.sendError(err)
		}
		st, _ = status.FromError(s.sendError(err))
		return s.resend(st)
	}
	if payloadSent != nil {
		payloadSent()
	}
	s.outTrailer()
	return nil
}

// resend sends the status that takes the place of a reply that could not be sent.
func (s *serverStream) resend(st *status.Status) error {
	t := trailerOf(st, nil)
	s.rec.code = t.Code
	end := wire.EndSection(wire.AppendTrailer(wire.BeginSection(nil), &t), 0)
	_ = s.out.send(context.Background(), &batch{endFlags: wire.FlagTrailer, end: end})
	return st.Err()
}

// canceled ends the call because the client did.
func (c *callContext) canceled() {
	if s := c.stream.Load(); s != nil {
		s.out.fail(c.key, statusCanceled)
		s.in.fail(c.key, statusCanceled, true)
	}
	c.Cancel(context.Canceled)
}

// close gives back what the call holds; the handler has returned.
func (s *serverStream) close() {
	s.mu.Lock()
	s.done, s.serving = true, 0
	unused := s.users == 0
	s.mu.Unlock()
	s.cc.conn.ending(s.cc)
	c := s.cc
	c.stream.Store(nil)
	c.Cancel(context.Canceled)
	s.out.fail(c.key, errStreamDone)
	c.conn.forget(c.id)
	if s.reusable && unused {
		s.recycle()
	} else {
		s.in.discard()
	}
}

// serverStreams holds the streams of unary calls whose handlers have returned: a
// handler has seen nothing of them but the context and, while it ran, a function
// that decodes its request.
var serverStreams = sync.Pool{New: func() any { return new(serverStream) }}

// newServerStream makes the stream of a call that has come.
func newServerStream(c *callContext) *serverStream {
	s := serverStreams.Get().(*serverStream)
	s.cc = c
	s.in.init(c.key, c.conn.conn, &c.conn.waiters)
	s.out.init(c.key, c.id, c.conn.conn)
	s.mu.Lock()
	s.serving, s.done = c.key, false
	s.mu.Unlock()
	c.stream.Store(s)
	return s
}

// recycle makes s ready for the pool. What still comes for the call is turned away
// by its key.
func (s *serverStream) recycle() {
	s.in.clear()
	s.cc, s.ctx, s.desc, s.stats, s.rec = nil, nil, nil, statsTimes{}, serverRecord{}
	s.sent.Store(0)
	s.got.Store(0)
	s.received, s.headerSent, s.reusable = false, false, false
	s.header, s.trailer, s.encoding, s.onItsWay = nil, nil, "", nil
	s.pack, s.unpack = packer{}, unpacker{}
	s.out.host = nil
	serverStreams.Put(s)
}
