package stile

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/stile-ipc/stile/telemetry"
	"github.com/stile-ipc/stile/transport"
	"github.com/stile-ipc/stile/transport/wire"
)

// outflow is the sending half of a stream. One goroutine sends at a time; add
// and fail may be called by others.
type outflow struct {
	conn    transport.Conn
	sent    atomic.Bool  // a frame was taken by the connection
	blocked atomic.Int64 // ns that the sending goroutine has waited for the peer to read
	host    *inlineBatch // on whose goroutine the call runs; nil: one of its own

	mu     sync.Mutex
	id     uint64        // of the stream, on the connection
	key    uint64        // of the stream, in this process; what comes for another is dropped
	window int           // message bytes the peer still takes
	err    error         // set once: nothing more can be sent
	wake   chan struct{} // capacity 1, made by the first wait
	prefix [prefixLen]byte
}

var errWindowOverflow = fmt.Errorf("%w: window grows over 2 GiB", transport.ErrProtocol)

// init makes the outflow ready for a stream; it may have served another one.
func (o *outflow) init(key, id uint64, conn transport.Conn) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.key, o.id, o.conn, o.window, o.err = key, id, conn, initialWindow, nil
	o.blocked.Store(0)
	if o.sent.Load() {
		o.sent.Store(false)
	}
}

// add opens the window by n bytes.
func (o *outflow) add(key uint64, n uint32) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.key != key {
		return nil
	}
	if int64(o.window)+int64(n) > 1<<31-1 {
		return errWindowOverflow
	}
	o.window += int(n)
	o.signalLocked()
	return nil
}

// fail makes every further send return err.
func (o *outflow) fail(key uint64, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.key == key && o.err == nil {
		o.err = err
		o.signalLocked()
	}
}

func (o *outflow) signalLocked() {
	if o.wake != nil {
		select {
		case o.wake <- struct{}{}:
		default:
		}
	}
}

// takeAll takes want bytes of window if they are there, and tells whether.
func (o *outflow) takeAll(want int) (bool, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil || o.window < want {
		return false, o.err
	}
	o.window -= want
	return true, nil
}

// take waits for window and takes up to want bytes of it, at least one.
func (o *outflow) take(ctx context.Context, want int) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for {
		if o.err != nil {
			return 0, o.err
		}
		if o.window > 0 {
			n := min(want, o.window)
			o.window -= n
			return n, nil
		}
		if o.wake == nil {
			o.wake = make(chan struct{}, 1)
		}
		o.mu.Unlock()
		o.beforeWait()
		began := telemetry.Now()
		var err error
		select {
		case <-o.wake:
		case <-ctx.Done():
			err = transport.ErrCanceled
		}
		o.blocked.Add(int64(telemetry.Now() - began))
		if o.mu.Lock(); err != nil {
			return 0, err
		}
	}
}

// giveBack returns window that was taken and not used.
func (o *outflow) giveBack(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.window += n
}

// batch is what one send puts on the wire: sections, then a message, then
// sections that end the stream. All parts may be empty. It is sent in one frame
// when it fits.
type batch struct {
	flags    wire.Flags // of head
	head     []byte     // encoded Call or Header section; send may append to it
	msg      []byte     // message without prefix
	hasMsg   bool
	gzipped  byte       // first byte of the message's prefix
	lent     *packed    // msg is its loan; send takes it over if it sends it
	endFlags wire.Flags // FlagTrailer or FlagHalfClose, sent with the last byte
	end      []byte     // encoded Trailer section
}

// send writes b. When it fails part of it may have been sent; the stream is then
// to be reset.
func (o *outflow) send(ctx context.Context, b *batch) error {
	total := 0
	if b.hasMsg {
		total = prefixLen + len(b.msg)
	}
	if b.lent != nil && len(b.head)+len(b.end)+prefixLen <= wire.MaxPayload-loanRoom {
		return o.sendLent(ctx, b, total)
	}
	if wire.MaxPayload-len(b.head)-len(b.end) < total {
		return o.sendSplit(ctx, b)
	}
	if ok, err := o.takeAll(total); err != nil {
		return err
	} else if !ok {
		return o.sendSplit(ctx, b)
	}
	head := b.head
	if head == nil {
		head = o.prefix[:0]
	}
	return o.write(ctx, o.frame(b.flags|b.endFlags), b.appendPrefix(append(head, b.end...)), b.msg)
}

