package stile

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// runServer serves impl at path until stop is called; stop waits for Serve.
func runServer(t testing.TB, network, path string, impl pb.TestServiceServer) (s *Server, addr string, stop func(func(*Server))) {
	t.Helper()
	if network == "unix" {
		_ = os.Remove(path)
	}
	lis, err := net.Listen(network, path)
	if err != nil {
		t.Fatal(err)
	}
	if u, ok := lis.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false) // the file may be a successor's
	}
	s = NewServer()
	pb.RegisterTestServiceServer(s, impl)
	done := make(chan error, 1)
	go func() { done <- s.Serve(lis) }()
	waitOpen(t, s)
	return s, lis.Addr().String(), func(how func(*Server)) {
		how(s)
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	}
}

// isLocal makes one call and reports whether it was local. A call that meets the
// end of a stopped server's connection fails, as in grpc-go, and was not.
func isLocal(t testing.TB, c pb.TestServiceClient) bool {
	t.Helper()
	var p peer.Peer
	_, err := c.UnaryCall(testContext(t), &pb.SimpleRequest{}, grpc.Peer(&p), grpc.WaitForReady(true))
	if status.Code(err) == codes.Unavailable {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	_, local := p.AuthInfo.(AuthInfo)
	return local
}

// A client that was there first, and one whose server goes and comes back at the
// same address, takes the local door within a second of its being there.
func TestAnyOrder(t *testing.T) {
	for _, network := range []string{"unix", "tcp"} {
		t.Run(network, func(t *testing.T) {
			t.Setenv("STILE_DIR", t.TempDir())
			addr, target := "127.0.0.1:0", ""
			if network == "unix" {
				addr = filepath.Join(t.TempDir(), "s")
				target = "unix://" + addr
			} else {
				lis, err := net.Listen("tcp", addr)
				if err != nil {
					t.Fatal(err)
				}
				addr = lis.Addr().String()
				target = addr
				lis.Close()
			}
			c := dialTest(t, target, grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: time.Second}))
			if _, err := c.EmptyCall(testContext(t), &pb.Empty{}); err == nil {
				t.Fatal("a call without a server succeeded")
			}
			for range 3 {
				_, _, stop := runServer(t, network, addr, &echo{})
				became := time.Now()
				for !isLocal(t, c) {
					if time.Since(became) > 10*time.Second {
						t.Fatal("calls do not return to the local door")
					}
				}
				stop((*Server).Stop)
			}
		})
	}
}

// Servers replace each other in place, each stopped gracefully when its successor
// listens, while calls go on: none fails.
func TestReplacedInPlace(t *testing.T) {
	t.Setenv("STILE_DIR", t.TempDir())
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	takeOver := func() func(func(*Server)) {
		_, _, stop := runServer(t, "unix", path+".new", &echo{})
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
		return stop
	}
	stop := takeOver()
	cc, err := NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	c := pb.NewTestServiceClient(cc)
	var calls, over atomic.Int64
	ctx, cancel := context.WithCancel(testContext(t))
	errs := make(chan error, 4)
	for range cap(errs) {
		go func() {
			for ctx.Err() == nil {
				var p peer.Peer
				if _, err := c.UnaryCall(testContext(t), &pb.SimpleRequest{Payload: payload(10)}, grpc.Peer(&p)); err != nil {
					errs <- err
					return
				}
				calls.Add(1)
				if _, local := p.AuthInfo.(AuthInfo); !local {
					over.Add(1)
				}
			}
			errs <- nil
		}()
	}
	for range 10 {
		for before := calls.Load(); calls.Load() < before+200 && ctx.Err() == nil; {
			time.Sleep(time.Millisecond)
		}
		next := takeOver()
		stop((*Server).GracefulStop)
		stop = next
	}
	cancel()
	for range cap(errs) {
		if err := <-errs; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("a call failed: %v", err)
		}
	}
	if over.Load()*2 > calls.Load() {
		t.Errorf("%d of %d calls went over gRPC", over.Load(), calls.Load())
	}
	stop((*Server).Stop)
}
