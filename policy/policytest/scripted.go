// Package policytest has a server that does as told, to compare what different channels and
// policies make of it.
package policytest

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const (
	previousAttempts = "grpc-previous-rpc-attempts"
	pushback         = "grpc-retry-pushback-ms"
)

// Step is what the server does with an attempt.
type Step struct {
	Code    codes.Code
	Header  bool     // is sent before the end
	Message bool     // too; of streams
	Push    []string // values of the pushback trailer
}

// RandomSteps are attempts that mostly fail.
func RandomSteps(r *rand.Rand, n int) []Step {
	choices := []codes.Code{codes.OK, codes.Unavailable, codes.Unavailable, codes.Aborted, codes.ResourceExhausted, codes.NotFound}
	pushes := [][]string{{"15"}, {"-1"}, {"soon"}, {"1", "2"}}
	steps := make([]Step, n)
	for i := range steps {
		steps[i] = Step{Code: choices[r.IntN(len(choices))], Header: r.IntN(8) == 0, Message: r.IntN(8) == 0}
		if k := r.IntN(10); k < len(pushes) {
			steps[i].Push = pushes[k]
		}
	}
	return steps
}

// Server meets attempts with Steps, and with OK once they are used up. It writes down what it
// saw; so does Talk.
type Server struct {
	pb.UnimplementedTestServiceServer
	Steps []Step

	mu    sync.Mutex
	lines []string
}

func (s *Server) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, fmt.Sprintf(format, args...))
}

func (s *Server) next(ctx context.Context) Step {
	tried := metadata.ValueFromIncomingContext(ctx, previousAttempts)
	s.note("attempt %v", tried)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.Steps) == 0 {
		return Step{}
	}
	first := s.Steps[0]
	s.Steps = s.Steps[1:]
	return first
}

func (st Step) end(ctx context.Context) error {
	if st.Header {
		if err := grpc.SendHeader(ctx, metadata.Pairs("x", "y")); err != nil {
			return err
		}
	}
	if len(st.Push) > 0 {
		if err := grpc.SetTrailer(ctx, metadata.MD{pushback: st.Push}); err != nil {
			return err
		}
	}
	return status.Error(st.Code, "step")
}

// UnaryCall takes the next step.
func (s *Server) UnaryCall(ctx context.Context, _ *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	if err := s.next(ctx).end(ctx); err != nil {
		return nil, err
	}
	return &pb.SimpleResponse{Username: "ok"}, nil
}

// FullDuplexCall takes the next step, once the client has sent all it has.
func (s *Server) FullDuplexCall(ss pb.TestService_FullDuplexCallServer) error {
	st := s.next(ss.Context())
	n := 0
	for ; ; n++ {
		if _, err := ss.Recv(); err == io.EOF {
			break
		} else if err != nil {
			return err
		}
	}
	s.note("%d messages", n)
	if st.Message {
		if err := ss.Send(&pb.StreamingOutputCallResponse{}); err != nil {
			return err
		}
	}
	return st.end(ss.Context())
}

// Talk makes calls, of which every other is a stream, and returns what both sides saw.
func (s *Server) Talk(ctx context.Context, client pb.TestServiceClient, calls int) []string {
	for i := range calls {
		var err error
		var trailer metadata.MD
		if i%2 == 0 {
			_, err = client.UnaryCall(ctx, &pb.SimpleRequest{}, grpc.Trailer(&trailer))
		} else {
			err = s.stream(ctx, client, i)
		}
		s.note("call %d: %v %q %v", i, status.Code(err), status.Convert(err).Message(), trailer[pushback])
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lines
}

// stream makes a stream, in one of several manners.
func (s *Server) stream(ctx context.Context, client pb.TestServiceClient, manner int) error {
	stream, err := client.FullDuplexCall(ctx)
	if err != nil {
		return err
	}
	for range manner % 5 {
		if err := stream.Send(&pb.StreamingOutputCallRequest{}); err != nil && err != io.EOF {
			return err
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	if manner%3 == 0 {
		md, err := stream.Header()
		s.note("header %v %v", md["x"], err)
	}
	n := 0
	for ; err == nil; n++ {
		_, err = stream.Recv()
	}
	s.note("%d answers", n-1)
	if err == io.EOF {
		err = nil
	}
	return err
}
