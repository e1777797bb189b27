package stile

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stile-ipc/stile/internal/lazyctx"
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
	queued   int  // unread bytes
	want     int  // how many the receiving goroutine waits for; 0: for anything
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
	alarm   *time.Timer   // of the receiving goroutine
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
	in.queued, in.want = 0, 0
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
	if d.hasHeader && in.hasHeader {
		d.buf.Release()
		return errProtocol("a second header")
	}
	if d.hasHeader {
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
	in.queued += len(data)
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

// keep copies what lies in the peer's memory: it may be that nobody ever reads it.
func (in *inbox) keep(key uint64) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.key != key {
		return
	}
	for i := in.first; i < len(in.chunks); i++ {
		c := &in.chunks[i]
		if !c.buf.Borrowed() {
			continue
		}
		own := wire.GetBuf(len(c.data))
		copy(own.B, c.data)
		c.buf.Release()
		*c = chunk{own, own.B}
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
	in.chunks, in.first, in.queued = nil, 0, 0
}

func (in *inbox) signalLocked() {
	if in.begun != nil && (in.hasHeader || in.ended || in.err != nil) {
		close(in.begun)
		in.begun = nil
	}
	if in.queued < in.want && !in.ended && in.err == nil {
		return
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
	done, late, cut := in.ends(ctx)
	if done == nil && late == nil && cut == nil { // half the price of a select
		<-in.wake
		in.mu.Lock()
		return
	}
	select {
	case <-in.wake:
		in.mu.Lock()
		in.calm(late)
		return
	case <-done:
	case <-late:
	case <-cut:
	}
	in.mu.Lock()
	in.calm(late)
	if in.waiting {
		in.waiting = false
	} else {
		<-in.wake // signalled between done and the lock
	}
}

// ends returns what ends a wait in ctx. That of an attempt is its parent's end; its
// deadline as a value, for which the inbox keeps one timer over all its calls; and, if it is
// hedged, the word of who hedges.
func (in *inbox) ends(ctx context.Context) (done <-chan struct{}, late <-chan time.Time, cut <-chan struct{}) {
	a, ok := ctx.(*lazyctx.Attempt)
	if !ok || a.Waited() {
		return ctx.Done(), nil, nil
	}
	if a.Hedged {
		cut = a.Cut()
	}
	if d, ok := a.Deadline(); ok {
		if left := time.Until(d); in.alarm == nil {
			in.alarm = time.NewTimer(left)
		} else {
			in.alarm.Reset(left)
		}
		late = in.alarm.C
	}
	return a.Parent().Done(), late, cut
}

func (in *inbox) calm(late <-chan time.Time) {
	if late != nil {
		in.alarm.Stop()
	}
}

// available reports whether a read would find bytes, under mu.
func (in *inbox) availableLocked() bool { return in.first < len(in.chunks) }

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
