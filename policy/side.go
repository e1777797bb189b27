package policy

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"weak"

	"google.golang.org/grpc"
)

// side is one interceptor's view of a policy. It remembers the connection that it saw last,
// which is the only one it sees as a rule.
type side struct {
	p *Policy
	// below is Stile's own interceptor, which makes attempts and tells of each in its lazyctx.Attempt; nil:
	// attempts are grpc-go's.
	below  grpc.UnaryClientInterceptor
	counts bool // the channel is Stile's, which tells which way calls go, or may be
	last   atomic.Pointer[current]
	known  sync.Map // weak.Pointer[grpc.ClientConn] → *connection
}

// send makes an attempt.
func (s *side) send(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts []grpc.CallOption) error {
	if s.below != nil {
		return s.below(ctx, method, req, reply, cc, invoker, opts...)
	}
	return invoker(ctx, method, req, reply, cc, opts...)
}

// connection is what an interceptor knows of a connection, for as long as that lives.
type connection struct {
	id uint64 // in this process
	t  *target
}

type current struct {
	cc *grpc.ClientConn
	*connection
}

// connections counts those that interceptors have seen.
var connections atomic.Uint64

func (s *side) see(cc *grpc.ClientConn) *connection {
	if last := s.last.Load(); last != nil && last.cc == cc {
		return last.connection
	}
	c := s.find(cc)
	s.last.Store(&current{cc, c})
	return c
}

func (s *side) find(cc *grpc.ClientConn) *connection {
	key := weak.Make(cc)
	if c, ok := s.known.Load(key); ok {
		return c.(*connection)
	}
	name := "none" // an interceptor may be called without a connection, in tests
	if cc != nil {
		name = cc.Target()
	}
	fresh := &connection{connections.Add(1), s.p.attach(name)}
	c, raced := s.known.LoadOrStore(key, fresh)
	if raced {
		s.p.detach(fresh.t)
		return c.(*connection)
	}
	if cc != nil {
		self, p := weak.Make(s), s.p // s holds the last connection, which would hold itself
		runtime.AddCleanup(cc, func(t *target) {
			if s := self.Value(); s != nil {
				s.known.Delete(key)
			}
			p.detach(t)
		}, fresh.t)
	}
	return fresh
}
