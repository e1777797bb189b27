package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/jhump/protoreflect/grpcreflect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// call makes one call over conn and reads all that comes back. Calls run at once.
type call func(ctx context.Context, conn grpc.ClientConnInterface, opts ...grpc.CallOption) error

// echoCall sends size bytes and has them come back.
func echoCall(size int) call {
	payload := bytes.Repeat([]byte("stile "), size/6+1)[:size]
	return func(ctx context.Context, conn grpc.ClientConnInterface, opts ...grpc.CallOption) error {
		out := new(wrapperspb.BytesValue)
		if err := conn.Invoke(ctx, echoMethod, &wrapperspb.BytesValue{Value: payload}, out, opts...); err != nil {
			return err
		}
		if len(out.Value) != size {
			return fmt.Errorf("the echo of %d bytes has %d", size, len(out.Value))
		}
		return nil
	}
}

// ErrMethod is wrapped by all that is wrong with the method or its messages.
var ErrMethod = errors.New("method")

// describe finds the method "package.Service/Method" in protoset, a serialized
// FileDescriptorSet, or if that is empty by asking the server at conn.
func describe(ctx context.Context, conn grpc.ClientConnInterface, method string, protoset []byte) (protoreflect.MethodDescriptor, error) {
	service, name, ok := cutMethod(method)
	if !ok {
		return nil, fmt.Errorf("%w %q is not package.Service/Method", ErrMethod, method)
	}
	var s protoreflect.ServiceDescriptor
	var err error
	if len(protoset) > 0 {
		s, err = serviceIn(protoset, service)
	} else {
		s, err = serviceOf(ctx, conn, service)
	}
	if err != nil {
		return nil, err
	}
	if m := s.Methods().ByName(protoreflect.Name(name)); m != nil {
		return m, nil
	}
	var names []string
	for i := range s.Methods().Len() {
		names = append(names, string(s.Methods().Get(i).Name()))
	}
	return nil, fmt.Errorf("%w: %s has no %q; it has %s", ErrMethod, service, name, strings.Join(names, ", "))
}

// cutMethod splits at the last slash, or as grpcurl does too, at the last dot.
func cutMethod(method string) (service, name string, ok bool) {
	method = strings.TrimPrefix(method, "/")
	i := strings.LastIndexByte(method, '/')
	if i < 0 {
		i = strings.LastIndexByte(method, '.')
	}
	if i <= 0 || i == len(method)-1 {
		return "", "", false
	}
	return method[:i], method[i+1:], true
}

func serviceIn(protoset []byte, service string) (protoreflect.ServiceDescriptor, error) {
	set := new(descriptorpb.FileDescriptorSet)
	if err := proto.Unmarshal(protoset, set); err != nil {
		return nil, fmt.Errorf("%w: the protoset is none: %w", ErrMethod, err)
	}
	files, err := protodesc.NewFiles(set)
	if err != nil {
		return nil, fmt.Errorf("%w: the protoset is not whole (protoc --include_imports): %w", ErrMethod, err)
	}
	found, err := files.FindDescriptorByName(protoreflect.FullName(service))
	if err != nil {
		return nil, fmt.Errorf("%w: the protoset has no service %q", ErrMethod, service)
	}
	s, ok := found.(protoreflect.ServiceDescriptor)
	if !ok {
		return nil, fmt.Errorf("%w: %q is no service", ErrMethod, service)
	}
	return s, nil
}

func serviceOf(ctx context.Context, conn grpc.ClientConnInterface, service string) (protoreflect.ServiceDescriptor, error) {
	client := grpcreflect.NewClientAuto(ctx, conn)
	defer client.Reset()
	s, err := client.ResolveService(service)
	switch {
	case err == nil:
		return s.UnwrapService(), nil
	case status.Code(err) == codes.Unimplemented:
		return nil, fmt.Errorf("%w: the server has no reflection: register it (reflection.Register), or give --protoset", ErrMethod)
	case grpcreflect.IsElementNotFoundError(err):
		if names, listErr := client.ListServices(); listErr == nil {
			return nil, fmt.Errorf("%w: the server has no service %q; it has %s", ErrMethod, service, strings.Join(names, ", "))
		}
	}
	return nil, fmt.Errorf("ask the server what %s is: %w", service, err)
}

// methodCall sends the messages that data holds, JSON one after the other, and reads
// until the end.
func methodCall(m protoreflect.MethodDescriptor, data []byte) (call, error) {
	requests, err := messagesOf(m, data)
	if err != nil {
		return nil, err
	}
	path := fmt.Sprintf("/%s/%s", m.Parent().FullName(), m.Name())
	if !m.IsStreamingClient() && !m.IsStreamingServer() {
		return func(ctx context.Context, conn grpc.ClientConnInterface, opts ...grpc.CallOption) error {
			return conn.Invoke(ctx, path, requests[0], dynamicpb.NewMessage(m.Output()), opts...)
		}, nil
	}
	desc := &grpc.StreamDesc{StreamName: string(m.Name()), ClientStreams: m.IsStreamingClient(), ServerStreams: m.IsStreamingServer()}
	return func(ctx context.Context, conn grpc.ClientConnInterface, opts ...grpc.CallOption) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		s, err := conn.NewStream(ctx, desc, path, opts...)
		if err != nil {
			return err
		}
		for _, r := range requests {
			if err := s.SendMsg(r); errors.Is(err, io.EOF) {
				break // RecvMsg tells why
			} else if err != nil {
				return err
			}
		}
		if err := s.CloseSend(); err != nil {
			return err
		}
		for {
			err := s.RecvMsg(dynamicpb.NewMessage(m.Output()))
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			if !desc.ServerStreams {
				return nil
			}
		}
	}, nil
}

// messagesOf reads the requests; one without fields if data is empty.
func messagesOf(m protoreflect.MethodDescriptor, data []byte) ([]proto.Message, error) {
	var list []proto.Message
	decoder := json.NewDecoder(bytes.NewReader(data))
	for {
		var text json.RawMessage
		if err := decoder.Decode(&text); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("%w: the data is not JSON: %w", ErrMethod, err)
		}
		message := dynamicpb.NewMessage(m.Input())
		if err := protojson.Unmarshal(text, message); err != nil {
			return nil, fmt.Errorf("%w: the data is no %s: %w", ErrMethod, m.Input().FullName(), err)
		}
		list = append(list, message)
	}
	switch {
	case len(list) == 0:
		return []proto.Message{dynamicpb.NewMessage(m.Input())}, nil
	case len(list) > 1 && !m.IsStreamingClient():
		return nil, fmt.Errorf("%w: %s takes one message, the data has %d", ErrMethod, m.FullName(), len(list))
	}
	return list, nil
}
