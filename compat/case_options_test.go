package compat

import (
	"context"
	"errors"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// perRPC is a PerRPCCredentials.
type perRPC struct {
	e      *env
	md     map[string]string
	err    error
	secure bool
}

func (p perRPC) GetRequestMetadata(ctx context.Context, uri ...string) (map[string]string, error) {
	ri, ok := credentials.RequestInfoFromContext(ctx)
	for i, u := range uri {
		uri[i] = strings.ReplaceAll(u, p.e.path, "PATH")
	}
	p.e.c("asked for credentials: uri %v method %s %v, auth info %v", uri, ri.Method, ok, ri.AuthInfo != nil)
	return p.md, p.err
}
func (p perRPC) RequireTransportSecurity() bool { return p.secure }

// withCreds is a case that calls with p as call option and as dial option.
func withCreds(name string, p perRPC) diffCase {
	return diffCase{name: "creds/" + name, run: func(e *env) {
		p.e = e
		e.serve(e.seesMD())
		cc := e.dial()
		e.unaryMD(e.ctx, cc, "a", grpc.PerRPCCredentials(p))
		if cs := e.open(e.ctx, cc, bidiMethod, grpc.PerRPCCredentials(p)); cs != nil {
			cs.recv()
		}
		cc2, err := e.tryDial(grpc.WithPerRPCCredentials(p))
		e.c("dial option: %s", errText(err))
		if err == nil {
			e.unary(e.ctx, cc2, "b")
			e.unary(e.ctx, cc2, "c", grpc.PerRPCCredentials(p))
		}
	}}
}

var optionCases = []diffCase{
	withCreds("token", perRPC{md: map[string]string{"authorization": "bearer x"}}),
	withCreds("upper case key", perRPC{md: map[string]string{"Authorization": "x"}}),
	withCreds("binary", perRPC{md: map[string]string{"k-bin": "\x00\xff"}}),
	withCreds("none", perRPC{}),
	withCreds("reserved key", perRPC{md: map[string]string{"grpc-foo": "1", "content-type": "x", "a": "b"}}),
	withCreds("plain error", perRPC{err: errors.New("no token")}),
	withCreds("status error", perRPC{err: status.Error(codes.PermissionDenied, "denied")}),
	withCreds("data-plane code", perRPC{err: status.Error(codes.NotFound, "odd")}),
	withCreds("need security", perRPC{secure: true, md: map[string]string{"a": "b"}}),
	{name: "creds/and metadata", run: func(e *env) {
		e.serve(e.seesMD())
		p := perRPC{e: e, md: map[string]string{"a": "from creds"}}
		e.unary(metadata.AppendToOutgoingContext(e.ctx, "a", "from ctx"), e.dial(), "", grpc.PerRPCCredentials(p))
	}},
	{name: "option/header trailer peer on success", run: func(e *env) {
		e.serve(&service{unary: func(ctx context.Context, _ *msg) (*msg, error) {
			grpc.SetHeader(ctx, metadata.Pairs("h", "1"))
			grpc.SetTrailer(ctx, metadata.Pairs("t", "1"))
			return str(""), nil
		}})
		var p peer.Peer
		e.unaryMD(e.ctx, e.dial(), "", grpc.Peer(&p))
		e.c("peer address %v auth %v", p.Addr != nil, p.AuthInfo != nil)
	}},
	{name: "option/header trailer peer on failure", run: func(e *env) {
		e.serve(&service{unary: func(ctx context.Context, _ *msg) (*msg, error) {
			return nil, status.Error(codes.Internal, "x")
		}})
		var p peer.Peer
		e.unaryMD(e.ctx, e.dial(), "", grpc.Peer(&p))
		e.c("peer address %v auth %v", p.Addr != nil, p.AuthInfo != nil)
	}},
	{name: "option/header trailer peer on streams", run: func(e *env) {
		e.serve(e.streams(func(s *sstream) error {
			s.SetHeader(metadata.Pairs("h", "1"))
			s.SetTrailer(metadata.Pairs("t", "1"))
			s.send("x")
			return status.Error(codes.Aborted, "x")
		}))
		var h, t metadata.MD
		var p peer.Peer
		cs := e.open(e.ctx, e.dial(), bidiMethod, grpc.Header(&h), grpc.Trailer(&t), grpc.Peer(&p))
		cs.drain()
		e.c("header %s trailer %s peer %v", mdText(h), mdText(t), p.Addr != nil)
	}},
	{name: "option/OnFinish", run: func(e *env) {
		var mu sync.Mutex
		n := 0
		e.serve(&service{
			unary: func(_ context.Context, in *msg) (*msg, error) {
				if in.GetValue() == "fail" {
					return nil, status.Error(codes.Aborted, "x")
				}
				return in, nil
			},
			stream: e.echo().stream,
		})
		finish := grpc.OnFinish(func(err error) {
			mu.Lock()
			defer mu.Unlock()
			n++
			e.add("finish", "finish %d: %s", n, errText(err))
		})
		cc := e.dial()
		e.unary(e.ctx, cc, "a", finish)
		e.unary(e.ctx, cc, "fail", finish)
		cs := e.open(e.ctx, cc, bidiMethod, finish)
		cs.send("a")
		cs.recv()
		cs.closeSend()
		cs.recv()
		ctx, cancel := context.WithCancel(e.ctx)
		cs = e.open(ctx, cc, bidiMethod, finish)
		cs.send("a")
		cs.recv()
		cancel()
		cs.recv()
		e.unary(ctx, cc, "never", finish)
	}},
	{name: "option/StaticMethod", run: func(e *env) {
		e.serve(nil)
		e.unary(e.ctx, e.dial(), "a", grpc.StaticMethod())
	}},
	{name: "option/WaitForReady", run: func(e *env) {
		e.serve(nil)
		cc := e.dial()
		e.unary(e.ctx, cc, "a", grpc.WaitForReady(true))
		e.unary(e.ctx, cc, "a", grpc.WaitForReady(false))
	}},
	{name: "option/MaxRetryRPCBufferSize", run: func(e *env) {
		e.serve(nil)
		e.unary(e.ctx, e.dial(), strings.Repeat("x", 1000), grpc.MaxRetryRPCBufferSize(10))
	}},
	{name: "option/authority", run: func(e *env) {
		e.serve(e.seesMD())
		e.unary(e.ctx, e.dial(grpc.WithAuthority("shop.example")), "a")
		cc := e.dial()
		e.unary(e.ctx, cc, "a")
		e.unary(e.ctx, cc, "a", grpc.CallAuthority("call.example"))
	}},
	{name: "option/user agent", run: func(e *env) {
		e.serve(e.seesMD())
		e.unary(e.ctx, e.dial(grpc.WithUserAgent("shop/1.2")), "a")
	}},
	{name: "option/method names", run: func(e *env) {
		e.serve(&service{
			unary: func(ctx context.Context, _ *msg) (*msg, error) {
				m, ok := grpc.Method(ctx)
				e.s("%s %v", m, ok)
				return str(""), nil
			},
			stream: func(ss grpc.ServerStream) error {
				m, ok := grpc.MethodFromServerStream(ss)
				e.s("%s %v", m, ok)
				m, ok = grpc.Method(ss.Context())
				e.s("%s %v", m, ok)
				ts := grpc.ServerTransportStreamFromContext(ss.Context())
				e.s("transport stream %s", ts.Method())
				return nil
			},
		})
		cc := e.dial()
		e.unary(e.ctx, cc, "")
		cs := e.open(e.ctx, cc, bidiMethod)
		m, ok := grpc.Method(cs.Context())
		e.c("%s %v", m, ok)
		cs.recv()
	}},
	{name: "option/contexts do not leak", run: func(e *env) {
		type key struct{}
		e.serve(&service{unary: func(ctx context.Context, _ *msg) (*msg, error) {
			_, out := metadata.FromOutgoingContext(ctx)
			e.s("value %v outgoing %v", ctx.Value(key{}), out)
			return str(""), nil
		}})
		ctx := context.WithValue(metadata.AppendToOutgoingContext(e.ctx, "a", "b"), key{}, "secret")
		e.unary(ctx, e.dial(), "")
	}},
	{name: "option/service info", run: func(e *env) {
		e.serve(nil)
		for n, i := range e.srv.GetServiceInfo() {
			e.s("%s %v %d", n, i.Metadata, len(i.Methods))
			for _, m := range i.Methods {
				e.add("methods", "%+v", m)
			}
		}
		e.sortLane("methods")
	}},
}
