package policy

import (
	"context"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
)

// cutter is a listener whose connections can be cut.
type cutter struct {
	*bufconn.Listener
	mu    sync.Mutex
	conns []net.Conn
}

func (c *cutter) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err == nil {
		c.mu.Lock()
		c.conns = append(c.conns, conn)
		c.mu.Unlock()
	}
	return conn, err
}

func (c *cutter) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		conn.Close()
	}
	c.conns = nil
}

// sent counts the requests that grpc-go has put on a connection, those that it sends anew by itself, because
// their connection had gone before, included.
type sent struct{ atomic.Int64 }

func (*sent) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (*sent) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (*sent) HandleConn(context.Context, stats.ConnStats)                       {}
func (c *sent) HandleRPC(_ context.Context, s stats.RPCStats) {
	if _, ok := s.(*stats.OutHeader); ok {
		c.Add(1)
	}
}

// TestNotTwice: whatever happens to calls of a method that is not idempotent, none runs twice, although there
// is a retry policy; and as many attempts are made as are told.
func TestNotTwice(t *testing.T) {
	calls := 100_000
	if testing.Short() || raceDetector {
		calls = 10_000
	}
	const callers = 50
	synctest.Test(t, func(t *testing.T) {
		lis := &cutter{Listener: bufconn.Listen(1 << 16)}
		var ran sync.Map // id → *atomic.Int64
		var attempts, failed atomic.Int64
		handle := func(_ context.Context, req *pb.SimpleRequest) (*pb.SimpleResponse, error) {
			n, _ := ran.LoadOrStore(req.GetResponseSize(), new(atomic.Int64))
			n.(*atomic.Int64).Add(1)
			switch r := rand.IntN(1000); {
			case r < 100:
				return nil, status.Error(codes.Unavailable, "after the work")
			case r < 102:
				lis.cut() // while others are on their way
			case r < 200:
				time.Sleep(time.Millisecond)
			}
			return &pb.SimpleResponse{}, nil
		}
		count := func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			attempts.Add(1)
			return handler(ctx, req)
		}
		server := file(t, "x-stile: {admission: {maxRequests: 20, maxPendingRequests: 5, maxQueueDelay: 0.001s}}", nil)
		srv := grpc.NewServer(append([]grpc.ServerOption{grpc.ChainUnaryInterceptor(count)}, serving(server)...)...)
		pb.RegisterTestServiceServer(srv, &testServer{unary: handle})
		served := make(chan error, 1)
		go func() { served <- srv.Serve(lis) }()
		defer func() { srv.Stop(); <-served }()

		p := file(t, "x-stile: {retryBudget: {budgetPercent: 100, minRetryConcurrency: 1000}}\nmethodConfig: [{name: [{}], timeout: 10s, retryPolicy: {maxAttempts: 4, initialBackoff: 0.001s, maxBackoff: 0.01s, backoffMultiplier: 2, retryableStatusCodes: [UNAVAILABLE, RESOURCE_EXHAUSTED]}}]", nil)
		wire := &sent{}
		var begun atomic.Int64
		below := func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			begun.Add(1)
			return invoker(ctx, method, req, reply, cc, opts...)
		}
		client := dial(t, lis.Listener, append(obeying(p), grpc.WithChainUnaryInterceptor(below), grpc.WithStatsHandler(wire))...)
		var next atomic.Int32
		var wg sync.WaitGroup
		for range callers {
			wg.Go(func() {
				for {
					id := next.Add(1)
					if int(id) > calls {
						return
					}
					if _, err := client.UnaryCall(context.Background(), &pb.SimpleRequest{ResponseSize: id}); err != nil {
						failed.Add(1)
					}
				}
			})
		}
		wg.Wait()
		twice, once := 0, 0
		ran.Range(func(_, n any) bool {
			if n.(*atomic.Int64).Load() > 1 {
				twice++
			}
			once++
			return true
		})
		if twice > 0 {
			t.Errorf("%d calls ran more than once", twice)
		}
		if told := int64(calls) + int64(p.Count(Retried)); begun.Load() != told {
			t.Errorf("%d attempts were made, %d told", begun.Load(), told)
		}
		if attempts.Load() > wire.Load() {
			t.Errorf("the server saw %d attempts of %d that were sent", attempts.Load(), wire.Load())
		}
		if failed.Load() == 0 || p.Count(Retried) == 0 || server.Count(CallShed) == 0 {
			t.Errorf("nothing went wrong: %d failed, %d retried, %d shed", failed.Load(), p.Count(Retried), server.Count(CallShed))
		}
		t.Logf("%d calls, %d ran, %d failed, %d shed by the server, %d retries; %d attempts seen of %d sent", calls, once, failed.Load(), server.Count(CallShed), p.Count(Retried), attempts.Load(), wire.Load())
	})
}
