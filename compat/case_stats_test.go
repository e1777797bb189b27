package compat

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
)

// recorder is a stats handler that writes the events of calls, in three lanes:
// sending and the call's ends, messages received, headers and trailers received.
// Between them grpc-go's order is open, because its reader is another goroutine.
type recorder struct {
	e    *env
	side string
}

type tagKey struct{}

func (r recorder) TagRPC(ctx context.Context, i *stats.RPCTagInfo) context.Context {
	r.e.add(r.side+" stats", "tag %s failfast %v", i.FullMethodName, i.FailFast)
	return context.WithValue(ctx, tagKey{}, i.FullMethodName)
}

func (r recorder) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

func (recorder) HandleConn(context.Context, stats.ConnStats) {}

func (r recorder) HandleRPC(ctx context.Context, s stats.RPCStats) {
	tagged := ctx.Value(tagKey{}) != nil
	lane := r.side + " stats"
	var text string
	switch s := s.(type) {
	case *stats.Begin:
		text = fmt.Sprintf("begin failfast %v client stream %v server stream %v retry %v time %v",
			s.FailFast, s.IsClientStream, s.IsServerStream, s.IsTransparentRetryAttempt, !s.BeginTime.IsZero())
	case *stats.OutHeader:
		text = fmt.Sprintf("out header %s compression %q %s addresses %v", s.FullMethod, s.Compression, mdText(s.Header), s.RemoteAddr != nil && s.LocalAddr != nil)
	case *stats.OutPayload:
		text = fmt.Sprintf("out payload %T length %d compressed less %v wire %v time %v",
			s.Payload, s.Length, s.CompressedLength < s.Length, s.WireLength >= s.CompressedLength, !s.SentTime.IsZero())
	case *stats.OutTrailer:
		text = fmt.Sprintf("out trailer %s", mdText(s.Trailer))
	case *stats.End:
		text = fmt.Sprintf("end %s trailer %s times %v", errText(s.Error), mdText(s.Trailer), !s.EndTime.Before(s.BeginTime))
	case *stats.InPayload:
		lane = r.side + " stats messages"
		text = fmt.Sprintf("in payload %T length %d compressed less %v wire %v time %v",
			s.Payload, s.Length, s.CompressedLength < s.Length, s.WireLength >= s.CompressedLength, !s.RecvTime.IsZero())
	case *stats.InHeader:
		lane = r.side + " stats in"
		text = fmt.Sprintf("in header %s compression %q %s addresses %v", s.FullMethod, s.Compression, mdText(s.Header), s.RemoteAddr != nil && s.LocalAddr != nil)
	case *stats.InTrailer:
		lane = r.side + " stats in"
		text = fmt.Sprintf("in trailer %s", mdText(s.Trailer))
	case *stats.DelayedPickComplete:
		return // says that a connection had to be waited for
	default:
		text = fmt.Sprintf("%T", s)
	}
	r.e.add(lane, "%s (tagged %v, client %v)", text, tagged, s.IsClient())
}

// recorded is a case with a recorder on both sides.
func recorded(name string, svc func(*env) *service, call func(*env, *grpc.ClientConn)) diffCase {
	return diffCase{name: "stats/" + name, run: func(e *env) {
		if svc == nil {
			svc = func(*env) *service { return nil }
		}
		e.serve(svc(e), grpc.StatsHandler(recorder{e, "server"}))
		cc := e.dial(grpc.WithStatsHandler(recorder{e, "client"}))
		call(e, cc)
		e.finish()
	}}
}

// finish waits until the server has ended all calls, so that the stats of their
// ends are in the transcript.
func (e *env) finish() {
	done := make(chan struct{})
	go func() { defer close(done); e.srv.GracefulStop() }()
	within(e, "GracefulStop", done)
}

// drop removes a lane that a race of grpc-go's own determines.
func (e *env) drop(lane string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.lanes, lane)
}

