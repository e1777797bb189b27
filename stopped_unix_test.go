//go:build linux || darwin

package stile

import (
	"context"
	"path/filepath"
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
			t.Setenv("STILE_DIR", t.TempDir())
			t.Setenv("STILE_TRANSPORT", transport)
			dir := t.TempDir()
			srv := startChild(t, "server", filepath.Join(dir, "stopped"))
			defer srv.kill()
			_, addr, stop := runServer(t, "unix", filepath.Join(dir, "other"), &echo{})
			defer stop((*Server).Stop)
			frozen, other := dialTest(t, "unix://"+filepath.Join(dir, "stopped")), dialTest(t, "unix://"+addr)
			if !isLocal(t, frozen) || !isLocal(t, other) {
				t.Fatal("a call is not local")
			}
			signal := func(s syscall.Signal) {
				t.Helper()
				if err := srv.cmd.Process.Signal(s); err != nil {
					t.Fatal(err)
				}
			}
			signal(syscall.SIGSTOP)
			var state syscall.WaitStatus // which tells that every thread has stopped
			if _, err := syscall.Wait4(srv.cmd.Process.Pid, &state, syscall.WUNTRACED, nil); err != nil || !state.Stopped() {
				t.Fatalf("the server has not stopped: %v, %v", state, err)
			}
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
			signal(syscall.SIGCONT)
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
