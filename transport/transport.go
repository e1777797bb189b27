// Package transport is the seam between Stile's calls and what carries them.
//
// A [Transport] makes connections, a [Conn] carries frames. Implementations live
// in the packages below (inproc, sock, shm) and all pass the one conformance
// suite in transporttest. A Conn knows nothing of streams, calls or gRPC: that
// is the layer above.
package transport

import (
	"context"
	"errors"
	"net"
	"sync/atomic"

	"github.com/stile-ipc/stile/transport/wire"
)

var (
	// ErrClosed is the cause of a connection ended by its own side's Close.
	ErrClosed = errors.New("transport: connection closed")
	// ErrPeerGone is wrapped by the cause of a connection whose peer closed it or died.
	ErrPeerGone = errors.New("transport: peer is gone")
	// ErrProtocol is wrapped by the cause of a connection dropped because the peer
	// broke the protocol: an impossible index, length, header or frame.
	ErrProtocol = errors.New("transport: protocol violation by peer")
	// ErrCanceled is returned by Write when its cancel channel closed before the
	// frame was accepted. Nothing of the frame was sent.
	ErrCanceled = errors.New("transport: write canceled")
)

// Transport makes connections of one kind.
type Transport interface {
	// Name is the short name shown to people: "shm", "unix", "inproc".
	Name() string
	// Listen opens addr, whose form the transport defines.
	Listen(addr string) (Listener, error)
	// Dial connects to addr. It returns when the peer has accepted or ctx is done.
	Dial(ctx context.Context, addr string) (Conn, error)
}

// Listener accepts connections. Its methods are safe for concurrent use.
type Listener interface {
	// Accept waits for the next connection. After Close it returns an error
	// wrapping [net.ErrClosed].
	Accept() (Conn, error)
	// Close stops accepting; accepted connections go on. It is idempotent.
	Close() error
	Addr() net.Addr
}

// Handler receives what arrives on a Conn. Its methods are called by one
// goroutine at a time, in order, and must not block nor call Conn.Write or
// Conn.Close (Conn.Fail is allowed): a blocked handler stops every stream.
type Handler interface {
	// HandleFrame takes one frame. b and its tail, if it has one, hold exactly
	// h.Len payload bytes; the handler owns them and must Release b. b is private
	// memory: the peer cannot change it any more. A tail that is
	// [wire.Buf.Borrowed] the peer can change: what is read from it twice may
	// differ. It may be released at any time, by any goroutine, also after
	// HandleClose.
	HandleFrame(h wire.Header, b *wire.Buf)
	// HandleClose is the last call, exactly once. err says why and wraps one of
	// this package's errors. Frames the peer sent before it closed in good order
	// have been handled before.
	HandleClose(err error)
}

// Batcher is a Handler with work of its own between frames. A [Reliever] lets it do
// that on its own goroutine.
type Batcher interface {
	Handler

	// Batched follows some calls of HandleFrame, under the same rules. own tells that
	// the connection's goroutine made them; only then may it return work, else nil.
	Batched(own bool) Work
}

// Work is done by a connection's goroutine.
type Work interface {
	// Do does the work. Until it returns nobody may be receiving: it may Write, but
	// calls Relieve before it waits for anything.
	Do()
}

// Reliever is a Conn that knows of a [Batcher].
type Reliever interface {
	Conn

	// Relieve makes another goroutine receive in place of the one that does Work. At
	// other times it does nothing.
	Relieve()
}

// Conn is one end of a connection: frames in order, both ways, between two
// goroutine worlds that may be two processes. The peer is never trusted.
//
// Start is called once, first. Afterwards all methods are safe for concurrent
// use.
type Conn interface {
	// Start begins the delivery of incoming frames to h.
	Start(h Handler)

	// Write sends one frame whose payload is head followed by body; h.Len is set
	// by Write and len(head)+len(body) must be at most wire.MaxPayload. Both are
	// copied before it returns. Frames of concurrent writers are never mixed.
	// While the peer does not read, Write blocks, until cancel closes
	// ([ErrCanceled]) or the connection ends (its cause). A nil cancel waits for
	// ever; one that is closed already sends only what can be sent without waiting. A
	// frame is sent whole or not at all.
	Write(cancel <-chan struct{}, h wire.Header, head, body []byte) error

	// Poll may receive frames on the caller's goroutine, delivering them to the
	// Handler as usual, for as long as that is likely to be cheaper than
	// sleeping. It returns once done is true (set by the Handler), when it is no
	// longer worth it, or at once when someone else is receiving or the transport
	// has nothing to gain from it. It never waits in the kernel. The caller must
	// be able to wait by other means afterwards.
	Poll(done *atomic.Bool)

	// Fail ends the connection with a cause and returns at once. The first cause
	// wins. Safe to call from a Handler.
	Fail(err error)

	// Close ends the connection in good order with ErrClosed: what was written
	// reaches a living peer that reads. It returns when HandleClose has run (or
	// at once if Start was never called) and every resource is given back. It is
	// idempotent and must not be called from a Handler.
	Close() error

	// Info describes the connection. It does not change after the Conn was made.
	Info() Info
}

// Loan is memory that the peer will read in place. Whoever has borrowed it fills B
// and hands it to WriteLoan or Return, once.
type Loan struct {
	B    []byte
	Slot int // the connection's own
}

// Lender is a Conn that lends memory for large payloads, which saves copies on
// both sides. Its methods are safe for concurrent use.
type Lender interface {
	Conn

	// Lend returns n bytes of undefined content, or false when there are none: the
	// payload then goes by Write. It never waits, and fails once the connection has
	// ended.
	Lend(n int) (Loan, bool)

	// WriteLoan is Write for a payload of head followed by l.B. head may have
	// wire.MaxPayload-8 bytes. When it fails the loan is still the caller's, who may
	// try again.
	WriteLoan(cancel <-chan struct{}, h wire.Header, head []byte, l Loan) error

	// Return gives up a loan that is not sent.
	Return(l Loan)
}

// Info describes a connection for people and for peer.FromContext.
type Info struct {
	Transport             string // "shm", "unix", "inproc"
	Peer                  Cred
	LocalAddr, RemoteAddr net.Addr
	Client                ClientInfo // at a server
}

// ClientInfo is what a client has said of itself. The zero value: nothing.
type ClientInfo struct {
	Process    [16]byte // its identity
	ReadsTimes bool     // it reads wire.Times
	Traces     bool     // it chooses which of its calls are in traces: one without a wire.Trace is in none
}

// Cred is the peer's identity as the kernel gave it at connect time
// (SO_PEERCRED). Known is false where the platform or transport has none.
type Cred struct {
	PID, UID, GID int
	Known         bool
}
