package hub

import (
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/stile-ipc/stile"
	"github.com/stile-ipc/stile/hub/hubpb"
	"github.com/stile-ipc/stile/internal/usage"
)

// run starts a program of a name, and returns its number, and a function that ends it.
func run(t *testing.T, name string) (pid int64, end func()) {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	real, err := exec.LookPath("sleep")
	if err == nil {
		var text []byte
		if text, err = os.ReadFile(real); err == nil {
			err = os.WriteFile(path, text, 0o700)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "60")
	cmd.Args[0] = "sleep" // what it calls itself
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	t.Cleanup(end)
	return int64(cmd.Process.Pid), end
}

// enter waits until calls go through the hub's door, which opens a little after the hub listens.
func enter(t *testing.T, agents hubpb.AgentsClient) {
	t.Helper()
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		var p peer.Peer
		_, err := agents.Report(t.Context(), &hubpb.ReportRequest{}, grpc.Peer(&p))
		if status.Code(err) != codes.InvalidArgument {
			t.Fatalf("a report of nobody: %v", err)
		}
		if _, through := p.AuthInfo.(stile.AuthInfo); through {
			return
		}
		if time.Since(began) > time.Minute {
			t.Fatalf("calls do not go through the hub's door, but by %+v", p)
		}
	}
}

// TestPrograms: a client that does not report is called by its program if the hub sees it, while it is there and afterwards; not if the server has a PID namespace of its own, nor if another
// process has the number by now.
func TestPrograms(t *testing.T) {
	t.Setenv("STILE_DIR", t.TempDir())
	h := openHub(t, Config{})
	cc, err := stile.NewClient(h.Addrs()[forOTLPGRPC], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	agents := hubpb.NewAgentsClient(cc)
	enter(t, agents)
	var identity [16]byte
	_, _ = rand.Read(identity[:])
	server := func(n byte, service string, pid int, agents hubpb.AgentsClient) *reporter {
		r := &reporter{t: t, agents: agents, is: &hubpb.Process{Identity: append([]byte{n}, identity[1:]...), Service: service, Boot: usage.Boot(), Pid: int64(pid)}}
		r.hub = r.send(&hubpb.ReportRequest{Process: r.is}).GetHub()
		return r
	}
	report := func(r *reporter, until time.Time, routes ...*hubpb.Route) {
		r.sequence++
		r.send(&hubpb.ReportRequest{Process: r.is, Hub: r.hub, Sequence: r.sequence, FromUnixNano: until.UnixNano(), ToUnixNano: until.UnixNano(), Routes: routes})
	}
	before := time.Now().Add(-time.Second)
	pid, end := run(t, "a (program) of a long name")
	seen, contained, far := server(1, "seen", os.Getpid(), agents), server(2, "contained", os.Getpid()+1, agents), server(3, "far", os.Getpid(), agentsOf(t, h))
	report(seen, time.Now(), silentCalls(1, uint64(pid)))
	report(seen, before, silentCalls(2, uint64(pid))) // of one that had the number before
	report(contained, time.Now(), silentCalls(3, uint64(pid)), silentCalls(4, 0))
	report(far, time.Now(), silentCalls(5, uint64(pid)))
	end()
	report(seen, time.Now(), silentCalls(1, uint64(pid)), silentCalls(6, uint64(pid)))
	h = reopen(t, h)
	defer closeHub(t, h)
	want := map[string]uint64{
		"process a (program) of a long name → seen s.S/M shm": 10, "process unknown → seen s.S/M shm": 10, "process unknown → contained s.S/M shm": 10, "process unknown → far s.S/M shm": 5,
	}
	if got := routesOf(t, h); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v\nwant %v", got, want)
	}
}
