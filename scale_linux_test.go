package stile

import (
	"context"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/peer"

	"github.com/stile-ipc/stile/telemetry"
)

// callShm makes a call and fails unless it went through shared memory.
func callShm(t *testing.T, c pb.TestServiceClient, size int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var p peer.Peer
	if _, err := c.UnaryCall(ctx, &pb.SimpleRequest{Payload: payload(size)}, grpc.Peer(&p)); err != nil {
		t.Error(err)
	} else if a, ok := p.AuthInfo.(AuthInfo); !ok || a.Transport != "shm" {
		t.Errorf("a call went by %+v", p.AuthInfo)
	}
}

// TestThousandConnections has 1,000 clients of one server, all through shared
// memory and all calling at once.
func TestThousandConnections(t *testing.T) {
	connections := 1000
	if raceDetector() { // whose own memory is a multiple
		connections = 200
	}
	t.Setenv("STILE_DIR", t.TempDir())
	_, addr, stop := runServer(t, "unix", filepath.Join(t.TempDir(), "s"), &echo{})
	defer stop((*Server).Stop)
	callShm(t, dialTest(t, "unix://"+addr), 10) // what is made once
	files, mappings := holdings(t)
	list := make([]*grpc.ClientConn, connections)
	for i := range list {
		cc, err := NewClient("unix://"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		list[i] = cc
		callShm(t, pb.NewTestServiceClient(cc), 10)
		if t.Failed() {
			break
		}
	}
	var running sync.WaitGroup
	for _, cc := range list {
		if cc == nil {
			break
		}
		running.Go(func() {
			for i := range 10 {
				callShm(t, pb.NewTestServiceClient(cc), 10+1000*i)
			}
			_ = cc.Close()
		})
	}
	running.Wait()
	checkHoldings(t, files, mappings)
}

// TestChurn opens connections, calls and closes them, again and again: files,
// mappings, goroutines and memory stay as they were after the first quarter.
func TestChurn(t *testing.T) {
	const growth = 8 << 10 // KiB of memory that may be chance
	t.Setenv("STILE_DIR", t.TempDir())
	_, addr, stop := runServer(t, "unix", filepath.Join(t.TempDir(), "s"), &echo{})
	defer stop((*Server).Stop)
	n := rounds(t, 2000)
	churn := func(n int) {
		for i := range n {
			cc, err := NewClient("unix://"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				t.Fatal(err)
			}
			callShm(t, pb.NewTestServiceClient(cc), []int{10, 3000, 20_000, 300_000}[i%4])
			if err := cc.Close(); err != nil || t.Failed() {
				t.Fatalf("round %d: close: %v", i, err)
			}
		}
	}
	take := func() { // as an agent does: a link that is closed is forgotten with the first in which it had no calls
		for range 2 {
			telemetry.Process().Take()
		}
	}
	churn(n / 4)
	take()
	files, mappings := holdings(t)
	routines, memory := runtime.NumGoroutine(), resident(t)
	start := time.Now()
	churn(n - n/4)
	elapsed := time.Since(start)
	checkHoldings(t, files, mappings)
	deadline := time.Now().Add(10 * time.Second)
	for ; runtime.NumGoroutine() > routines+2; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, were %d", runtime.NumGoroutine(), routines)
		}
	}
	take()
	after := resident(t)
	t.Logf("%d connections opened, used and closed, %.0f/s; memory %d KiB, was %d", n-n/4, float64(n-n/4)/elapsed.Seconds(), after, memory)
	if after > memory+growth && !raceDetector() {
		t.Errorf("memory grew from %d to %d KiB", memory, after)
	}
}
