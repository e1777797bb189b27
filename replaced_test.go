package stile

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/peer"
)

// quickExit keeps the race detector from waiting a second at the end of a process.
const quickExit = "GORACE=atexit_sleep_ms=0"

// succeed is a server that takes the place of the one before it, and stops
// gracefully when its standard input ends.
func succeed() error {
	path := os.Getenv(envSocket)
	lis, err := net.Listen("unix", path+".new")
	if err != nil {
		return err
	}
	lis.(*net.UnixListener).SetUnlinkOnClose(false) // by then the name is the successor's
	s := NewServer()
	pb.RegisterTestServiceServer(s, &echo{})
	served := make(chan error, 1)
	go func() { served <- s.Serve(lis) }()
	awaitOpen(s)
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
	s.GracefulStop()
	if err := <-served; err != nil {
		return err
	}
	os.Exit(0)
	return nil
}

// TestReplacedUnderLoad replaces a server's process 50 times while 5,000 calls a
// second are due: none is lost.
func TestReplacedUnderLoad(t *testing.T) {
	const (
		perTick  = 5
		tick     = time.Millisecond
		callers  = 32
		lifetime = 150 * time.Millisecond
	)
	t.Setenv("STILE_DIR", t.TempDir())
	path := filepath.Join(t.TempDir(), "s")
	server := startChild(t, "successor", path, quickExit)
	cc, err := NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	c := pb.NewTestServiceClient(cc)

	due := make(chan time.Time, 1<<16) // more than a second's: the load does not wait for replies
	var calls, local, failed, longest atomic.Int64
	var running sync.WaitGroup
	for range callers {
		running.Go(func() {
			for at := range due {
				var p peer.Peer
				if _, err := c.UnaryCall(context.Background(), &pb.SimpleRequest{Payload: payload(10)}, grpc.Peer(&p)); err != nil {
					if failed.Add(1) == 1 {
						t.Errorf("a call failed: %v", err)
					}
				}
				calls.Add(1)
				if _, ok := p.AuthInfo.(AuthInfo); ok {
					local.Add(1)
				}
				took := int64(time.Since(at))
				for old := longest.Load(); took > old && !longest.CompareAndSwap(old, took); old = longest.Load() {
				}
			}
		})
	}
	start := time.Now()
	stop := make(chan struct{})
	running.Go(func() {
		defer close(due)
		for sent := 0; ; {
			select {
			case <-stop:
				return
			default:
			}
			for now := time.Now(); sent < perTick*int(now.Sub(start)/tick); sent++ {
				due <- now
			}
			time.Sleep(tick)
		}
	})
	for range rounds(t, 50) {
		time.Sleep(lifetime)
		next := startChild(t, "successor", path, quickExit)
		_ = server.stdin.Close()
		if err := server.cmd.Wait(); err != nil {
			t.Errorf("a replaced server: %v", err)
		}
		server = next
	}
	close(stop)
	running.Wait()
	elapsed := time.Since(start)
	server.kill()
	t.Logf("%d calls, %.0f/s, %d local, %d failed, the longest waited %v", calls.Load(), float64(calls.Load())/elapsed.Seconds(),
		local.Load(), failed.Load(), time.Duration(longest.Load()))
	if failed.Load() > 0 || local.Load()*2 < calls.Load() {
		t.Errorf("%d of %d calls failed, %d were local", failed.Load(), calls.Load(), local.Load())
	}
}
