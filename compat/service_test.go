package compat

import (
	"context"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// msg is the one message of the test service.
type msg = wrapperspb.StringValue

func str(s string) *msg { return wrapperspb.String(s) }

const (
	unaryMethod  = "/compat.Test/Unary"
	clientMethod = "/compat.Test/ClientStream"
	serverMethod = "/compat.Test/ServerStream"
	bidiMethod   = "/compat.Test/Bidi"
)

// service is the test service; each case brings its own handlers.
type service struct {
	unary  func(context.Context, *msg) (*msg, error)
	stream func(grpc.ServerStream) error // all three streaming kinds
	mu     sync.Mutex
	idle   *sync.Cond // with mu
	run    int        // handlers running, with mu
}

func (s *service) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.run++
}

func (s *service) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.run--
	if s.idle != nil {
		s.idle.Broadcast()
	}
}

// wait returns when no handler runs.
func (s *service) wait() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.idle == nil {
		s.idle = sync.NewCond(&s.mu)
	}
	for s.run > 0 {
		s.idle.Wait()
	}
}

func (s *service) callUnary(ctx context.Context, in *msg) (*msg, error) {
	s.begin()
	defer s.end()
	if s.unary == nil {
		return str("re: " + in.GetValue()), nil
	}
	return s.unary(ctx, in)
}

func (s *service) callStream(ss grpc.ServerStream) error {
	s.begin()
	defer s.end()
	return s.stream(ss)
}

// testServer is the interface that the service descriptor demands.
type testServer interface {
	callUnary(context.Context, *msg) (*msg, error)
	callStream(grpc.ServerStream) error
}

func unaryHandler(srv any, ctx context.Context, dec func(any) error, i grpc.UnaryServerInterceptor) (any, error) {
	in := new(msg)
	if err := dec(in); err != nil {
		return nil, err
	}
	if i == nil {
		return srv.(testServer).callUnary(ctx, in)
	}
	info := &grpc.UnaryServerInfo{Server: srv, FullMethod: unaryMethod}
	return i(ctx, in, info, func(ctx context.Context, req any) (any, error) {
		return srv.(testServer).callUnary(ctx, req.(*msg))
	})
}

func streamHandler(srv any, ss grpc.ServerStream) error { return srv.(testServer).callStream(ss) }

var testServiceDesc = grpc.ServiceDesc{
	ServiceName: "compat.Test",
	HandlerType: (*testServer)(nil),
	Methods:     []grpc.MethodDesc{{MethodName: "Unary", Handler: unaryHandler}},
	Streams: []grpc.StreamDesc{
		{StreamName: "ClientStream", Handler: streamHandler, ClientStreams: true},
		{StreamName: "ServerStream", Handler: streamHandler, ServerStreams: true},
		{StreamName: "Bidi", Handler: streamHandler, ClientStreams: true, ServerStreams: true},
	},
	Metadata: "compat.proto",
}

// clientDesc is the descriptor generated code would pass to NewStream.
func clientDesc(method string) *grpc.StreamDesc {
	return &grpc.StreamDesc{
		StreamName:    method,
		ClientStreams: method == clientMethod || method == bidiMethod,
		ServerStreams: method == serverMethod || method == bidiMethod,
	}
}
