package compat

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// seesMD answers with nothing and writes down the metadata it got.
func (e *env) seesMD() *service {
	return &service{
		unary: func(ctx context.Context, _ *msg) (*msg, error) {
			md, ok := metadata.FromIncomingContext(ctx)
			e.s("metadata %v %s", ok, mdText(md))
			return str(""), nil
		},
		stream: func(ss grpc.ServerStream) error {
			md, ok := metadata.FromIncomingContext(ss.Context())
			e.s("metadata %v %s", ok, mdText(md))
			return nil
		},
	}
}

// sendsMD is a case that sends md with a unary call and with a stream.
func sendsMD(name string, md metadata.MD) diffCase {
	return diffCase{name: "metadata/" + name, run: func(e *env) {
		e.serve(e.seesMD())
		cc := e.dial()
		ctx := metadata.NewOutgoingContext(e.ctx, md)
		e.unaryMD(ctx, cc, "")
		if cs := e.open(ctx, cc, bidiMethod); cs != nil {
			cs.recv()
		}
	}}
}

// answersMD is a case whose handler sets header and trailer, for a unary call
// and for a stream.
func answersMD(name string, header, trailer metadata.MD) diffCase {
	return diffCase{name: "metadata/" + name, run: func(e *env) {
		e.serve(&service{
			unary: func(ctx context.Context, _ *msg) (*msg, error) {
				e.s("set header: %s", errText(grpc.SetHeader(ctx, header)))
				e.s("set trailer: %s", errText(grpc.SetTrailer(ctx, trailer)))
				return str(""), nil
			},
			stream: func(ss grpc.ServerStream) error {
				e.s("set header: %s", errText(ss.SetHeader(header)))
				ss.SetTrailer(trailer)
				return ss.SendMsg(str("x"))
			},
		})
		cc := e.dial()
		e.unaryMD(e.ctx, cc, "")
		cs := e.open(e.ctx, cc, bidiMethod)
		cs.header()
		cs.drain()
		cs.trailer()
	}}
}

