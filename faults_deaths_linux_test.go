//go:build stile_deaths

package stile

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/stile-ipc/stile/transport/shm"
)

// deathPoints are the stores to shared memory, twice each (before and after), at
// which a process dies: each of the first, then some of the later ones.
func deathPoints(t *testing.T, standard int) []int {
	n := rounds(t, standard)
	points := make([]int, n)
	for i := range points {
		points[i] = i + 1
		if i >= 3*n/4 {
			points[i] += rand.IntN(20_000)
		}
	}
	return points
}

// TestServerDiesAtStore has a server die before and after each of its stores to
// shared memory. Three clients' calls are under way, one of them with messages in
// slots: each must end as Unavailable, and soon.
func TestServerDiesAtStore(t *testing.T) {
	t.Setenv("STILE_DIR", t.TempDir())
	dir := t.TempDir()
	files, mappings := holdings(t)
	var took []time.Duration
	for i, point := range deathPoints(t, 400) {
		took = append(took, deathRound(t, filepath.Join(dir, strconv.Itoa(i)), point))
		if t.Failed() {
			return
		}
	}
	checkHoldings(t, files, mappings)
	slices.Sort(took)
	t.Logf("%d deaths; from the death to the end of the last call: median %v, p99 %v, longest %v",
		len(took), took[len(took)/2], took[len(took)*99/100], took[len(took)-1])
}

func deathRound(t *testing.T, socket string, point int) time.Duration {
	note := socket + ".note"
	srv := startChild(t, "server", socket, shm.DeathPoint+"="+strconv.Itoa(point), shm.DeathNote+"="+note)
	defer srv.kill()
	cc, err := NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	c := pb.NewTestServiceClient(cc)
	ctx := context.Background()
	results := make(chan error, 3)
	go func() { results <- callUntilDeath(ctx, c, 10) }()
	go func() { results <- callUntilDeath(ctx, c, 200_000) }()
	go func() { results <- streamUntilDeath(ctx, c) }()
	for range cap(results) {
		select {
		case err := <-results:
			if code := status.Code(err); code != codes.Unavailable {
				t.Errorf("death point %d: a call ended with %v", point, err)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("death point %d: a call hangs", point)
		}
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(note)
	if err != nil || len(text) != 8 {
		t.Fatalf("death point %d: the server did not note its death: %q %v", point, text, err)
	}
	return time.Duration(now.Nano() - int64(binary.LittleEndian.Uint64(text)))
}

// TestClientDiesAtStore has clients die at each store: the server ends their calls,
// keeps nothing, and serves on.
func TestClientDiesAtStore(t *testing.T) {
	dir := t.TempDir()
	clientsKilled(t, "shm", func(socket string) {
		for i, point := range deathPoints(t, 400) {
			note := filepath.Join(dir, strconv.Itoa(i))
			c := launchChild(t, "client", socket, shm.DeathPoint+"="+strconv.Itoa(point), shm.DeathNote+"="+note)
			_ = c.cmd.Wait() // it dies by itself
			_ = c.stdin.Close()
			if _, err := os.Stat(note); err != nil {
				t.Fatalf("death point %d: the client did not die there: %v", point, err)
			}
		}
	})
}
