package stile

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"google.golang.org/grpc"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/peer"

	"github.com/stile-ipc/stile/transport/shm"
)

// resident is the memory of this process in KiB, shared pages counted once.
func resident(t *testing.T) int {
	t.Helper()
	runtime.GC()
	debug.FreeOSMemory()
	b, err := os.ReadFile("/proc/self/smaps_rollup")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := bytes.Cut(b, []byte("\nPss:"))
	var kib int
	if _, err := fmt.Sscanf(string(rest), "%d kB", &kib); err != nil {
		t.Fatalf("Pss in smaps_rollup: %v", err)
	}
	return kib
}

// TestIdleMemory: a connection that was busy takes no more than 256 KiB for both ends
// together once it is idle, with its *grpc.ClientConn and all.
func TestIdleMemory(t *testing.T) {
	connections := 200
	const budget = 256 // KiB each
	if raceDetector() {
		t.Log("the race detector's own memory is not Stile's: connections are made, nothing is measured")
		connections = 10
	}
	shm.SetLimit(8 << 30) // all are busy at once
	defer shm.SetLimit(shm.DefaultLimit)
	t.Setenv("STILE_DIR", t.TempDir())
	_, addr, stop := runServer(t, "unix", filepath.Join(t.TempDir(), "s"), &echo{})
	defer stop((*Server).Stop)
	busy := func(c pb.TestServiceClient) {
		for _, size := range []int{10, 100_000, 1_000_000} {
			var p peer.Peer
			for range 3 {
				if _, err := c.UnaryCall(testContext(t), &pb.SimpleRequest{Payload: payload(size)}, grpc.Peer(&p)); err != nil {
					t.Fatal(err)
				}
			}
			if a, ok := p.AuthInfo.(AuthInfo); !ok || a.Transport != "shm" {
				t.Fatalf("the call went by %+v", p.AuthInfo)
			}
		}
	}
	busy(dialTest(t, "unix://"+addr)) // what is made once
	before := resident(t)
	for range connections {
		busy(dialTest(t, "unix://"+addr))
	}
	full := resident(t)
	each := 0
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		if each = (resident(t) - before) / connections; each <= budget || raceDetector() {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d KiB for each idle connection, at most %d are allowed", each, budget)
		}
	}
	t.Logf("%d KiB for each connection after use, %d KiB when idle", (full-before)/connections, each)
}

// raceDetector reports whether this is a build with -race.
func raceDetector() bool {
	i, ok := debug.ReadBuildInfo()
	if !ok {
		return false
	}
	for _, s := range i.Settings {
		if s.Key == "-race" {
			return s.Value == "true"
		}
	}
	return false
}
