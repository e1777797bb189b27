package stile

import (
	"encoding/json"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	pb "google.golang.org/grpc/interop/grpc_testing"
)

func TestConnections(t *testing.T) {
	target, s, _ := startServer(t, &echo{})
	// Those of other tests may still be ending.
	ours := func() []Connection {
		return slices.DeleteFunc(Connections(), func(c Connection) bool { return !strings.HasSuffix(target, c.Address) })
	}
	c := dialTest(t, target)
	for range 3 {
		if _, err := c.UnaryCall(testContext(t), &pb.SimpleRequest{Payload: payload(100)}); err != nil {
			t.Fatal(err)
		}
	}
	// A frame is counted after it is sent: its reader may look before.
	uncounted := func(c Connection) bool {
		return runtime.GOOS == "linux" && (min(c.FramesIn, c.FramesOut) < 3 || min(c.BytesIn, c.BytesOut) < 300)
	}
	list := ours()
	for deadline := time.Now().Add(10 * time.Second); slices.ContainsFunc(list, uncounted) && time.Now().Before(deadline); list = ours() {
		time.Sleep(time.Millisecond)
	}
	if len(list) != 2 || list[0].Role == list[1].Role {
		t.Fatalf("%+v, want both ends of one connection", list)
	}
	for _, c := range list {
		if c.PeerPID != os.Getpid() || time.Since(c.Since) > time.Minute {
			t.Errorf("%+v", c)
		}
		switch {
		case runtime.GOOS != "linux":
		case c.Transport != "shm" || c.FramesIn < 3 || c.FramesOut < 3 || c.BytesIn < 300 || c.BytesOut < 300:
			t.Errorf("%+v, want 3 calls of 100 bytes", c)
		}
	}
	text, err := json.Marshal(list)
	if err != nil || !strings.Contains(string(text), `"spin_ns":`) {
		t.Errorf("%s %v", text, err)
	}
	s.Stop()
	for deadline := time.Now().Add(10 * time.Second); len(ours()) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%+v are left", ours())
		}
	}
}
