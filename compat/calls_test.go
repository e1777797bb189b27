package compat

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// unary makes a unary call and writes what came back.
func (e *env) unary(ctx context.Context, cc *grpc.ClientConn, in string, opts ...grpc.CallOption) error {
	out := new(msg)
	err := cc.Invoke(ctx, unaryMethod, str(in), out, opts...)
	e.c("unary %s: %s, %s", brief(in), brief(out.GetValue()), errText(err))
	return err
}

// warm makes cc connect, so that a short deadline does not meet that.
func (e *env) warm(cc *grpc.ClientConn) *grpc.ClientConn {
	if err := cc.Invoke(e.ctx, "/compat.Test/Warm", str(""), new(msg)); status.Code(err) != codes.Unimplemented {
		e.t.Errorf("warming: %v", err)
	}
	return cc
}

// unaryMD is unary that also writes header and trailer.
func (e *env) unaryMD(ctx context.Context, cc *grpc.ClientConn, in string, opts ...grpc.CallOption) error {
	var h, t metadata.MD
	err := e.unary(ctx, cc, in, append(opts, grpc.Header(&h), grpc.Trailer(&t))...)
	e.c("header %s", mdText(h))
	e.c("trailer %s", mdText(t))
	return err
}

// cstream is a client stream that writes down all it is told and sees.
type cstream struct {
	grpc.ClientStream
	e *env
}

func (e *env) open(ctx context.Context, cc *grpc.ClientConn, method string, opts ...grpc.CallOption) *cstream {
	cs, err := cc.NewStream(ctx, clientDesc(method), method, opts...)
	e.c("open %s: %s", method, errText(err))
	if err != nil {
		return nil
	}
	return &cstream{ClientStream: cs, e: e}
}

func (s *cstream) send(text string) error {
	err := s.SendMsg(str(text))
	s.e.c("send %s: %s", brief(text), errText(err))
	return err
}

func (s *cstream) recv() error {
	m := new(msg)
	err := s.RecvMsg(m)
	if err != nil {
		s.e.c("recv: %s", errText(err))
		return err
	}
	s.e.c("recv: %s", brief(m.GetValue()))
	return nil
}

func (s *cstream) closeSend() { s.e.c("close send: %s", errText(s.CloseSend())) }

func (s *cstream) header() {
	h, err := s.Header()
	s.e.c("header %s, %s", mdText(h), errText(err))
}

func (s *cstream) trailer() { s.e.c("trailer %s", mdText(s.Trailer())) }

// drain reads to the end.
func (s *cstream) drain() {
	for s.recv() == nil {
	}
}

// sstream is the server's side of cstream.
type sstream struct {
	grpc.ServerStream
	e *env
}

func (s *sstream) send(text string) error {
	err := s.SendMsg(str(text))
	s.e.s("send %s: %s", brief(text), errText(err))
	return err
}

func (s *sstream) recv() (string, error) {
	m := new(msg)
	err := s.RecvMsg(m)
	if err != nil {
		s.e.s("recv: %s", errText(err))
		return "", err
	}
	s.e.s("recv: %s", brief(m.GetValue()))
	return m.GetValue(), nil
}

// streams makes a service whose stream handler is h.
func (e *env) streams(h func(*sstream) error) *service {
	return &service{stream: func(ss grpc.ServerStream) error { return h(&sstream{ss, e}) }}
}

// echo answers each message with "re: " and ends with the client.
func (e *env) echo() *service {
	return e.streams(func(s *sstream) error {
		for {
			in, err := s.recv()
			if err != nil {
				return nil
			}
			if s.send("re: "+in) != nil {
				return nil
			}
		}
	})
}
