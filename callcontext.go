package stile

import (
	"context"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/stile-ipc/stile/internal/lazyctx"
	"github.com/stile-ipc/stile/transport/wire"
)

// callContext is one call on the server as long as anybody can know of it: its
// context, and what the connection's table holds. It is a context of its own kind
// because package context's would take six allocations, a timer and the lock of a common
// parent for what every call has: a cancellation, perhaps a deadline, the peer, the
// incoming metadata and the transport stream. All of package context works on it;
// derived contexts cost no goroutine (AfterFunc).
//
// A handler may keep its context for ever, so this part is never used again; the
// stream is, once the call is over.
type callContext struct {
	conn   *serverConn
	id     uint64                       // on the connection
	key    uint64                       // in this process
	call   wire.Call                    // Trace is what the handler's own calls belong to, once it begins
	stream atomic.Pointer[serverStream] // nil once the call is over
	freed  bool                         // guarded by conn.mu: does not count as active

	delayed  atomic.Int64             // ns that interceptors have kept it waiting
	begun    time.Duration            // its handler, on telemetry's clock; 0: it is not counted
	children atomic.Uint32            // calls of its handler that are of its trace, or may have been
	handling atomic.Pointer[handling] // nil: nobody looks at what the handler is asked and asks

	lazyctx.Core // from start on, with the deadline

	mu sync.Mutex
	md metadata.MD // made when someone asks
}

var _ context.Context = (*callContext)(nil)

// keyOf returns the key under which a package looks something up in a context.
func keyOf(lookUp func(context.Context)) any {
	s := &keySpy{Context: context.Background()}
	lookUp(s)
	return s.key
}

type keySpy struct {
	context.Context
	key any
}

func (s *keySpy) Value(key any) any {
	s.key = key
	return nil
}

var (
	incomingKey = keyOf(func(ctx context.Context) { metadata.FromIncomingContext(ctx) })
	peerKey     = keyOf(func(ctx context.Context) { peer.FromContext(ctx) })
	streamKey   = keyOf(func(ctx context.Context) { grpc.ServerTransportStreamFromContext(ctx) })
)

// isServerKey tells the key under which google.golang.org/grpc/stats/opentelemetry looks up the
// server, to see whether a method is one of its: else it is called other. No function shows it to
// a spy.
func isServerKey(key any) bool {
	t := reflect.TypeOf(key)
	return t != nil && t.PkgPath() == "google.golang.org/grpc" && t.Name() == "serverKey"
}

// start sets the deadline, once; before that the context can only be canceled.
func (c *callContext) start() {
	if timeout := c.call.Timeout; timeout > 0 {
		c.SetDeadline(time.Now().Add(timeout))
	}
}

// Value implements [context.Context]; what is not the call's own is the
// connection's.
func (c *callContext) Value(key any) any {
	switch key {
	case incomingKey:
		return c.incoming()
	case streamKey:
		return (*transportStream)(c)
	case peerKey:
		return c.conn.peer
	case lazyctx.DelayedKey, lazyctx.DecidedKey, lazyctx.TracedKey, handlerKey{}:
		return c
	}
	if d := c.conn.door; d.server != nil && len(d.set.stats) > 0 && isServerKey(key) {
		return d.server
	}
	return c.conn.ctx.Value(key)
}

// incoming is the metadata that a grpc-go server would show for this call.
func (c *callContext) incoming() metadata.MD {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.md == nil {
		c.md = c.incomingMD()
	}
	return c.md
}
