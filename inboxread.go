package stile

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/stile-ipc/stile/transport/wire"
)

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
	if err := in.collectLocked(ctx, &m, size, grant); err != nil {
		m.release()
		return m, unexpected(err)
	}
	return m, nil
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

// collectLocked reads size bytes, which share a chunk with others or lie in several,
// into m. It takes memory for them when they are here, not on the word of the prefix.
func (in *inbox) collectLocked(ctx context.Context, m *message, size int, grant func(int)) error {
	for in.queued < size {
		if err := in.endLocked(ctx); err != nil {
			if in.err == nil && !in.ended {
				in.err = err
			}
			in.discardLocked() // half a message: what is here must not be read as another
			return err
		}
		in.aheadLocked(size, grant)
		want := min(size, in.queued+in.allowed)
		if in.queued >= want || in.ended || in.err != nil {
			continue
		}
		in.want = want
		in.awaitLocked(ctx)
		in.want = 0
	}
	m.buf = wire.GetBuf(size)
	m.data = m.buf.B
	for at := 0; at < size; {
		at += in.copyLocked(m.data[at:])
	}
	in.grantLocked(grant)
	return nil
}

// maxAhead bounds what a peer may still send, in bytes: windows end at 2 GiB.
const maxAhead = 1 << 30

// aheadLocked lets the peer send the rest of a message of size bytes without a stop on
// the way. What is granted now is not granted again once it is read.
func (in *inbox) aheadLocked(size int, grant func(int)) {
	more := min(size-in.queued, maxAhead) - in.allowed
	if more <= 0 {
		return
	}
	in.allowed += more
	in.consumed -= more
	in.mu.Unlock()
	grant(more)
	in.mu.Lock()
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
	in.queued -= k
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
	in.queued -= len(in.chunks[in.first].data)
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