var metadataCases = []diffCase{
	sendsMD("none", nil),
	sendsMD("plain", metadata.Pairs("a", "1", "b", "2")),
	sendsMD("repeated", metadata.Pairs("a", "1", "a", "2", "a", "1", "b", "x", "a", "3")),
	sendsMD("empty value", metadata.Pairs("a", "", "b", "", "b", "x")),
	sendsMD("no values", metadata.MD{"a": nil, "b": {}}),
	sendsMD("binary", metadata.Pairs("k-bin", string([]byte{0, 1, 2, 254, 255}), "k-bin", "", "z-bin", "plain,comma")),
	sendsMD("all bytes", metadata.Pairs("k-bin", allBytes())),
	sendsMD("spaces and commas", metadata.Pairs("a", " lead", "b", "trail ", "c", "x, y", "d", "tab\tin")),
	sendsMD("percent", metadata.Pairs("a", "100%", "b", "%41")),
	sendsMD("upper case key", metadata.MD{"Upper": {"x"}}),
	sendsMD("key with space", metadata.MD{"a b": {"x"}}),
	sendsMD("empty key", metadata.MD{"": {"x"}}),
	sendsMD("unicode key", metadata.MD{"ü": {"x"}}),
	sendsMD("unicode value", metadata.MD{"a": {"ü"}}),
	sendsMD("newline value", metadata.MD{"a": {"x\ny"}}),
	sendsMD("NUL value", metadata.MD{"a": {"x\x00y"}}),
	sendsMD("pseudo key", metadata.MD{":path": {"/other"}, ":foo": {"x"}}),
	sendsMD("authority key", metadata.MD{":authority": {"evil"}, "host": {"evil"}}),
	sendsMD("reserved grpc keys", metadata.MD{
		"grpc-timeout": {"1S"}, "grpc-encoding": {"gzip"}, "grpc-status": {"3"}, "grpc-message": {"m"},
		"grpc-message-type": {"t"}, "grpc-accept-encoding": {"x"}, "grpc-tags-bin": {"tags"},
		"grpc-trace-bin": {"trace"}, "grpc-previous-rpc-attempts": {"2"}, "grpc-unknown": {"u"},
	}),
	sendsMD("reserved http keys", metadata.MD{
		"content-type": {"text/plain"}, "user-agent": {"me/1"}, "te": {"gzip"},
		"content-length": {"3"}, "accept-encoding": {"br"},
	}),
	sendsMD("many keys", manyKeys(200)),
	sendsMD("large value", metadata.Pairs("a", strings.Repeat("v", 60_000))),
	sendsMD("large binary", metadata.Pairs("a-bin", strings.Repeat("\x00\xff", 100_000))),
	answersMD("answer plain", metadata.Pairs("h", "1", "h", "2"), metadata.Pairs("t", "1", "t", "2")),
	answersMD("answer binary", metadata.Pairs("h-bin", "\x00\xff"), metadata.Pairs("t-bin", allBytes())),
	answersMD("answer empty", metadata.MD{}, metadata.MD{}),
	answersMD("answer empty values", metadata.Pairs("h", ""), metadata.Pairs("t", "")),
	answersMD("answer large", metadata.Pairs("h", strings.Repeat("h", 60_000)), metadata.Pairs("t", strings.Repeat("t", 60_000))),
	answersMD("answer many", manyKeys(100), manyKeys(150)),
	answersMD("answer upper case", metadata.MD{"Upper": {"x"}}, metadata.MD{"Upper": {"x"}}),
	answersMD("answer same key", metadata.Pairs("k", "header"), metadata.Pairs("k", "trailer")),
	answersMD("answer reserved", metadata.MD{"grpc-status": {"7"}, "grpc-message": {"m"}, "content-type": {"x/y"}, "grpc-foo": {"f"}},
		metadata.MD{"grpc-status": {"7"}, "grpc-message": {"m"}, "content-type": {"x/y"}, "grpc-bar": {"b"}}),
	answersMD("answer invalid key", metadata.MD{"a b": {"x"}}, nil),
	answersMD("answer invalid value", metadata.MD{"a": {"x\n"}}, nil),
	{name: "metadata/append", run: func(e *env) {
		e.serve(e.seesMD())
		ctx := metadata.NewOutgoingContext(e.ctx, metadata.Pairs("a", "1"))
		ctx = metadata.AppendToOutgoingContext(ctx, "A", "2", "b", "3")
		ctx = metadata.AppendToOutgoingContext(ctx, "a", "4")
		e.unary(ctx, e.dial(), "")
	}},
	{name: "metadata/not shared", run: func(e *env) {
		// The caller may change its metadata after the call; the handler its own.
		e.serve(&service{unary: func(ctx context.Context, _ *msg) (*msg, error) {
			md, _ := metadata.FromIncomingContext(ctx)
			e.s("%s", mdText(md))
			md.Set("a", "changed by server")
			return str(""), nil
		}})
		cc := e.dial()
		md := metadata.Pairs("a", "1")
		ctx := metadata.NewOutgoingContext(e.ctx, md)
		e.unary(ctx, cc, "")
		e.unary(ctx, cc, "")
		e.c("%s", mdText(md))
	}},
	{name: "metadata/incoming is not outgoing", run: func(e *env) {
		e.serve(e.seesMD())
		ctx := metadata.NewIncomingContext(e.ctx, metadata.Pairs("a", "1"))
		e.unary(ctx, e.dial(), "")
	}},
	{name: "metadata/header before first message", run: func(e *env) {
		release := make(chan struct{})
		e.serve(e.streams(func(s *sstream) error {
			e.s("send header: %s", errText(s.SendHeader(metadata.Pairs("h", "1"))))
			<-release
			s.send("x")
			return nil
		}))
		cs := e.open(e.ctx, e.dial(), bidiMethod)
		cs.header()
		close(release)
		cs.drain()
		cs.header()
	}},
	{name: "metadata/header only, then error", run: func(e *env) {
		e.serve(e.streams(func(s *sstream) error {
			s.SendHeader(metadata.Pairs("h", "1"))
			s.SetTrailer(metadata.Pairs("t", "1"))
			return status.Error(codes.NotFound, "none")
		}))
		cs := e.open(e.ctx, e.dial(), bidiMethod)
		cs.header()
		cs.recv()
		cs.trailer()
	}},
	{name: "metadata/trailer only", run: func(e *env) {
		e.serve(e.streams(func(s *sstream) error {
			s.SetHeader(metadata.Pairs("h", "1"))
			s.SetTrailer(metadata.Pairs("t", "1"))
			return status.Error(codes.NotFound, "none")
		}))
		cs := e.open(e.ctx, e.dial(), bidiMethod)
		cs.header()
		cs.recv()
		cs.trailer()
	}},
	{name: "metadata/bare error", run: func(e *env) {
		e.serve(e.streams(func(*sstream) error { return status.Error(codes.NotFound, "none") }))
		cs := e.open(e.ctx, e.dial(), bidiMethod)
		cs.header()
		cs.recv()
		cs.trailer()
	}},
	{name: "metadata/unary error with both", run: func(e *env) {
		e.serve(&service{unary: func(ctx context.Context, _ *msg) (*msg, error) {
			grpc.SetHeader(ctx, metadata.Pairs("h", "1"))
			grpc.SetTrailer(ctx, metadata.Pairs("t", "1"))
			return nil, status.Error(codes.NotFound, "none")
		}})
		e.unaryMD(e.ctx, e.dial(), "")
	}},
	{name: "metadata/unary sends header, then error", run: func(e *env) {
		e.serve(&service{unary: func(ctx context.Context, _ *msg) (*msg, error) {
			e.s("%s", errText(grpc.SendHeader(ctx, metadata.Pairs("h", "1"))))
			grpc.SetTrailer(ctx, metadata.Pairs("t", "1"))
			return nil, status.Error(codes.NotFound, "none")
		}})
		e.unaryMD(e.ctx, e.dial(), "")
	}},
	{name: "metadata/set merges", run: func(e *env) {
		e.serve(&service{unary: func(ctx context.Context, _ *msg) (*msg, error) {
			grpc.SetHeader(ctx, metadata.Pairs("h", "1"))
			grpc.SetHeader(ctx, metadata.Pairs("h", "2", "g", "x"))
			e.s("send: %s", errText(grpc.SendHeader(ctx, metadata.Pairs("h", "3"))))
			e.s("send again: %s", errText(grpc.SendHeader(ctx, metadata.Pairs("h", "4"))))
			e.s("set after send: %s", errText(grpc.SetHeader(ctx, metadata.Pairs("h", "5"))))
			grpc.SetTrailer(ctx, metadata.Pairs("t", "1"))
			grpc.SetTrailer(ctx, metadata.Pairs("t", "2"))
			return str(""), nil
		}})
		e.unaryMD(e.ctx, e.dial(), "")
	}},
	{name: "metadata/set after message", run: func(e *env) {
		e.serve(e.streams(func(s *sstream) error {
			s.send("x")
			e.s("set: %s", errText(s.SetHeader(metadata.Pairs("h", "1"))))
			e.s("send: %s", errText(s.SendHeader(metadata.Pairs("h", "1"))))
			s.SetTrailer(metadata.Pairs("t", "1"))
			s.SetTrailer(metadata.Pairs("t", "2", "u", "3"))
			return nil
		}))
		cs := e.open(e.ctx, e.dial(), bidiMethod)
		cs.drain()
		cs.header()
		cs.trailer()
	}},
	{name: "metadata/not in a handler", run: func(e *env) {
		e.c("%s", codeText(grpc.SetHeader(e.ctx, nil)))
		e.c("%s", codeText(grpc.SendHeader(e.ctx, metadata.Pairs("a", "b"))))
		e.c("%s", codeText(grpc.SetTrailer(e.ctx, metadata.Pairs("a", "b"))))
	}},
	{name: "metadata/server list limit", run: func(e *env) {
		e.serve(e.seesMD(), grpc.MaxHeaderListSize(2000))
		cc := e.dial()
		e.unary(metadata.AppendToOutgoingContext(e.ctx, "a", strings.Repeat("v", 1000)), cc, "under")
		err := cc.Invoke(metadata.AppendToOutgoingContext(e.ctx, "a", strings.Repeat("v", 4000)), unaryMethod, str(""), new(msg))
		e.c("over: %s", codeText(err))
		e.unary(e.ctx, cc, "alive")
	}},
	{name: "metadata/client list limit", run: func(e *env) {
		e.serve(&service{unary: func(ctx context.Context, in *msg) (*msg, error) {
			grpc.SetHeader(ctx, metadata.Pairs("h", strings.Repeat("v", len(in.GetValue()))))
			return str(""), nil
		}})
		cc := e.dial(grpc.WithMaxHeaderListSize(2000))
		e.unary(e.ctx, cc, strings.Repeat("x", 1000))
		err := cc.Invoke(e.ctx, unaryMethod, str(strings.Repeat("x", 4000)), new(msg))
		e.c("over: %s", codeText(err))
		e.unary(e.ctx, cc, "alive")
	}},
}

func allBytes() string {
	b := make([]byte, 256)
	for i := range b {
		b[i] = byte(i)
	}
	return string(b)
}

func manyKeys(n int) metadata.MD {
	md := metadata.MD{}
	for i := range n {
		md.Append(fmt.Sprintf("key-%d", i), fmt.Sprint(i))
	}
	return md
}
