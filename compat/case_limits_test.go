package compat

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
)

// sized is a message whose encoding has exactly n bytes (n > 10).
func sized(n int) *msg {
	m := str(strings.Repeat("x", n-6))
	for proto.Size(m) < n {
		m.Value += "x"
	}
	for proto.Size(m) > n {
		m.Value = m.Value[1:]
	}
	return m
}

// sizes is a service that answers a unary call with the message it got, or as
// many bytes as a decimal text asks for.
func sizes() *service {
	answer := func(in *msg) *msg {
		var n int
		if k, _ := fmt.Sscanf(in.GetValue(), "size %d", &n); k == 1 {
			return sized(n)
		}
		return str(fmt.Sprintf("%d bytes", proto.Size(in)))
	}
	return &service{
		unary: func(_ context.Context, in *msg) (*msg, error) { return answer(in), nil },
		stream: func(ss grpc.ServerStream) error {
			for {
				in := new(msg)
				if err := ss.RecvMsg(in); err == io.EOF {
					return nil
				} else if err != nil {
					return err
				}
				if err := ss.SendMsg(answer(in)); err != nil {
					return err
				}
			}
		},
	}
}

// sizedCall calls with m, unary and on a stream.
func (e *env) sizedCall(cc *grpc.ClientConn, m *msg, opts ...grpc.CallOption) {
	out := new(msg)
	err := cc.Invoke(e.ctx, unaryMethod, m, out, opts...)
	e.c("unary %s -> %s %s", brief(m.GetValue()), brief(out.GetValue()), errText(err))
	cs := e.open(e.ctx, cc, bidiMethod, opts...)
	if cs == nil {
		return
	}
	err = cs.SendMsg(m)
	if err != nil && err != io.EOF {
		e.c("send %s", errText(err))
	}
	if cs.recv() != nil {
		return // after a message too large grpc-go reads on in its middle
	}
	cs.CloseSend()
	cs.recv()
}

