package compat

import (
	"context"
	"errors"
	"io"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// unaryTrace is a client interceptor that says when it runs.
func (e *env) unaryTrace(name string) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, m string, req, out any, cc *grpc.ClientConn, next grpc.UnaryInvoker, o ...grpc.CallOption) error {
		e.c("%s before %s target ok %v", name, m, strings.HasSuffix(cc.Target(), e.path))
		err := next(ctx, m, req, out, cc, o...)
		e.c("%s after %s", name, errText(err))
		return err
	}
}

func (e *env) streamTrace(name string) grpc.StreamClientInterceptor {
	return func(ctx context.Context, d *grpc.StreamDesc, cc *grpc.ClientConn, m string, next grpc.Streamer, o ...grpc.CallOption) (grpc.ClientStream, error) {
		e.c("%s before %s %v %v", name, m, d.ClientStreams, d.ServerStreams)
		cs, err := next(ctx, d, cc, m, o...)
		e.c("%s after %s", name, errText(err))
		return cs, err
	}
}

func (e *env) unaryServerTrace(name string) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		_, mine := info.Server.(*service)
		e.s("%s before %s server is ours %v", name, info.FullMethod, mine)
		out, err := next(ctx, req)
		e.s("%s after %s", name, errText(err))
		return out, err
	}
}

func (e *env) streamServerTrace(name string) grpc.StreamServerInterceptor {
	return func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		_, mine := srv.(*service)
		e.s("%s before %s %v %v server is ours %v", name, info.FullMethod, info.IsClientStream, info.IsServerStream, mine)
		err := next(srv, ss)
		e.s("%s after %s", name, errText(err))
		return err
	}
}

var errNoToken = status.Error(codes.Unauthenticated, "no token")

// authorized is what an access check looks like.
func authorized(ctx context.Context) error {
	md, _ := metadata.FromIncomingContext(ctx)
	if len(md["token"]) != 1 || md["token"][0] != "good" {
		return errNoToken
	}
	return nil
}

func guardUnary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if err := authorized(ctx); err != nil {
		return nil, err
	}
	return next(ctx, req)
}

func guardStream(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if err := authorized(ss.Context()); err != nil {
		return err
	}
	return next(srv, ss)
}

// guarded is a case that a server option guards: no call without the token may
// reach a handler.
func guarded(name string, opts ...grpc.ServerOption) diffCase {
	return diffCase{name: "intercept/guard by " + name, run: func(e *env) {
		e.serve(&service{
			unary: func(ctx context.Context, _ *msg) (*msg, error) {
				e.s("unary handler, authorized %s", errText(authorized(ctx)))
				return str(""), nil
			},
			stream: func(ss grpc.ServerStream) error {
				e.s("stream handler, authorized %s", errText(authorized(ss.Context())))
				return nil
			},
		}, opts...)
		cc := e.dial()
		for _, token := range []string{"", "bad", "good"} {
			ctx := metadata.AppendToOutgoingContext(e.ctx, "token", token)
			e.unary(ctx, cc, "a")
			for _, m := range []string{clientMethod, serverMethod, bidiMethod} {
				cs := e.open(ctx, cc, m)
				if m == serverMethod {
					cs.SendMsg(str("go"))
					cs.CloseSend()
				}
				cs.recv()
			}
		}
	}}
}

