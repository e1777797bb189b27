package stile

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"google.golang.org/grpc"

	"github.com/stile-ipc/stile/transport"
	"github.com/stile-ipc/stile/transport/wire"
)

// NonBlocking declares unary methods whose handlers never wait: for a lock that is
// held for long, another call, a file. Each is "/package.Service/Method", or
// "/package.Service/" for all of a service. Local calls of them run on the goroutine
// that receives from their client, which saves a switch of goroutines a call: that
// pays where calls are rare and short. A handler that waits nevertheless holds up its
// client's other calls; it must not stop the server.
//
// With a policy whose x-stile.admission may have calls wait for their turn it changes nothing.
//
// A name that the server does not have is said in the log.
func NonBlocking(methods ...string) grpc.ServerOption {
	own := slices.Clone(methods)
	return ownServerOption{set: func(o *ownServerOptions) { o.nonBlocking = append(o.nonBlocking, own...) }}
}

// mark notes which methods may run on the receiving goroutine, and says which names
// mean none.
func (t *methodTable) mark(names []string) error {
	var unknown []string
	for _, name := range names {
		found := false
		for full, m := range t.methods {
			if m.unary != nil && (full == name || strings.HasSuffix(name, "/") && strings.HasPrefix(full, name)) {
				m.nonBlocking, found = true, true
			}
		}
		if !found {
			unknown = append(unknown, name)
		}
	}
	if len(unknown) > 0 {
		return fmt.Errorf("no unary method %q", unknown)
	}
	return nil
}

// inlineBatch is calls that the connection's goroutine is to run once it has taken
// what was there.
type inlineBatch struct {
	conn *serverConn

	mu       sync.Mutex
	calls    []*serverStream
	begun    int // of calls
	relieved bool
}

func (b *inlineBatch) add(s *serverStream) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls = append(b.calls, s)
}

// take returns the next call, or nil.
func (b *inlineBatch) take() *serverStream {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.begun == len(b.calls) {
		clear(b.calls)
		b.calls, b.begun = b.calls[:0], 0
		return nil
	}
	s := b.calls[b.begun]
	b.begun++
	return s
}

// leave gives the calls that have not begun to workers.
func (b *inlineBatch) leave() {
	for s := b.take(); s != nil; s = b.take() {
		s.out.host = nil
		b.conn.door.workers.run(s)
	}
}

// relieve is called before a call of the batch waits for its client: another
// goroutine receives from now on.
func (b *inlineBatch) relieve() {
	b.mu.Lock()
	b.relieved = true
	b.mu.Unlock()
	b.leave()
	b.conn.reliever.Relieve()
}

// inlines reports whether a call that has come is to run on this goroutine. All of
// its request must be there.
func (c *serverConn) inlines(s *serverStream, flags wire.Flags) bool {
	if c.reliever == nil || flags&wire.FlagHalfClose == 0 {
		return false
	}
	if p := c.door.own.policy; p != nil && p.Config().Stile.Admission != nil {
		return false // the call may have to wait for its turn
	}
	m := c.door.methods.methods[s.cc.call.Method]
	return m != nil && m.nonBlocking
}

// queue keeps a call until the frames at hand are taken.
func (c *serverConn) queue(s *serverStream) {
	if c.batch == nil {
		if c.batch = c.spare.Swap(nil); c.batch == nil {
			c.batch = &inlineBatch{conn: c}
		}
	}
	s.out.host = c.batch
	c.batch.add(s)
}

// Batched implements [transport.Batcher]. Calls that a caller or worker has received
// for others are no business of that goroutine, which may hold locks of its own.
func (c *serverConn) Batched(own bool) transport.Work {
	b := c.batch
	c.batch = nil
	switch {
	case b == nil:
		return nil
	case own:
		return b
	}
	b.leave()
	return nil
}

// Do implements [transport.Work].
func (b *inlineBatch) Do() {
	for s := b.take(); s != nil; s = b.take() {
		s.serve()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.relieved {
		b.conn.spare.Store(b)
	}
}
