package hub_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/stile-ipc/stile"
	"github.com/stile-ipc/stile/hub"
	"github.com/stile-ipc/stile/routemap"
)

// page asks b for each of what it shows, one after the other, and c once.
type page struct {
	pb.UnimplementedTestServiceServer
	b pb.TestServiceClient
	c pb.TestServiceClient
}

const asks = 8

func (p *page) EmptyCall(ctx context.Context, _ *pb.Empty) (*pb.Empty, error) {
	for range asks {
		if _, err := p.b.UnaryCall(ctx, &pb.SimpleRequest{}); err != nil {
			return nil, err
		}
	}
	return p.c.UnimplementedCall(ctx, &pb.Empty{})
}

// slow takes its time, so that it is known what time goes to.
type slow struct {
	pb.UnimplementedTestServiceServer
}

func (slow) UnaryCall(context.Context, *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	time.Sleep(2 * time.Millisecond)
	return &pb.SimpleResponse{}, nil
}

func (slow) UnimplementedCall(context.Context, *pb.Empty) (*pb.Empty, error) {
	time.Sleep(20 * time.Millisecond)
	return &pb.Empty{}, nil
}

func serve(t *testing.T, impl pb.TestServiceServer) (target string) {
	t.Helper()
	lis, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	s := stile.NewServer()
	pb.RegisterTestServiceServer(s, impl)
	done := make(chan error, 1)
	go func() { done <- s.Serve(lis) }()
	t.Cleanup(func() { s.Stop(); <-done })
	return "unix://" + lis.Addr().String()
}

func dial(t *testing.T, target string, opts ...grpc.DialOption) pb.TestServiceClient {
	t.Helper()
	cc, err := stile.NewClient(target, append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return pb.NewTestServiceClient(cc)
}

func openAt(t *testing.T, dir string) *hub.Hub {
	t.Helper()
	h, err := hub.Open(t.Context(), hub.Config{Dir: dir, OTLPGRPC: "127.0.0.1:0", OTLPHTTP: hub.Off, HTTP: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func ask(t *testing.T, h *hub.Hub, path string, answer any) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + h.Addrs()["API"] + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(answer); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", path, resp.Status, err)
	}
}

// untilLocal calls until a call goes through Stile's door, which opens just after its server listens.
func untilLocal(t *testing.T, c pb.TestServiceClient) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		var p peer.Peer
		if _, err := c.UnimplementedCall(t.Context(), &pb.Empty{}, grpc.Peer(&p)); status.Code(err) != codes.OK && status.Code(err) != codes.Unimplemented {
			t.Fatal(err)
		}
		if _, local := p.AuthInfo.(stile.AuthInfo); local {
			return
		}
	}
	t.Fatal("no call is local")
}

// viaStile calls, through a server that asks two others, and reports what it was to a hub. It returns how many pages were asked for.
func viaStile(t *testing.T, h *hub.Hub, opts []grpc.DialOption) (pages int) {
	t.Helper()
	t.Setenv("STILE_DIR", t.TempDir())
	stop, err := stile.ReportTo(h.Addrs()["OTLP/gRPC"])
	if err != nil {
		t.Fatal(err)
	}
	defer func() { // which reports
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		stop(ctx)
	}()
	p := &page{b: dial(t, serve(t, slow{}), opts...), c: dial(t, serve(t, slow{}), opts...)}
	front := dial(t, serve(t, p), opts...)
	for _, c := range []pb.TestServiceClient{p.b, p.c, front} {
		untilLocal(t, c)
	}
	for ; pages < 20; pages++ {
		if _, err := front.EmptyCall(t.Context(), &pb.Empty{}); err != nil {
			t.Fatal(err)
		}
	}
	return pages
}

// TestTracesOfStile: without any OpenTelemetry, a hub knows whole traces of what processes report: what time goes to, and that a page asks again and again.
func TestTracesOfStile(t *testing.T) {
	for way, opts := range map[string][]grpc.DialOption{routemap.SHM: nil, routemap.UnixStream: {stile.WithoutSharedMemory()}} {
		t.Run(way, func(t *testing.T) {
			dir := t.TempDir()
			h := openAt(t, dir)
			pages := viaStile(t, h, opts)
			var is hub.Status
			ask(t, h, "/api/v1/status", &is)
			closeIt(t, h)
			h = openAt(t, dir)
			defer closeIt(t, h)
			var m hub.Map
			ask(t, h, "/api/v1/map?from=1h", &m)
			ways := map[string]int{}
			for _, r := range m.Routes {
				if !strings.HasPrefix(r.Operation, "grpc.testing.") { // the hub is in this process, too, and is reported to
					continue
				}
				ways[r.Transport]++
				if r.Sources != routemap.FromStile|routemap.FromTraces && r.Transport == way || r.Through == 0 || len(r.Evidence) == 0 {
					t.Errorf("%s over %s: %+v", r.Key, r.Transport, r.Stats)
				}
			}
			if ways[way] != 3 {
				t.Errorf("routes over %v", ways)
			}
			if m.Traces < uint64(pages) || len(m.Faults) > 0 || is.Agents.Spans < uint64(pages*2*(2+asks)) || is.Agents.SpansLost > 0 {
				t.Errorf("%d traces, faults %v; %+v", m.Traces, m.Faults, is.Agents)
			}
			found := false
			for _, f := range m.Findings {
				found = found || f.Kind == routemap.PlusOne && strings.HasSuffix(f.Operation, "/UnaryCall") && strings.HasSuffix(f.Within, "/EmptyCall")
			}
			below := map[string]float64{} // the page
			for _, p := range m.Paths {
				if strings.HasSuffix(p.Root, "/EmptyCall") && len(p.Steps) == 1 {
					_, method, _ := strings.Cut(p.Steps[0], "/")
					below[method] = p.Share
				}
			}
			if !found || below["UnaryCall"] <= 0 || below["UnimplementedCall"] <= 0 {
				t.Errorf("a page's time goes to %v; found %+v", below, m.Findings)
			}
		})
	}
}

func closeIt(t *testing.T, h *hub.Hub) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := h.Close(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}
