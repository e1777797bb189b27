package compat

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// fails is a case whose handler returns err, for a unary call and for a stream.
func fails(name string, err func() error) diffCase {
	return diffCase{name: "status/" + name, run: func(e *env) {
		e.serve(&service{
			unary:  func(context.Context, *msg) (*msg, error) { return str("ignored"), err() },
			stream: func(grpc.ServerStream) error { return err() },
		})
		cc := e.dial()
		e.unaryMD(e.ctx, cc, "")
		cs := e.open(e.ctx, cc, bidiMethod)
		cs.recv()
		cs.trailer()
		cs = e.open(e.ctx, cc, clientMethod)
		cs.recv()
	}}
}

func failsWith(name string, err error) diffCase { return fails(name, func() error { return err }) }

var statusCases = []diffCase{
	{name: "status/every code", run: func(e *env) {
		e.serve(&service{unary: func(_ context.Context, in *msg) (*msg, error) {
			var c int
			fmt.Sscan(in.GetValue(), &c)
			return nil, status.Error(codes.Code(c), "code "+in.GetValue())
		}})
		cc := e.dial()
		for c := range 17 {
			e.unary(e.ctx, cc, fmt.Sprint(c))
		}
	}},
	failsWith("code out of range", status.Error(codes.Code(17), "m")),
	failsWith("code far out of range", status.Error(codes.Code(4_000_000_000), "m")),
	failsWith("empty message", status.Error(codes.Internal, "")),
	failsWith("unicode message", status.Error(codes.Internal, "grüße 世界 🐑")),
	failsWith("control message", status.Error(codes.Internal, "a\nb\r\tc\x00d%e%41")),
	failsWith("invalid utf8 message", status.Error(codes.Internal, "a\xffb")),
	failsWith("long message", status.Error(codes.Internal, strings.Repeat("long ", 5000))),
	failsWith("leading space message", status.Error(codes.Internal, "  both ends  ")),
	failsWith("plain error", errors.New("no status")),
	failsWith("wrapped status", fmt.Errorf("outer: %w", status.Error(codes.NotFound, "inner"))),
	failsWith("joined status", errors.Join(errors.New("x"), status.Error(codes.NotFound, "inner"))),
	failsWith("io.EOF", io.EOF),
	failsWith("unexpected EOF", io.ErrUnexpectedEOF),
	failsWith("context canceled", context.Canceled),
	failsWith("context deadline", context.DeadlineExceeded),
	failsWith("wrapped context", fmt.Errorf("x: %w", context.DeadlineExceeded)),
	failsWith("status OK", status.Error(codes.OK, "fine")),
	failsWith("own GRPCStatus", ownStatus{}),
	failsWith("nil GRPCStatus", nilStatus{}),
	fails("details", func() error {
		st, _ := status.New(codes.ResourceExhausted, "quota").WithDetails(
			&errdetails.RetryInfo{RetryDelay: durationpb.New(3)},
			&errdetails.ErrorInfo{Reason: "r", Domain: "d", Metadata: map[string]string{"k": "v"}})
		return st.Err()
	}),
	fails("large details", func() error {
		st, _ := status.New(codes.Internal, "big").WithDetails(&errdetails.DebugInfo{Detail: strings.Repeat("d", 20_000)})
		return st.Err()
	}),
	{name: "status/details and trailer", run: func(e *env) {
		e.serve(&service{unary: func(ctx context.Context, _ *msg) (*msg, error) {
			grpc.SetTrailer(ctx, metadata.Pairs("t", "1", "grpc-status-details-bin", "x"))
			st, _ := status.New(codes.Aborted, "m").WithDetails(&errdetails.ErrorInfo{Reason: "r"})
			return nil, st.Err()
		}})
		e.unaryMD(e.ctx, e.dial(), "")
	}},
	{name: "status/unknown method", run: func(e *env) {
		e.serve(nil)
		cc := e.dial()
		for _, m := range []string{"/compat.Test/Nope", "/compat.None/Unary", "/Unary", "/a/b/c"} {
			err := cc.Invoke(e.ctx, m, str(""), new(msg))
			e.c("%s: %s", m, errText(err))
			cs, err := cc.NewStream(e.ctx, clientDesc(bidiMethod), m)
			e.c("open: %s", errText(err))
			if err == nil {
				e.c("recv: %s", errText(cs.RecvMsg(new(msg))))
			}
		}
	}},
	{name: "status/malformed method", run: func(e *env) {
		e.serve(nil)
		cc := e.dial()
		for _, m := range []string{"", "/", "//", "Unary", "compat.Test/Unary", "/compat.Test/", "/compat.Test"} {
			err := cc.Invoke(e.ctx, m, str(""), new(msg))
			e.c("%q: %s", m, errText(err))
		}
		e.unary(e.ctx, cc, "alive")
	}},
	{name: "status/kind mismatch", run: func(e *env) {
		// A unary method called as a stream, and a streaming one called as unary.
		e.serve(e.echo())
		cc := e.dial()
		cs := e.open(e.ctx, cc, unaryMethod)
		cs.send("a")
		cs.closeSend()
		cs.recv()
		err := cc.Invoke(e.ctx, bidiMethod, str("b"), new(msg))
		e.c("%s", errText(err))
	}},
	{name: "status/unknown handler", run: func(e *env) {
		e.serve(nil, grpc.UnknownServiceHandler(func(srv any, ss grpc.ServerStream) error {
			m, ok := grpc.MethodFromServerStream(ss)
			e.s("srv %v method %s %v", srv, m, ok)
			in := new(msg)
			if err := ss.RecvMsg(in); err != nil {
				return err
			}
			return ss.SendMsg(str("unknown " + in.GetValue()))
		}))
		cc := e.dial()
		out := new(msg)
		err := cc.Invoke(e.ctx, "/x.Y/Z", str("a"), out)
		e.c("%q %s", out.GetValue(), errText(err))
		err = cc.Invoke(e.ctx, "/compat.Test/Nope", str("b"), out)
		e.c("%q %s", out.GetValue(), errText(err))
		cs := e.open(e.ctx, cc, "/x.Y/Stream")
		e.c("send %s", errText(cs.SendMsg(str("c"))))
		cs.recv()
		cs.recv()
	}},
}

type ownStatus struct{}

func (ownStatus) Error() string              { return "own" }
func (ownStatus) GRPCStatus() *status.Status { return status.New(codes.Unavailable, "from own") }

type nilStatus struct{}

func (nilStatus) Error() string              { return "nil status" }
func (nilStatus) GRPCStatus() *status.Status { return nil }
