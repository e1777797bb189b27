package stile

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/stile-ipc/stile/transport"
	"github.com/stile-ipc/stile/transport/wire"
)

// initialWindow is how many message bytes a peer may send on a stream before the
// receiver has read any. It bounds what a stream that nobody reads can pin, and
// is part of protocol version 1.
const initialWindow = 256 << 10

// prefixLen is gRPC's length prefix of a message: one byte of flags, four of
// big-endian length.
const prefixLen = 5

var errWindow = fmt.Errorf("%w: more message bytes than the window allows", transport.ErrProtocol)

// inbox is the receiving half of a stream: what the connection's reader puts in
// and one user goroutine takes out. The reader never blocks on it.
type inbox struct {
	conn    transport.Conn // for Poll only
	waiters *atomic.Int32  // goroutines that wait for frames of conn

	mu       sync.Mutex
	key      uint64 // of the stream, in this process; what comes for another is dropped
	chunks   []chunk
	room     [2]chunk
	first    int  // index of the first unread chunk
	allowed  int  // bytes the peer may still send
	consumed int  // bytes read and not yet granted again
	ended    bool // the peer sends no more message bytes
	err      error
	over     bool // the peer knows that the stream has ended
	waiting  bool // the receiving goroutine does

	header     wire.Head    // response header (client side), if hasHeader
	trailer    wire.Trailer // status (client side), if hasTrailer; then ended too
	hasHeader  bool
	hasTrailer bool
	headerSize int // encoded size of the header section, bytes

	arrived atomic.Bool   // something changed since the receiving goroutine last looked
	wake    chan struct{} // capacity 1, made by the first wait; signalled when waiting
	begun   chan struct{} // made by waitHeader, closed when there is a header or an end
}

// chunk is a part of the message byte stream.
type chunk struct {
	buf  *wire.Buf
	data []byte // unread part of buf
}

// init makes the inbox ready for a stream; it may have served another one.
func (in *inbox) init(key uint64, conn transport.Conn, waiters *atomic.Int32) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.key, in.conn, in.waiters = key, conn, waiters
	in.chunks, in.first, in.allowed, in.consumed = in.room[:0], 0, initialWindow, 0
	in.ended, in.err, in.over, in.waiting = false, nil, false, false
	in.header, in.trailer, in.hasHeader, in.hasTrailer = wire.Head{}, wire.Trailer{}, false, false
}

// clear gives up what a call has left, and turns away what still comes for it.
func (in *inbox) clear() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.discardLocked()
	in.key = 0
	in.header, in.trailer, in.hasHeader, in.hasTrailer = wire.Head{}, wire.Trailer{}, false, false
}

// delivery is what one frame brings to a stream. Its parts take effect together,
// in the order of the fields.
type delivery struct {
	header     wire.Head
	hasHeader  bool
	headerSize int
	buf        *wire.Buf // holds data; the inbox takes it
	data       []byte    // message bytes
	ended      bool      // no more message bytes will come
	trailer    wire.Trailer
	hasTrailer bool  // then ended too
	err        error // a reason to fail the stream, when it has not ended
}

// deliver adds what a frame brought. It reports an error when the peer exceeds its
// window.
func (in *inbox) deliver(key uint64, d *delivery) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.key != key || in.err != nil || in.ended {
		d.buf.Release()
		return nil
	}
	if d.hasHeader && !in.hasHeader {
		in.header, in.hasHeader, in.headerSize = d.header, true, d.headerSize
	}
	if err := in.queueLocked(d.buf, d.data); err != nil {
		return err
	}
	in.ended, in.trailer, in.hasTrailer = d.ended, d.trailer, d.hasTrailer
	if in.over = d.ended; !d.ended {
		in.err = d.err
	}
	in.signalLocked()
	return nil
}

// queueLocked queues data, a part of buf at its end, and buf's tail. It owns buf. A
// tail may overdraw the window, once it is open at all: it takes no memory of ours.
func (in *inbox) queueLocked(buf *wire.Buf, data []byte) error {
	tail := buf.Tail
	buf.Tail = nil
	ok := len(data) == 0 || in.allowed >= len(data)
	if tail != nil {
		ok = in.allowed > 0
		in.allowed -= len(tail.B)
	}
	in.allowed -= len(data)
	if !ok || len(data) == 0 {
		buf.Release()
	} else {
		in.addLocked(buf, data)
	}
	switch {
	case tail == nil:
	case ok:
		in.addLocked(tail, tail.B)
	default:
		tail.Release()
	}
	if !ok {
		return errWindow
	}
	return nil
}

// backlog is how many chunks may wait before small ones are put together, so that
// a stream of tiny frames that nobody reads pins no more than its window suggests.
const backlog = 16