var statsCases = []diffCase{
	recorded("unary", nil, func(e *env, cc *grpc.ClientConn) { e.unary(e.ctx, cc, "a") }),
	recorded("unary with metadata", func(*env) *service {
		return &service{unary: func(ctx context.Context, _ *msg) (*msg, error) {
			grpc.SetHeader(ctx, metadata.Pairs("h", "1"))
			grpc.SetTrailer(ctx, metadata.Pairs("t", "1"))
			return str("x"), nil
		}}
	}, func(e *env, cc *grpc.ClientConn) {
		e.unary(metadata.AppendToOutgoingContext(e.ctx, "a", "b"), cc, "a")
	}),
	recorded("unary error", func(*env) *service {
		return &service{unary: func(context.Context, *msg) (*msg, error) { return nil, status.Error(codes.Aborted, "x") }}
	}, func(e *env, cc *grpc.ClientConn) { e.unary(e.ctx, cc, "a") }),
	recorded("unary compressed", nil, func(e *env, cc *grpc.ClientConn) {
		e.unary(e.ctx, cc, strings.Repeat("x", 2000), grpc.UseCompressor(gzip.Name))
	}),
	recorded("unary wait for ready", nil, func(e *env, cc *grpc.ClientConn) {
		e.unary(e.ctx, cc, "a", grpc.WaitForReady(true))
	}),
	recorded("unknown method", nil, func(e *env, cc *grpc.ClientConn) {
		e.c("%s", errText(cc.Invoke(e.ctx, "/compat.Test/Nope", str(""), new(msg))))
	}),
	recorded("never sent", nil, func(e *env, cc *grpc.ClientConn) {
		ctx, cancel := context.WithCancel(e.ctx)
		cancel()
		e.unary(ctx, cc, "a")
		e.unary(e.ctx, cc, "a", grpc.UseCompressor("nope"))
		e.unary(metadata.AppendToOutgoingContext(e.ctx, "a b", "x"), cc, "a")
	}),
	recorded("too large to send", nil, func(e *env, cc *grpc.ClientConn) {
		e.unary(e.ctx, cc, "too long", grpc.MaxCallSendMsgSize(3))
	}),
	recorded("too large to receive", nil, func(e *env, cc *grpc.ClientConn) {
		e.unary(e.ctx, cc, "too long", grpc.MaxCallRecvMsgSize(3))
		e.drop("client stats in") // the trailer may come after the end
	}),
	recorded("bidi", func(e *env) *service { return e.echo() }, func(e *env, cc *grpc.ClientConn) {
		cs := e.open(e.ctx, cc, bidiMethod)
		for range 3 {
			cs.send("a")
			cs.recv()
		}
		cs.closeSend()
		cs.recv()
	}),
	recorded("server stream", func(e *env) *service { return e.answers("1", "2", "3") }, func(e *env, cc *grpc.ClientConn) {
		cs := e.open(e.ctx, cc, serverMethod)
		cs.send("go")
		cs.closeSend()
		cs.drain()
	}),
	recorded("client stream", func(e *env) *service {
		return e.streams(func(s *sstream) error {
			for range 4 {
				s.recv()
			}
			return s.send("sum")
		})
	}, func(e *env, cc *grpc.ClientConn) {
		cs := e.open(e.ctx, cc, clientMethod)
		for range 3 {
			cs.send("a")
		}
		cs.closeSend()
		cs.recv()
	}),
	recorded("stream error after header", func(e *env) *service {
		return e.streams(func(s *sstream) error {
			s.SendHeader(metadata.Pairs("h", "1"))
			s.SetTrailer(metadata.Pairs("t", "1"))
			return status.Error(codes.DataLoss, "x")
		})
	}, func(e *env, cc *grpc.ClientConn) {
		cs := e.open(e.ctx, cc, bidiMethod)
		cs.recv()
	}),
	recorded("stream ended by the client", func(e *env) *service { return e.echo() }, func(e *env, cc *grpc.ClientConn) {
		ctx, cancel := context.WithCancel(e.ctx)
		cs := e.open(ctx, cc, bidiMethod)
		cs.send("a")
		cs.recv()
		cancel()
		cs.recv()
		e.svc.wait()
		e.drop("server stats") // its last error depends on which of two ends it saw first
		e.drop("server")
	}),
	{name: "stats/two handlers", run: func(e *env) {
		e.serve(nil, grpc.StatsHandler(recorder{e, "server 1"}), grpc.StatsHandler(recorder{e, "server 2"}))
		cc := e.dial(grpc.WithStatsHandler(recorder{e, "client 1"}), grpc.WithStatsHandler(recorder{e, "client 2"}))
		e.unary(e.ctx, cc, "a")
		e.finish()
	}},
	{name: "stats/connections", run: func(e *env) {
		var server, client conns
		e.serve(nil, grpc.StatsHandler(&server))
		cc := e.dial(grpc.WithStatsHandler(&client))
		e.unary(e.ctx, cc, "a")
		e.unary(e.ctx, cc, "b")
		e.add("conns", "server %s", server.text())
		e.add("conns", "client %s", client.text())
	}},
	{name: "stats/tags travel", run: func(e *env) {
		e.serve(nil)
		ctx := stats.SetTags(e.ctx, []byte("tags"))
		ctx = stats.SetTrace(ctx, []byte("trace"))
		e.svc.unary = func(ctx context.Context, _ *msg) (*msg, error) {
			e.s("tags %q trace %q", stats.Tags(ctx), stats.Trace(ctx))
			md, _ := metadata.FromIncomingContext(ctx)
			e.s("%s", mdText(md))
			return str(""), nil
		}
		e.unary(ctx, e.dial(), "")
	}},
	{name: "stats/context reaches handler and interceptor", run: func(e *env) {
		e.serve(&service{unary: func(ctx context.Context, _ *msg) (*msg, error) {
			e.s("handler %v", ctx.Value(tagKey{}))
			return str(""), nil
		}, stream: func(ss grpc.ServerStream) error {
			e.s("handler %v", ss.Context().Value(tagKey{}))
			return nil
		}}, grpc.StatsHandler(tagger{}), grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			e.s("interceptor %v", ctx.Value(tagKey{}))
			return next(ctx, req)
		}))
		cc := e.dial(grpc.WithStatsHandler(tagger{}))
		e.unary(e.ctx, cc, "")
		cs := e.open(e.ctx, cc, bidiMethod)
		e.c("stream context %v", cs.Context().Value(tagKey{}))
		cs.recv()
	}},
}