var limitCases = []diffCase{
	{name: "limit/server receive", run: func(e *env) {
		e.serve(sizes(), grpc.MaxRecvMsgSize(1000))
		cc := e.dial()
		e.sizedCall(cc, sized(1000))
		e.sizedCall(cc, sized(1001))
		e.sizedCall(cc, str("alive"))
	}},
	{name: "limit/server send", run: func(e *env) {
		e.serve(sizes(), grpc.MaxSendMsgSize(1000))
		cc := e.dial()
		e.sizedCall(cc, str("size 1000"))
		e.sizedCall(cc, str("size 1001"))
		e.sizedCall(cc, str("alive"))
	}},
	{name: "limit/client receive", run: func(e *env) {
		e.serve(sizes())
		cc := e.dial(grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1000)))
		e.sizedCall(cc, str("size 1000"))
		e.sizedCall(cc, str("size 1001"))
		e.sizedCall(cc, str("size 1001"), grpc.MaxCallRecvMsgSize(1001))
	}},
	{name: "limit/client send", run: func(e *env) {
		e.serve(sizes())
		cc := e.dial()
		e.sizedCall(cc, sized(1000), grpc.MaxCallSendMsgSize(1000))
		e.sizedCall(cc, sized(1001), grpc.MaxCallSendMsgSize(1000))
		e.sizedCall(cc, sized(1001))
	}},
	{name: "limit/4 MiB default", run: func(e *env) {
		e.serve(sizes())
		cc := e.dial()
		e.sizedCall(cc, sized(4<<20))
		e.sizedCall(cc, sized(4<<20+1))
		e.sizedCall(cc, str("size 4194304"))
		e.sizedCall(cc, str("size 4194305"))
	}},
	{name: "limit/64 MiB", run: func(e *env) {
		e.serve(nil, grpc.ForceServerCodec(rawCodec{}), grpc.MaxRecvMsgSize(65<<20),
			grpc.UnknownServiceHandler(func(_ any, ss grpc.ServerStream) error {
				var b []byte
				if err := ss.RecvMsg(&b); err != nil {
					return err
				}
				return ss.SendMsg(b)
			}))
		in, out := make([]byte, 64<<20), []byte(nil)
		for i := range 64 {
			in[i<<20] = byte(i)
		}
		err := e.dial().Invoke(e.ctx, "/x.Y/Z", in, &out, grpc.ForceCodec(rawCodec{}), grpc.MaxCallRecvMsgSize(65<<20))
		e.c("equal %v %s", bytes.Equal(in, out), errText(err))
	}},
	{name: "limit/many sizes", run: func(e *env) {
		e.serve(&service{unary: func(_ context.Context, in *msg) (*msg, error) { return in, nil }})
		cc := e.dial()
		for shift := range 20 {
			for _, d := range []int{-1, 0, 1} {
				e.unary(e.ctx, cc, strings.Repeat("x", 1<<shift+d))
			}
		}
	}},
	{name: "limit/compressed over the limit", run: func(e *env) {
		e.serve(sizes(), grpc.MaxRecvMsgSize(10_000))
		cc := e.dial()
		e.sizedCall(cc, sized(10_000), grpc.UseCompressor(gzip.Name))
		e.sizedCall(cc, sized(10_001), grpc.UseCompressor(gzip.Name))
		e.sizedCall(cc, sized(1_000_000), grpc.UseCompressor(gzip.Name))
	}},
	{name: "compressor/gzip", run: func(e *env) {
		e.serve(e.seesMD())
		cc := e.dial()
		e.unaryMD(e.ctx, cc, strings.Repeat("x", 1000), grpc.UseCompressor(gzip.Name))
		e.unaryMD(e.ctx, cc, "", grpc.UseCompressor(gzip.Name))
	}},
	{name: "compressor/gzip stream", run: func(e *env) {
		e.serve(e.echo())
		cs := e.open(e.ctx, e.dial(grpc.WithDefaultCallOptions(grpc.UseCompressor(gzip.Name))), bidiMethod)
		cs.send(strings.Repeat("x", 5000))
		cs.recv()
		cs.send("")
		cs.recv()
		cs.header()
		cs.closeSend()
		cs.recv()
	}},
	{name: "compressor/is used", run: func(e *env) {
		// A registered compressor sees the bytes both ways.
		before := counted.in.Load()
		e.serve(sizes())
		e.sizedCall(e.dial(), sized(1000), grpc.UseCompressor("compat-count"))
		e.c("compressed %v", counted.in.Load() > before)
	}},
	{name: "compressor/unknown", run: func(e *env) {
		e.serve(nil)
		cc := e.dial()
		e.unary(e.ctx, cc, "a", grpc.UseCompressor("nope"))
		e.open(e.ctx, cc, bidiMethod, grpc.UseCompressor("nope"))
	}},
	{name: "compressor/identity", run: func(e *env) {
		e.serve(e.seesMD())
		e.unary(e.ctx, e.dial(), "a", grpc.UseCompressor(encoding.Identity))
	}},
	{name: "compressor/server chooses", run: func(e *env) {
		e.serve(&service{
			unary: func(ctx context.Context, _ *msg) (*msg, error) {
				e.s("set: %s", errText(grpc.SetSendCompressor(ctx, gzip.Name)))
				e.s("unknown: %s", codeText(grpc.SetSendCompressor(ctx, "nope")))
				names, err := grpc.ClientSupportedCompressors(ctx)
				e.s("client supports gzip %v %s", strings.Contains(strings.Join(names, ","), "gzip"), errText(err))
				return str(strings.Repeat("y", 1000)), nil
			},
			stream: func(ss grpc.ServerStream) error {
				e.s("set: %s", errText(grpc.SetSendCompressor(ss.Context(), gzip.Name)))
				ss.SendMsg(str("x"))
				e.s("set late: %s", codeText(grpc.SetSendCompressor(ss.Context(), gzip.Name)))
				return nil
			},
		})
		cc := e.dial()
		e.unaryMD(e.ctx, cc, "a")
		cs := e.open(e.ctx, cc, bidiMethod)
		cs.drain()
		cs.header()
	}},
	{name: "compressor/advertised", run: func(e *env) {
		e.serve(&service{unary: func(ctx context.Context, _ *msg) (*msg, error) {
			md, _ := metadata.FromIncomingContext(ctx)
			names, err := grpc.ClientSupportedCompressors(ctx)
			e.s("%q %q %s", md["grpc-accept-encoding"], names, errText(err))
			return str(""), nil
		}})
		e.unary(e.ctx, e.dial(), "")
	}},
	{name: "compressor/old server option", run: func(e *env) {
		e.serve(sizes(), grpc.RPCCompressor(grpc.NewGZIPCompressor()), grpc.RPCDecompressor(grpc.NewGZIPDecompressor()))
		e.sizedCall(e.dial(), sized(1000))
	}, remote: true},
	{name: "compressor/old client option", run: func(e *env) {
		e.serve(sizes())
		e.sizedCall(e.dial(grpc.WithCompressor(grpc.NewGZIPCompressor()), grpc.WithDecompressor(grpc.NewGZIPDecompressor())), sized(1000))
	}, remote: true},
	{name: "codec/content subtype", run: func(e *env) {
		e.serve(e.seesMD())
		cc := e.dial()
		e.unaryMD(e.ctx, cc, "a", grpc.CallContentSubtype("compat-json"))
		e.unaryMD(e.ctx, cc, "a", grpc.CallContentSubtype("COMPAT-JSON"))
		e.unaryMD(e.ctx, cc, "a", grpc.CallContentSubtype("proto"))
	}},
	{name: "codec/unknown subtype", run: func(e *env) {
		e.serve(nil)
		cc := e.dial()
		e.unary(e.ctx, cc, "a", grpc.CallContentSubtype("nope"))
		e.open(e.ctx, cc, bidiMethod, grpc.CallContentSubtype("nope"))
	}},
	{name: "codec/unknown to the server", run: func(e *env) {
		// ForceCodec sets the subtype by its name; the server has none of that name.
		e.serve(e.seesMD())
		cc := e.dial()
		e.unaryMD(e.ctx, cc, "a", grpc.ForceCodec(jsonCodec{name: "unregistered"}))
		cs := e.open(e.ctx, cc, bidiMethod, grpc.ForceCodec(jsonCodec{name: "unregistered"}))
		cs.recv()
	}},
	{name: "codec/forced", run: func(e *env) {
		e.serve(e.echo())
		cs := e.open(e.ctx, e.dial(), bidiMethod, grpc.ForceCodec(jsonCodec{name: "compat-json"}))
		cs.send("a")
		cs.recv()
		cs.closeSend()
		cs.recv()
		cs.header()
	}},
	{name: "codec/forced with subtype", run: func(e *env) {
		e.serve(e.seesMD())
		e.unary(e.ctx, e.dial(), "a", grpc.ForceCodec(jsonCodec{name: "other"}), grpc.CallContentSubtype("compat-json"))
	}},
	{name: "codec/forced on both sides", run: func(e *env) {
		e.serve(e.seesMD(), grpc.ForceServerCodec(jsonCodec{name: "whatever"}))
		e.unaryMD(e.ctx, e.dial(grpc.WithDefaultCallOptions(grpc.ForceCodec(jsonCodec{name: "unregistered"}))), "a")
	}},
	{name: "codec/forced on the server only", run: func(e *env) {
		e.serve(nil, grpc.ForceServerCodec(jsonCodec{name: "x"}))
		err := e.dial().Invoke(e.ctx, unaryMethod, str("a"), new(msg))
		e.c("%s", codeText(err))
	}},
	{name: "codec/client sends what the server cannot read", run: func(e *env) {
		e.serve(nil)
		cc := e.dial()
		var out []byte
		err := cc.Invoke(e.ctx, unaryMethod, []byte("\xff\xff\xff"), &out, grpc.ForceCodec(rawCodec{}))
		e.c("%s", codeText(err))
		e.unary(e.ctx, cc, "alive")
	}},
	{name: "codec/server sends what the client cannot read", run: func(e *env) {
		e.serve(nil, grpc.ForceServerCodec(jsonCodec{name: "x"}))
		cc := e.dial()
		b, _ := json.Marshal("a")
		out := new(msg)
		err := cc.Invoke(e.ctx, unaryMethod, b, out, grpc.ForceCodec(rawToProto{}))
		e.c("%s", codeText(err))
	}},
	{name: "codec/fails to marshal on the server", run: func(e *env) {
		e.serve(&service{unary: func(context.Context, *msg) (*msg, error) { return str("\xff"), nil }})
		cc := e.dial()
		e.unary(e.ctx, cc, "a")
		e.unary(e.ctx, cc, "b")
	}},
	{name: "codec/raw proxy", run: func(e *env) {
		// Bytes pass through an unknown-service handler untouched.
		e.serve(nil, grpc.ForceServerCodec(rawCodec{}), grpc.UnknownServiceHandler(func(_ any, ss grpc.ServerStream) error {
			var b []byte
			if err := ss.RecvMsg(&b); err != nil {
				return err
			}
			ss.SetHeader(metadata.Pairs("len", fmt.Sprint(len(b))))
			return ss.SendMsg(b)
		}))
		out := new(msg)
		err := e.dial().Invoke(e.ctx, "/x.Y/Z", str("through"), out)
		e.c("%q %s", out.GetValue(), errText(err))
	}},
}

