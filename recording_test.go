package stile

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	pb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/stile-ipc/stile/telemetry"
)

// In these tests somebody takes what is counted.
func init() { telemetry.Process().Enable() }

// counted is what was counted of a method since it was asked last, by side and transport. It looks until as many calls have been counted as are wanted: a
// server counts a call when its client has the answer.
func counted(t *testing.T, method string, calls uint64) map[telemetry.Side]map[string]*telemetry.Stats {
	t.Helper()
	all := map[telemetry.Side]map[string]*telemetry.Stats{telemetry.Client: {}, telemetry.Server: {}}
	for begin := time.Now(); time.Since(begin) < 10*time.Second; time.Sleep(time.Millisecond) {
		sum := uint64(0)
		for _, one := range telemetry.Process().Take() {
			if one.Method == method {
				of := all[one.Side]
				if of[one.Transport] == nil {
					of[one.Transport] = &telemetry.Stats{}
				}
				of[one.Transport].Merge(one.Stats)
			}
		}
		for _, side := range all {
			for _, s := range side {
				sum += s.Calls()
			}
		}
		if sum >= calls {
			return all
		}
	}
	t.Fatalf("%d calls of %s are not counted: %v", calls, method, all)
	return nil
}

// TestCounted: each call counts once at each side, with its code, its bytes and how it went.
func TestCounted(t *testing.T) {
	const method = "/grpc.testing.TestService/UnaryCall"
	target, _, _ := startServer(t, &echo{})
	telemetry.Process().Take()
	for way, want := range map[string][]grpc.DialOption{"shm": nil, "unix-stream": {WithoutSharedMemory()}} {
		client := dialTest(t, target, want...)
		for n := range 100 {
			req := &pb.SimpleRequest{Payload: payload(n)}
			if n%10 == 0 {
				req.ResponseStatus = &pb.EchoStatus{Code: int32(codes.NotFound)}
			}
			if _, err := client.UnaryCall(testContext(t), req); (err != nil) != (n%10 == 0) {
				t.Fatal(err)
			}
		}
		got := counted(t, method, 200)
		for side, name := range map[telemetry.Side]string{telemetry.Client: "client", telemetry.Server: "server"} {
			s := got[side][way]
			if s == nil || len(got[side]) != 1 {
				t.Fatalf("%s, %s: %v", way, name, got[side])
			}
			if s.Codes[0] != 90 || s.Codes[codes.NotFound] != 10 || s.Failures.Count() != 10 || s.Waits.Calls != 100 || s.Request.Count() != 100 || s.Request.Sum() < 100*99/2 {
				t.Errorf("%s, %s: %v, %d failures, %+v, %v bytes", way, name, s.Codes, s.Failures.Count(), s.Waits, s.Request.Sum())
			}
			w := s.Waits
			if sum := w.ClientQueue + w.Transport + w.ServerQueue + w.Handler; float64(sum) != s.Duration.Sum() {
				t.Errorf("%s, %s: the parts have %d ns, the calls %v", way, name, sum, s.Duration.Sum())
			}
		}
		client2, server := got[telemetry.Client][way], got[telemetry.Server][way]
		if woke := client2.Use.Wakes + server.Use.Wakes; (woke > 0) != (way == "shm") {
			t.Errorf("%s: woken %d times", way, woke)
		}
		if client2.Request.Sum() != server.Request.Sum() || client2.Response.Sum() != server.Response.Sum() {
			t.Errorf("%s: %v and %v bytes at the client, %v and %v at the server", way, client2.Request.Sum(), client2.Response.Sum(), server.Request.Sum(), server.Response.Sum())
		}
		if client2.Waits.Handler != server.Waits.Handler || client2.Waits.ServerQueue != server.Waits.ServerQueue {
			t.Errorf("%s: the client was told %+v, the server counted %+v", way, client2.Waits, server.Waits)
		}
	}
}