// addLocked appends data, a part of buf at its end or memory of its own.
func (in *inbox) addLocked(buf *wire.Buf, data []byte) {
	if n := len(in.chunks); n-in.first >= backlog {
		last := &in.chunks[n-1]
		if cap(last.data)-len(last.data) >= len(data) {
			last.data = append(last.data, data...)
			buf.Release()
			return
		}
	}
	if len(in.chunks) == cap(in.chunks) && in.first > 0 {
		n := copy(in.chunks, in.chunks[in.first:])
		clear(in.chunks[n:])
		in.chunks, in.first = in.chunks[:n], 0
	}
	in.chunks = append(in.chunks, chunk{buf, data})
}

// fail makes every read return err once the messages already here are read.
// The first error wins; an error after the end is of no interest. over tells
// whether the peer knows of it.
func (in *inbox) fail(key uint64, err error, over bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.key == key && !in.ended && in.err == nil {
		in.err, in.over = err, over
		in.signalLocked()
	}
}

// discard gives back everything that is queued. Later puts are released at once.
func (in *inbox) discard() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.discardLocked()
}

func (in *inbox) discardLocked() {
	if in.err == nil {
		in.err = io.ErrClosedPipe
	}
	for _, c := range in.chunks[in.first:] {
		c.buf.Release()
	}
	clear(in.chunks)
	in.chunks, in.first = nil, 0
}

func (in *inbox) signalLocked() {
	if in.begun != nil && (in.hasHeader || in.ended || in.err != nil) {
		close(in.begun)
		in.begun = nil
	}
	if !in.arrived.Load() {
		in.arrived.Store(true)
	}
	if in.waiting {
		in.waiting = false
		in.wake <- struct{}{} // never blocks: at most one signal per wait
	}
}

// awaitLocked lets the one receiving goroutine wait until something arrives or
// ctx ends. It is called with mu held and returns with mu held. A goroutine that
// waits alone receives for itself first; among many the connection's own goroutine
// does better (ADR 2).
func (in *inbox) awaitLocked(ctx context.Context) {
	alone := in.waiters.Add(1) == 1
	defer in.waiters.Add(-1)
	if alone {
		in.arrived.Store(false)
		in.mu.Unlock()
		in.conn.Poll(&in.arrived)
		in.mu.Lock()
		if in.arrived.Load() {
			return
		}
	}
	if in.wake == nil {
		in.wake = make(chan struct{}, 1)
	}
	in.waiting = true
	in.mu.Unlock()
	done := ctx.Done()
	if done == nil { // half the price of a select
		<-in.wake
		in.mu.Lock()
		return
	}
	select {
	case <-in.wake:
		in.mu.Lock()
		return
	case <-done:
	}
	in.mu.Lock()
	if in.waiting {
		in.waiting = false
	} else {
		<-in.wake // signalled between done and the lock
	}
}

// available reports whether a read would find bytes, under mu.
func (in *inbox) availableLocked() bool { return in.first < len(in.chunks) }

// message is one received message as it came over the wire.
type message struct {
	data       []byte
	compressed byte // first byte of gRPC's prefix
	buf        *wire.Buf
}

// borrowed reports whether the peer can still change data.
func (m *message) borrowed() bool { return m.buf != nil && m.buf.Borrowed() }

func (m *message) release() {
	if m.buf != nil {
		m.buf.Release()
	}
	*m = message{}
}

// errTooLarge is returned by readMessage for a message over the limit.
type errTooLarge struct{ size, limit int }

func (e *errTooLarge) Error() string {
	return fmt.Sprintf("grpc: received message larger than max (%d vs. %d)", e.size, e.limit)
}

// readMessage takes the next message. grant is called, without locks, with the
// number of bytes that the peer may send in addition. It returns io.EOF at the
// end, io.ErrUnexpectedEOF for an end inside a message, [*errTooLarge], the
// context's error, or what fail was given.
func (in *inbox) readMessage(ctx context.Context, limit int, grant func(int)) (message, error) {
	var prefix [prefixLen]byte
	in.mu.Lock()
	defer in.mu.Unlock()
	if n, err := in.readLocked(ctx, prefix[:], grant); err != nil {
		if n > 0 {
			err = unexpected(err)
		}
		return message{}, err
	}
	m := message{compressed: prefix[0]}
	size := int(binary.BigEndian.Uint32(prefix[1:]))
	if size > limit {
		return m, &errTooLarge{size, limit}
	}
	if size == 0 {
		return m, nil
	}
	if err := in.waitLocked(ctx, grant); err != nil {
		return m, unexpected(err)
	}
	if c := &in.chunks[in.first]; len(c.data) == size { // the usual case: take the buffer itself
		m.data, m.buf = c.data, c.buf
		in.popLocked()
		in.consumed += size
		in.grantLocked(grant)
		return m, nil
	}
	data, err := in.collectLocked(ctx, size, grant)
	m.data = data
	return m, unexpected(err)
}