var interceptCases = []diffCase{
	guarded("interceptors", grpc.UnaryInterceptor(guardUnary), grpc.StreamInterceptor(guardStream)),
	guarded("chains", grpc.ChainUnaryInterceptor(guardUnary), grpc.ChainStreamInterceptor(guardStream)),
	guarded("both", grpc.UnaryInterceptor(guardUnary), grpc.ChainUnaryInterceptor(guardUnary),
		grpc.ChainStreamInterceptor(guardStream), grpc.StreamInterceptor(guardStream)),
	{name: "intercept/guard of unknown services", run: func(e *env) {
		e.serve(nil, grpc.StreamInterceptor(guardStream), grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error {
			e.s("handler")
			return nil
		}))
		cc := e.dial()
		e.c("%s", errText(cc.Invoke(e.ctx, "/x.Y/Z", str(""), new(msg))))
		e.c("%s", errText(cc.Invoke(metadata.AppendToOutgoingContext(e.ctx, "token", "good"), "/x.Y/Z", str(""), new(msg))))
	}},
	{name: "intercept/order on both sides", run: func(e *env) {
		e.serve(e.echo(),
			grpc.ChainUnaryInterceptor(e.unaryServerTrace("s2"), e.unaryServerTrace("s3")), grpc.UnaryInterceptor(e.unaryServerTrace("s1")),
			grpc.ChainStreamInterceptor(e.streamServerTrace("s2")), grpc.StreamInterceptor(e.streamServerTrace("s1")),
			grpc.ChainStreamInterceptor(e.streamServerTrace("s3")))
		cc := e.dial(
			grpc.WithChainUnaryInterceptor(e.unaryTrace("c2")), grpc.WithUnaryInterceptor(e.unaryTrace("c1")),
			grpc.WithChainUnaryInterceptor(e.unaryTrace("c3"), e.unaryTrace("c4")),
			grpc.WithChainStreamInterceptor(e.streamTrace("c2"), e.streamTrace("c3")), grpc.WithStreamInterceptor(e.streamTrace("c1")))
		e.unary(e.ctx, cc, "a")
		cs := e.open(e.ctx, cc, bidiMethod)
		cs.send("a")
		cs.recv()
		cs.closeSend()
		cs.recv()
	}},
	{name: "intercept/client rejects", run: func(e *env) {
		no := status.Error(codes.Unauthenticated, "not even sent")
		e.serve(e.seesMD())
		cc := e.dial(
			grpc.WithUnaryInterceptor(func(context.Context, string, any, any, *grpc.ClientConn, grpc.UnaryInvoker, ...grpc.CallOption) error {
				return no
			}),
			grpc.WithStreamInterceptor(func(context.Context, *grpc.StreamDesc, *grpc.ClientConn, string, grpc.Streamer, ...grpc.CallOption) (grpc.ClientStream, error) {
				return nil, no
			}))
		e.unary(e.ctx, cc, "a")
		e.open(e.ctx, cc, bidiMethod)
	}},
	{name: "intercept/client changes the call", run: func(e *env) {
		e.serve(&service{unary: func(ctx context.Context, in *msg) (*msg, error) {
			md, _ := metadata.FromIncomingContext(ctx)
			e.s("%s a=%v", in.GetValue(), md["a"])
			return in, nil
		}})
		cc := e.dial(grpc.WithUnaryInterceptor(func(ctx context.Context, m string, req, out any, cc *grpc.ClientConn, next grpc.UnaryInvoker, o ...grpc.CallOption) error {
			ctx = metadata.AppendToOutgoingContext(ctx, "a", "added")
			err := next(ctx, unaryMethod, str("changed"), out, cc, o...)
			out.(*msg).Value += " and read"
			return err
		}))
		out := new(msg)
		err := cc.Invoke(e.ctx, "/other/Method", str("a"), out)
		e.c("%s %s", out.GetValue(), errText(err))
	}},
	{name: "intercept/client calls twice", run: func(e *env) {
		e.serve(e.seesMD())
		cc := e.dial(grpc.WithUnaryInterceptor(func(ctx context.Context, m string, req, out any, cc *grpc.ClientConn, next grpc.UnaryInvoker, o ...grpc.CallOption) error {
			next(ctx, m, req, out, cc, o...)
			return next(ctx, m, req, out, cc, o...)
		}))
		e.unary(e.ctx, cc, "a")
	}},
	{name: "intercept/client adds options", run: func(e *env) {
		e.serve(sizes())
		cc := e.dial(grpc.WithUnaryInterceptor(func(ctx context.Context, m string, req, out any, cc *grpc.ClientConn, next grpc.UnaryInvoker, o ...grpc.CallOption) error {
			return next(ctx, m, req, out, cc, append(o, grpc.MaxCallRecvMsgSize(100))...)
		}))
		e.unary(e.ctx, cc, "size 100")
		e.unary(e.ctx, cc, "size 101")
	}},
	{name: "intercept/client wraps the stream", run: func(e *env) {
		e.serve(e.echo())
		cc := e.dial(grpc.WithStreamInterceptor(func(ctx context.Context, d *grpc.StreamDesc, cc *grpc.ClientConn, m string, next grpc.Streamer, o ...grpc.CallOption) (grpc.ClientStream, error) {
			cs, err := next(ctx, d, cc, m, o...)
			return &loudStream{cs, e}, err
		}))
		cs := e.open(e.ctx, cc, bidiMethod)
		cs.send("a")
		cs.recv()
		cs.closeSend()
		cs.recv()
	}},
	{name: "intercept/server changes context and request", run: func(e *env) {
		type key struct{}
		e.serve(&service{unary: func(ctx context.Context, in *msg) (*msg, error) {
			md, _ := metadata.FromIncomingContext(ctx)
			e.s("%v %v %s", ctx.Value(key{}), md["a"], in.GetValue())
			return in, nil
		}}, grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			ctx = context.WithValue(ctx, key{}, "value")
			ctx = metadata.NewIncomingContext(ctx, metadata.Pairs("a", "new"))
			out, err := next(ctx, str("changed"))
			grpc.SetTrailer(ctx, metadata.Pairs("t", "from interceptor"))
			return str(out.(*msg).GetValue() + " again"), err
		}))
		e.unaryMD(e.ctx, e.dial(), "a")
	}},
	{name: "intercept/server turns an error into an answer", run: func(e *env) {
		e.serve(&service{unary: func(context.Context, *msg) (*msg, error) { return nil, errors.New("x") }},
			grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
				_, err := next(ctx, req)
				return str("was " + err.Error()), nil
			}))
		e.unary(e.ctx, e.dial(), "a")
	}},
	{name: "intercept/server recovers a panic", run: func(e *env) {
		e.serve(&service{
			unary:  func(context.Context, *msg) (*msg, error) { panic("oh") },
			stream: func(grpc.ServerStream) error { panic("oh") },
		},
			grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (out any, err error) {
				defer func() { err = status.Errorf(codes.Internal, "recovered %v", recover()) }()
				return next(ctx, req)
			}),
			grpc.StreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
				defer func() { err = status.Errorf(codes.Internal, "recovered %v", recover()) }()
				return next(srv, ss)
			}))
		cc := e.dial()
		e.unary(e.ctx, cc, "a")
		cs := e.open(e.ctx, cc, bidiMethod)
		cs.recv()
		e.unary(e.ctx, cc, "b")
	}},
	{name: "intercept/server wraps the stream", run: func(e *env) {
		e.serve(e.echo(), grpc.StreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			return next(srv, &loudServerStream{ss, e})
		}))
		cs := e.open(e.ctx, e.dial(), bidiMethod)
		cs.send("a")
		cs.recv()
		cs.closeSend()
		cs.recv()
	}},
	{name: "intercept/server reads the transport stream", run: func(e *env) {
		e.serve(nil, grpc.UnaryInterceptor(func(ctx context.Context, req any, i *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			sts := grpc.ServerTransportStreamFromContext(ctx)
			e.s("%s %s", sts.Method(), errText(sts.SetHeader(metadata.Pairs("h", "1"))))
			e.s("%s", errText(sts.SetTrailer(metadata.Pairs("t", "1"))))
			return next(ctx, req)
		}))
		e.unaryMD(e.ctx, e.dial(), "a")
	}},
	{name: "intercept/panic in a client interceptor", run: func(e *env) {
		e.serve(nil)
		cc := e.dial(grpc.WithUnaryInterceptor(func(ctx context.Context, m string, req, out any, cc *grpc.ClientConn, next grpc.UnaryInvoker, o ...grpc.CallOption) error {
			if err := next(ctx, m, req, out, cc, o...); err != nil {
				return err
			}
			if req.(*msg).GetValue() == "panic" {
				panic("client")
			}
			return nil
		}))
		func() {
			defer func() { e.c("recovered %v", recover()) }()
			e.unary(e.ctx, cc, "panic")
		}()
		e.unary(e.ctx, cc, "alive")
	}},
}

// loudStream says what passes through it.
type loudStream struct {
	grpc.ClientStream
	e *env
}

func (s *loudStream) SendMsg(m any) error {
	err := s.ClientStream.SendMsg(m)
	s.e.c("through: send %s", errText(err))
	return err
}

func (s *loudStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if err == io.EOF {
		s.e.c("through: end, trailer %s", mdText(s.Trailer()))
	}
	return err
}

type loudServerStream struct {
	grpc.ServerStream
	e *env
}

func (s *loudServerStream) SendMsg(m any) error {
	s.e.s("through: send")
	return s.ServerStream.SendMsg(m)
}

func (s *loudServerStream) RecvMsg(m any) error {
	err := s.ServerStream.RecvMsg(m)
	s.e.s("through: recv %s", errText(err))
	return err
}