// TestCountedStreams: a stream is a call, whose bytes are those of all its messages.
func TestCountedStreams(t *testing.T) {
	target, _, _ := startServer(t, &echo{})
	telemetry.Process().Take()
	s, err := dialTest(t, target).FullDuplexCall(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if err := s.Send(&pb.StreamingOutputCallRequest{Payload: payload(100)}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); err == nil {
		t.Fatal("the stream goes on")
	}
	for side, ways := range counted(t, "/grpc.testing.TestService/FullDuplexCall", 2) {
		if st := ways["shm"]; st == nil || st.Codes[0] != 1 || st.Request.Sum() < 1000 || st.Response.Sum() < 1000 {
			t.Errorf("side %d: %+v", side, st)
		}
	}
}

// TestCountedOverGRPC: calls that go over gRPC are counted by their client.
func TestCountedOverGRPC(t *testing.T) {
	target, _, _ := startServer(t, &echo{})
	telemetry.Process().Take()
	p := testPolicy(t, "methodConfig: [{name: [{}], timeout: 10s, x-stile: {transport: {prefer: [tcp]}}}]")
	client := dialTest(t, target, WithPolicy(p))
	if _, err := client.UnaryCall(testContext(t), &pb.SimpleRequest{}); err != nil {
		t.Fatal(err)
	}
	st := counted(t, "/grpc.testing.TestService/UnaryCall", 1)[telemetry.Client]["unix-stream"]
	if st == nil || st.Codes[0] != 1 || st.Waits.Calls != 0 || st.Request.Count() != 0 {
		t.Errorf("%+v", st)
	}
}

// lateRecv returns from its handler while a goroutine of its own receives.
type lateRecv struct {
	pb.UnimplementedTestServiceServer
	all sync.WaitGroup
}

func (l *lateRecv) FullDuplexCall(s pb.TestService_FullDuplexCallServer) error {
	got := make(chan struct{}, 1)
	l.all.Go(func() {
		for {
			if _, err := s.Recv(); err != nil {
				return
			}
			select {
			case got <- struct{}{}:
			default:
			}
		}
	})
	select {
	case <-got:
	case <-s.Context().Done():
	}
	return nil
}

// TestCountedAtEnd: a stream may end, at either side, while others send and receive on it; the race detector watches.
func TestCountedAtEnd(t *testing.T) {
	for name, impl := range map[string]pb.TestServiceServer{"client": &echo{}, "server": &lateRecv{}} {
		t.Run(name, func(t *testing.T) {
			target, _, _ := startServer(t, impl)
			client := dialTest(t, target)
			for n := range 60 {
				ctx, cancel := context.WithCancel(testContext(t))
				s, err := client.FullDuplexCall(ctx)
				if err != nil {
					t.Fatal(err)
				}
				received := make(chan struct{}, 1000)
				var all sync.WaitGroup
				all.Go(func() {
					for s.Send(&pb.StreamingOutputCallRequest{Payload: payload(3000)}) == nil {
					}
				})
				all.Go(func() {
					for {
						_, err := s.Recv()
						select {
						case received <- struct{}{}:
						default:
						}
						if err != nil {
							return
						}
					}
				})
				for range n % 5 {
					<-received
					if name == "server" {
						break
					}
				}
				cancel()
				all.Wait()
			}
			if l, ok := impl.(*lateRecv); ok {
				l.all.Wait()
			}
		})
	}
}

// TestInFlightWhileTheyBegin: open calls are looked at while others begin and end; the race detector watches, and unary calls are never taken for streams.
func TestInFlightWhileTheyBegin(t *testing.T) {
	target, _, _ := startServer(t, &sluggish{handler: time.Millisecond, waited: map[int32]stretch{}})
	client := dialTest(t, target)
	var all sync.WaitGroup
	var over atomic.Bool
	all.Go(func() {
		defer over.Store(true)
		for range 200 {
			if _, err := client.UnaryCall(testContext(t), &pb.SimpleRequest{}); err != nil {
				t.Error(err)
			}
		}
	})
	seen := 0
	for !over.Load() {
		live.inFlight(func(r *telemetry.Route) {
			if seen++; r.Name().Stream && r.Name().Method == "/grpc.testing.TestService/UnaryCall" {
				t.Errorf("%+v", r.Name())
			}
		})
	}
	all.Wait()
	if seen == 0 {
		t.Error("no call was open")
	}
}

// TestInFlight: calls are open from their begin to their end, at both sides.
func TestInFlight(t *testing.T) {
	target, _, _ := startServer(t, &echo{})
	open := func(want int) {
		t.Helper()
		var made, served int
		for begin := time.Now(); time.Since(begin) < 10*time.Second; time.Sleep(time.Millisecond) { // those of other tests may still be ending
			routes := map[telemetry.Side]int{}
			made, served, _ = live.inFlight(func(r *telemetry.Route) {
				if r.Name() == (telemetry.RouteName{Method: "/grpc.testing.TestService/FullDuplexCall", Stream: true}) {
					routes[r.Side()]++
				}
			})
			if made == want && served == want && routes[telemetry.Client] == want && routes[telemetry.Server] == want {
				return
			}
		}
		t.Fatalf("%d made and %d served are open, want %d", made, served, want)
	}
	for way, opts := range map[string][]grpc.DialOption{"shm": nil, "unix-stream": {WithoutSharedMemory()}} {
		t.Run(way, func(t *testing.T) {
			open(0)
			client := dialTest(t, target, opts...)
			const calls = 5
			var streams []grpc.BidiStreamingClient[pb.StreamingOutputCallRequest, pb.StreamingOutputCallResponse]
			for range calls {
				s, err := client.FullDuplexCall(testContext(t))
				if err != nil {
					t.Fatal(err)
				}
				if err := s.Send(&pb.StreamingOutputCallRequest{Payload: payload(1)}); err != nil {
					t.Fatal(err)
				}
				streams = append(streams, s)
			}
			open(calls)
			for i, s := range streams {
				if err := s.CloseSend(); err != nil {
					t.Fatal(err)
				}
				for err := error(nil); err == nil; _, err = s.Recv() {
				}
				open(calls - 1 - i)
			}
		})
	}
}
