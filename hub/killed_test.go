package hub

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/stile-ipc/stile/hub/internal/store"
	"github.com/stile-ipc/stile/internal/agent"
	"github.com/stile-ipc/stile/telemetry"
)

// killEnv has the test's program be a hub: on a folder, and on addresses for OTLP over gRPC and for NATS.
const killEnv = "STILE_TEST_HUB"

func runHub(args string) error {
	of := strings.Split(args, ",")
	h, err := Open(context.Background(), Config{Dir: of[0], OTLPGRPC: of[1], OTLPHTTP: Off, HTTP: loopback, NATS: of[2]})
	if err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(h.Addrs()); err != nil {
		return err
	}
	if _, err = io.Copy(io.Discard, os.Stdin); err != nil { // ends with who has started it
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return h.Close(ctx)
}

// hubProcess is a hub in a process of its own.
type hubProcess struct {
	addrs map[string]string
	cmd   *exec.Cmd
	in    io.WriteCloser
}

func startHub(t *testing.T, dir, forOTLP, forNATS string) *hubProcess {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), killEnv+"="+strings.Join([]string{dir, forOTLP, forNATS}, ","))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h := &hubProcess{cmd: cmd, in: in}
	if err := json.NewDecoder(bufio.NewReader(out)).Decode(&h.addrs); err != nil {
		h.kill()
		t.Fatal(err)
	}
	return h
}

// kill ends it as kill -9 does.
func (h *hubProcess) kill() {
	_ = h.cmd.Process.Kill()
	_ = h.cmd.Wait() // killed
	h.in.Close()
}

// close ends it as SIGTERM does.
func (h *hubProcess) close() error {
	h.in.Close()
	return h.cmd.Wait()
}

// calls is how many of each operation are on its map.
func (h *hubProcess) calls(t *testing.T) map[string]uint64 {
	t.Helper()
	calls := map[string]uint64{}
	for _, r := range decode[Map](t, request(t, http.MethodGet, "http://"+h.addrs[forAPI]+"/api/v1/map?from=1h", nil)).Routes {
		calls[r.Operation] += r.Calls
	}
	return calls
}

// reporting counts calls until stop is called, and has an agent report them to a hub, which may come and go. It returns how many there were.
func reporting(t *testing.T, at string) (stop func() (calls uint64)) {
	t.Helper()
	cc, err := grpc.NewClient(at, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	r := telemetry.NewRecorder()
	r.Enable()
	route := r.Link(telemetry.Client, "shm", telemetry.Peer{Address: "back:1"}).Route(telemetry.RouteName{Method: "/s.S/Counted"})
	a := agent.Start(agent.Config{Hub: cc, Recorder: r, Process: agent.Self(telemetry.Identity{7}), Listens: func() []string { return nil }, Logger: slog.New(slog.DiscardHandler)})
	ending, ended := make(chan struct{}), make(chan uint64)
	go func() {
		for n := uint64(1); ; n++ {
			route.Record(0, &telemetry.Call{Duration: time.Millisecond})
			select {
			case <-ending:
				ended <- n
				return
			case <-time.After(time.Millisecond):
			}
		}
	}()
	return func() uint64 {
		close(ending)
		n := <-ended
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		for s := cc.GetState(); s != connectivity.Ready && cc.WaitForStateChange(ctx, s); s = cc.GetState() {
			cc.Connect()
		}
		a.Close(ctx)
		_ = cc.Close()
		return n
	}
}

// TestHubKilled: of a hub that is killed about when it writes a window, again and again, what processes count is kept, all of it and once, and so is what was on its map when it was
// killed. A trace that was sent 20 s before is.
func TestHubKilled(t *testing.T) {
	dir := t.TempDir()
	h := startHub(t, dir, loopback, Off)
	defer func() { h.kill() }()
	at := h.addrs[forOTLPGRPC]
	stop := reporting(t, at)
	cc, err := grpc.NewClient(at, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	const traces = 100
	if err := cc.Invoke(t.Context(), exportMethod, callSpans(0, traces, "catalog"), new(emptypb.Empty)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2*sweepEvery + store.Finest + time.Second) // as long as a trace may take to be complete, and its window to be over and written
	for range 2 {
		over := time.Now().Truncate(store.Finest).Add(store.Finest)
		time.Sleep(time.Until(over) + rand.N(200*time.Millisecond))
		before := h.calls(t)
		h.kill()
		h = startHub(t, dir, at, Off)
		after := h.calls(t)
		t.Logf("killed %s after a window: %v calls were kept, %v are", time.Since(over), before, after)
		if after["shop.Catalog/Get"] != traces || after["s.S/Counted"] < before["s.S/Counted"] {
			t.Errorf("%v calls are left of %v", after, before)
		}
	}
	calls := stop()
	if err := h.close(); err != nil {
		t.Error(err)
	}
	h = startHub(t, dir, at, Off)
	if got := h.calls(t); got["s.S/Counted"] != calls || got["shop.Catalog/Get"] != traces {
		t.Errorf("%v, want %d calls that were counted and %d that were traced", got, calls, traces)
	}
}