// jsonCodec is a registered codec that is not protobuf.
type jsonCodec struct{ name string }

func (jsonCodec) Marshal(v any) ([]byte, error) { return json.Marshal(v.(*msg).GetValue()) }
func (jsonCodec) Unmarshal(b []byte, v any) error {
	return json.Unmarshal(b, &v.(*msg).Value)
}
func (c jsonCodec) Name() string { return c.name }

// rawCodec passes bytes; its name is protobuf's.
type rawCodec struct{}

func (rawCodec) Marshal(v any) ([]byte, error) {
	if b, ok := v.([]byte); ok {
		return b, nil
	}
	return *v.(*[]byte), nil
}
func (rawCodec) Unmarshal(b []byte, v any) error {
	*v.(*[]byte) = bytes.Clone(b)
	return nil
}
func (rawCodec) Name() string { return "proto" }

// rawToProto sends bytes and reads protobuf.
type rawToProto struct{ rawCodec }

func (rawToProto) Unmarshal(b []byte, v any) error { return proto.Unmarshal(b, v.(proto.Message)) }

// countingCompressor is an identity that counts.
type countingCompressor struct{ in, out atomic.Int64 }

func (c *countingCompressor) Compress(w io.Writer) (io.WriteCloser, error) {
	c.in.Add(1)
	return nopCloser{w}, nil
}
func (c *countingCompressor) Decompress(r io.Reader) (io.Reader, error) { c.out.Add(1); return r, nil }
func (c *countingCompressor) Name() string                              { return "compat-count" }

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

var counted = &countingCompressor{}

func init() {
	encoding.RegisterCodec(jsonCodec{name: "compat-json"})
	encoding.RegisterCompressor(counted)
}