// readReply waits for what comes first and takes it if it is a whole response:
// header, one message and the trailer of a call that went well, as most servers
// send them in one frame. The end of the stream is then read too. Otherwise it
// takes nothing.
func (in *inbox) readReply(ctx context.Context, limit int) (m message, whole bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for !in.availableLocked() && in.endLocked(ctx) == nil {
		in.awaitLocked(ctx)
	}
	if !in.hasTrailer || !in.hasHeader || in.trailer.Code != 0 || !in.availableLocked() {
		return message{}, false
	}
	c := in.chunks[in.first]
	if len(c.data) < prefixLen {
		return message{}, false
	}
	prefix, body := c.data[:prefixLen], c.data[prefixLen:]
	lent := len(body) == 0 && len(in.chunks)-in.first == 2
	if lent {
		body = in.chunks[in.first+1].data
	}
	size := int(binary.BigEndian.Uint32(prefix[1:]))
	if size > limit || size != len(body) || !lent && len(in.chunks)-in.first != 1 {
		return message{}, false
	}
	m = message{data: body, compressed: prefix[0], buf: c.buf}
	if lent {
		in.popLocked()
		c.buf.Release()
		m.buf = in.chunks[in.first].buf
	}
	in.popLocked()
	return m, true
}

// unexpected is what an end means inside a message. The cause of a lost
// connection may wrap io.EOF and is not one.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// eager is how much is allocated on the word of a length prefix alone, in bytes.
const eager = initialWindow / 2

// collectLocked reads size bytes that lie in several chunks.
func (in *inbox) collectLocked(ctx context.Context, size int, grant func(int)) ([]byte, error) {
	data := make([]byte, min(size, eager))
	for at := 0; ; {
		n, err := in.readLocked(ctx, data[at:], grant)
		at += n
		if err != nil || at == size {
			return data[:at], err
		}
		data = append(data, make([]byte, min(size-at, len(data)))...)
	}
}

// readLocked fills p, waiting as needed. At the end of the stream it returns
// io.EOF and how much it read.
func (in *inbox) readLocked(ctx context.Context, p []byte, grant func(int)) (int, error) {
	n := 0
	for n < len(p) {
		if err := in.waitLocked(ctx, grant); err != nil {
			return n, err
		}
		n += in.copyLocked(p[n:])
	}
	in.grantLocked(grant)
	return n, nil
}

// readSome waits for bytes and reads what is there, at least one byte. What is still
// to be read when ctx ends stays.
func (in *inbox) readSome(ctx context.Context, p []byte, grant func(int)) (n int, err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if err := in.waitLocked(ctx, grant); err != nil {
		return 0, err
	}
	for n < len(p) && in.availableLocked() {
		n += in.copyLocked(p[n:])
	}
	in.grantLocked(grant)
	return n, nil
}

// copyLocked copies from the first chunk and drops it once it is read.
func (in *inbox) copyLocked(p []byte) int {
	c := &in.chunks[in.first]
	k := copy(p, c.data)
	in.consumed += k
	if c.data = c.data[k:]; len(c.data) == 0 {
		c.buf.Release()
		in.popLocked()
	}
	return k
}

// waitLocked waits until bytes are there, or says why none will come.
func (in *inbox) waitLocked(ctx context.Context, grant func(int)) error {
	for !in.availableLocked() {
		if err := in.endLocked(ctx); err != nil {
			return err
		}
		in.grantLocked(grant)
		if in.availableLocked() || in.ended || in.err != nil {
			continue
		}
		in.awaitLocked(ctx)
	}
	return nil
}

// endLocked says why no more bytes come, or nil.
func (in *inbox) endLocked(ctx context.Context) error {
	switch {
	case in.ended:
		return io.EOF
	case in.err != nil:
		return in.err
	}
	return ctx.Err()
}

// popLocked drops the first chunk, whose buffer has a new owner or none.
func (in *inbox) popLocked() {
	in.chunks[in.first] = chunk{}
	if in.first++; in.first == len(in.chunks) {
		in.chunks, in.first = in.chunks[:0], 0
	}
}

// grantLocked gives the peer new window once half of it is used up.
func (in *inbox) grantLocked(grant func(int)) {
	if in.consumed < initialWindow/2 || in.ended || in.err != nil {
		return
	}
	n := in.consumed
	in.consumed = 0
	in.allowed += n
	in.mu.Unlock()
	grant(n)
	in.mu.Lock()
}

// waitHeader waits for the response header or the end of the stream and returns
// the header, nil when there is none. Unlike all other reading it may be called by
// several goroutines, and beside the receiving one.
func (in *inbox) waitHeader(ctx context.Context) (*wire.Head, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for !in.hasHeader {
		if err := in.endLocked(ctx); err != nil {
			if err == io.EOF {
				err = nil
			}
			return nil, err
		}
		if in.begun == nil {
			in.begun = make(chan struct{})
		}
		begun := in.begun
		in.mu.Unlock()
		select {
		case <-begun:
		case <-ctx.Done():
		}
		in.mu.Lock()
	}
	return &in.header, nil
}

// status returns the trailer, which does not change any more, or nil.
func (in *inbox) status() *wire.Trailer {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.hasTrailer {
		return nil
	}
	return &in.trailer
}

// responseHeader returns the header section if it has arrived, else nil.
func (in *inbox) responseHeader() *wire.Head {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.hasHeader {
		return nil
	}
	return &in.header
}
