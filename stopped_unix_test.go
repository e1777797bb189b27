//go:build linux || darwin

package stile

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// TestServerStopped freezes a server with more calls under way than its connection has
// room for: each ends at its own deadline, those to another server are not held up,
// and once the server goes on the same connection serves.
func TestServerStopped(t *testing.T) {
	for _, transport := range []string{"shm", "unix"} {
		t.Run(transport, func(t *testing.T) {
			srv, frozen, other := stoppable(t, transport)
			freeze(t, srv.cmd.Process)
			var stuck, free sync.WaitGroup
			for i := range 100 {
				stuck.Go(func() {
					ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
					defer cancel()
					size := []int{10, 5000, 300_000, 2_000_000}[i%4]
					_, err := frozen.UnaryCall(ctx, &pb.SimpleRequest{Payload: payload(size)})
					if status.Code(err) != codes.DeadlineExceeded {
						t.Errorf("a call of %d bytes to a stopped server: %v", size, err)
					}
				})
			}
			var calls atomic.Int64
			over := make(chan struct{})
			for range 4 {
				free.Go(func() {
					for i := 0; ; i++ {
						select {
						case <-over:
							return
						default:
						}
						if _, err := other.UnaryCall(testContext(t), &pb.SimpleRequest{Payload: payload(i % 20_000)}); err != nil {
							t.Errorf("a call to another server: %v", err)
							return
						}
						calls.Add(1)
					}
				})
			}
			stuck.Wait()
			close(over)
			free.Wait()
			if calls.Load() == 0 {
				t.Error("no call to another server went through meanwhile")
			}
			thaw(t, srv.cmd.Process)
			var p peer.Peer
			r, err := frozen.UnaryCall(testContext(t), &pb.SimpleRequest{Payload: payload(300_000)}, grpc.Peer(&p))
			if err != nil || len(r.GetPayload().GetBody()) != 300_000 {
				t.Fatalf("after the stop: %v", err)
			}
			if a, ok := p.AuthInfo.(AuthInfo); !ok || a.PID != srv.cmd.Process.Pid {
				t.Errorf("after the stop the call went by %+v", p.AuthInfo)
			}
		})
	}
}

// stoppable starts a server in a process of its own, and another one here, and dials both
// by transport.
func stoppable(t testing.TB, transport string) (srv *child, frozen, other pb.TestServiceClient) {
	t.Helper()
	t.Setenv("STILE_DIR", t.TempDir())
	t.Setenv("STILE_TRANSPORT", transport)
	dir := t.TempDir()
	srv = startChild(t, "server", filepath.Join(dir, "stopped"))
	t.Cleanup(srv.kill)
	_, addr, stop := runServer(t, "unix", filepath.Join(dir, "other"), &echo{})
	t.Cleanup(func() { stop((*Server).Stop) })
	frozen, other = dialTest(t, "unix://"+filepath.Join(dir, "stopped")), dialTest(t, "unix://"+addr)
	if !isLocal(t, frozen) || !isLocal(t, other) {
		t.Fatal("a call is not local")
	}
	return srv, frozen, other
}

// freeze returns when every thread of p has stopped.
func freeze(t testing.TB, p *os.Process) {
	t.Helper()
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	var state syscall.WaitStatus
	if _, err := syscall.Wait4(p.Pid, &state, syscall.WUNTRACED, nil); err != nil || !state.Stopped() {
		t.Fatalf("the server has not stopped: %v, %v", state, err)
	}
}

func thaw(t testing.TB, p *os.Process) {
	t.Helper()
	if err := p.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
}

// BenchmarkOthersWhileStopped tells which part of their calls per second four callers of
// one server keep while 100 calls to another, which is stopped, wait for their deadlines.
// One iteration is a window of each kind.
func BenchmarkOthersWhileStopped(b *testing.B) {
	const window = 200 * time.Millisecond
	for _, transport := range []string{"shm", "unix"} {
		b.Run(transport, func(b *testing.B) {
			srv, frozen, other := stoppable(b, transport)
			rate := func() float64 {
				var calls atomic.Int64
				var running sync.WaitGroup
				start := time.Now()
				for range 4 {
					running.Go(func() {
						for time.Since(start) < window {
							if _, err := other.UnaryCall(context.Background(), &pb.SimpleRequest{Payload: payload(64)}); err != nil {
								b.Error(err)
								return
							}
							calls.Add(1)
						}
					})
				}
				running.Wait()
				return float64(calls.Load()) / time.Since(start).Seconds()
			}
			var requests []*pb.SimpleRequest
			for _, size := range []int{10, 5000, 300_000, 2_000_000} {
				requests = append(requests, &pb.SimpleRequest{Payload: payload(size)})
			}
			var kept []float64
			for b.Loop() {
				before := rate()
				freeze(b, srv.cmd.Process)
				ctx, cancel := context.WithCancel(context.Background())
				var stuck sync.WaitGroup
				for i := range 100 {
					stuck.Go(func() {
						if _, err := frozen.UnaryCall(ctx, requests[i%4]); status.Code(err) != codes.Canceled {
							b.Errorf("a call to a stopped server: %v", err)
						}
					})
				}
				time.Sleep(100 * time.Millisecond) // until all wait
				during := rate()
				cancel()
				stuck.Wait()
				thaw(b, srv.cmd.Process)
				after := rate()
				kept = append(kept, 100*during/((before+after)/2))
			}
			slices.Sort(kept)
			b.ReportMetric(kept[len(kept)/2], "kept-%")
			b.ReportMetric(kept[0], "min-%")
		})
	}
}