// tagger only tags, and adds metadata as tracers do.
type tagger struct{}

func (tagger) TagRPC(ctx context.Context, i *stats.RPCTagInfo) context.Context {
	return context.WithValue(metadata.AppendToOutgoingContext(ctx, "traced", "yes"), tagKey{}, i.FullMethodName)
}
func (tagger) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (tagger) HandleConn(context.Context, stats.ConnStats)                       {}
func (tagger) HandleRPC(context.Context, stats.RPCStats)                         {}

// conns counts connections begun, and calls handled in the context of one.
type conns struct{ tagged, begun, calls atomic.Int32 }

type connKey struct{}

func (c *conns) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context {
	c.tagged.Add(1)
	return context.WithValue(ctx, connKey{}, true)
}
func (c *conns) HandleConn(_ context.Context, s stats.ConnStats) {
	if _, ok := s.(*stats.ConnBegin); ok {
		c.begun.Add(1)
	}
}
func (c *conns) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	if ctx.Value(connKey{}) != nil {
		c.calls.Add(1)
	}
	return ctx
}
func (c *conns) HandleRPC(context.Context, stats.RPCStats) {}
func (c *conns) text() string {
	return fmt.Sprintf("tagged %d begun %d, %d calls in its context", c.tagged.Load(), c.begun.Load(), c.calls.Load())
}