// loanRoom is what a connection wants of a payload for itself when it sends a loan.
const loanRoom = 8

// sendLent sends a message that lies in lent memory, in one frame, once the window is
// open at all.
func (o *outflow) sendLent(ctx context.Context, b *batch, total int) error {
	if _, err := o.take(ctx, 1); err != nil {
		return err
	}
	o.mu.Lock()
	o.window -= total - 1
	o.mu.Unlock()
	p := b.lent
	head := b.appendPrefix(append(b.head, b.end...))
	err := o.writeLoan(ctx, p.lender, o.frame(b.flags|b.endFlags), head, p.loan)
	if err == nil {
		p.lender = nil // the loan is the peer's now
	}
	return err
}

// writeLoan is write for a payload that ends with a loan.
func (o *outflow) writeLoan(ctx context.Context, l transport.Lender, h wire.Header, head []byte, loan transport.Loan) error {
	err := l.WriteLoan(closedChan, h, head, loan)
	if errors.Is(err, transport.ErrCanceled) {
		o.beforeWait()
		began := telemetry.Now()
		err = l.WriteLoan(ctx.Done(), h, head, loan)
		o.blocked.Add(int64(telemetry.Now() - began))
	}
	if err == nil && !o.sent.Load() {
		o.sent.Store(true)
	}
	return err
}

// write sends one frame. It asks ctx for its channel only when it has to wait:
// that is what makes the channel.
func (o *outflow) write(ctx context.Context, h wire.Header, head, body []byte) error {
	err := o.conn.Write(closedChan, h, head, body)
	if errors.Is(err, transport.ErrCanceled) {
		o.beforeWait()
		began := telemetry.Now()
		err = o.conn.Write(ctx.Done(), h, head, body)
		o.blocked.Add(int64(telemetry.Now() - began))
	}
	if err == nil && !o.sent.Load() {
		o.sent.Store(true)
	}
	return err
}

// beforeWait lets another goroutine receive: the frames that end the wait must come.
func (o *outflow) beforeWait() {
	if o.host != nil {
		o.host.relieve()
	}
}

func (o *outflow) frame(f wire.Flags) wire.Header {
	return wire.Header{Type: wire.TypeStream, Flags: f, Stream: o.id}
}

func (b *batch) appendPrefix(p []byte) []byte {
	if !b.hasMsg {
		return p
	}
	p = append(p, b.gzipped)
	return binary.BigEndian.AppendUint32(p, uint32(len(b.msg)))
}

// sendSplit sends b over several frames: the head, pieces of the message as the
// window allows, the end.
func (o *outflow) sendSplit(ctx context.Context, b *batch) error {
	if len(b.head) > 0 || b.flags != 0 {
		if err := o.sendSections(ctx, b.flags, b.head); err != nil {
			return err
		}
	}
	if b.hasMsg {
		if err := o.sendMessage(ctx, b); err != nil {
			return err
		}
	}
	if b.endFlags != 0 {
		return o.sendSections(ctx, b.endFlags, b.end)
	}
	return nil
}

// sendSections sends encoded sections, in TypePart frames first where they are
// too long for one.
func (o *outflow) sendSections(ctx context.Context, flags wire.Flags, sections []byte) error {
	for len(sections) > wire.MaxPayload {
		h := wire.Header{Type: wire.TypePart, Stream: o.id}
		if err := o.write(ctx, h, sections[:wire.MaxPayload], nil); err != nil {
			return err
		}
		sections = sections[wire.MaxPayload:]
	}
	return o.write(ctx, o.frame(flags), sections, nil)
}

func (o *outflow) sendMessage(ctx context.Context, b *batch) error {
	prefix := b.appendPrefix(o.prefix[:0])
	msg := b.msg
	for len(prefix)+len(msg) > 0 {
		n, err := o.take(ctx, min(len(prefix)+len(msg), wire.MaxPayload))
		if err != nil {
			return err
		}
		p := min(n, len(prefix))
		if err := o.write(ctx, o.frame(0), prefix[:p], msg[:n-p]); err != nil {
			return err
		}
		prefix, msg = prefix[p:], msg[n-p:]
	}
	return nil
}
