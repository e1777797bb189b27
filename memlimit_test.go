package stile

import (
	"path/filepath"
	"testing"

	"google.golang.org/grpc"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/peer"

	"github.com/stile-ipc/stile/transport/shm"
)

func TestParseBytes(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "1": 1, "12B": 12, "3KiB": 3 << 10, "256MiB": 256 << 20, "2GiB": 2 << 30, "1TiB": 1 << 40,
		"": -1, "-1": -1, "1MB": -1, "1.5GiB": -1, "MiB": -1, "99999999TiB": -1, " 1": -1,
	} {
		got, err := parseBytes(text)
		if (err != nil) != (want < 0) || err == nil && got != want {
			t.Errorf("%q: %d, %v, want %d", text, got, err, want)
		}
	}
}

// Over the limit a connection is made over its socket, and calls go on.
func TestMemoryLimit(t *testing.T) {
	t.Setenv("STILE_DIR", t.TempDir())
	_, addr, stop := runServer(t, "unix", filepath.Join(t.TempDir(), "s"), &echo{})
	defer stop((*Server).Stop)
	shm.SetLimit(0)
	defer shm.SetLimit(shm.DefaultLimit)
	var p peer.Peer
	c := dialTest(t, "unix://"+addr)
	if _, err := c.UnaryCall(testContext(t), &pb.SimpleRequest{Payload: payload(100_000)}, grpc.Peer(&p)); err != nil {
		t.Fatal(err)
	}
	if a, ok := p.AuthInfo.(AuthInfo); !ok || a.Transport != "unix" {
		t.Errorf("the call went by %+v", p.AuthInfo)
	}
}
