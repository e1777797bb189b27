package clustertest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/stile-ipc/stile/queue"
)

type text = *wrapperspb.StringValue

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// place is where a server is.
type place struct {
	Name   string
	Dir    string
	Port   int
	Routes []int // the ports by which servers know each other, this one's at Self
	Self   int
}

// serve is a server's process. It ends when its parent does.
func serve(spec string) error {
	var p place
	if err := json.Unmarshal([]byte(spec), &p); err != nil {
		return err
	}
	var routes []*url.URL
	for _, port := range p.Routes {
		routes = append(routes, &url.URL{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%d", port)})
	}
	s, err := server.NewServer(&server.Options{
		ServerName: p.Name, Host: "127.0.0.1", Port: p.Port, Routes: routes, NoSigs: true, NoLog: true,
		Cluster:   server.ClusterOpts{Name: "c", Host: "127.0.0.1", Port: p.Routes[p.Self]},
		JetStream: true, StoreDir: p.Dir, JetStreamMaxMemory: 1 << 20, JetStreamMaxStore: 16 << 30,
	})
	if err != nil {
		return err
	}
	s.Start()
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// process is this program as one of its children, which main_test.go knows.
type process struct {
	cmd *exec.Cmd
	in  io.Closer
}

func start(t *testing.T, out io.Writer, env ...string) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = out, os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return &process{cmd, in}
}

// kill ends the process as a crash does.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended by itself
	_ = p.cmd.Wait()         // it was killed
	_ = p.in.Close()
}

// cluster is servers in processes of their own.
type cluster struct {
	places    []place
	processes []*process
	js        jetstream.JetStream // of a connection that only looks
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	const n = 3
	c := &cluster{processes: make([]*process, n)}
	ports := freePorts(t, 2*n)
	dir := t.TempDir()
	for i := range n {
		name := fmt.Sprint("s", i)
		c.places = append(c.places, place{Name: name, Dir: filepath.Join(dir, name), Port: ports[i], Routes: ports[n:], Self: i})
	}
	t.Cleanup(func() {
		for _, p := range c.processes {
			p.kill()
		}
	})
	for i := range n {
		c.start(t, i)
	}
	var nc *nats.Conn
	eventually(t, "a connection", func() (err error) {
		nc, err = nats.Connect(c.url(), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond), nats.IgnoreAuthErrorAbort())
		return err
	})
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	c.js = js
	eventually(t, "a cluster that can have streams on all servers", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "ready", Subjects: []string{"ready"}, Replicas: n})
		return err
	})
	return c
}

func freePorts(t *testing.T, n int) (ports []int) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports
}

func (c *cluster) start(t *testing.T, i int) {
	t.Helper()
	c.processes[i] = start(t, io.Discard, "CLUSTER_TEST_SERVER="+asJSON(t, c.places[i]))
}

func (c *cluster) url() string {
	var all []string
	for _, p := range c.places {
		all = append(all, fmt.Sprintf("nats://127.0.0.1:%d", p.Port))
	}
	return strings.Join(all, ",")
}

// eventually waits for something that is going to be well.
func eventually(t *testing.T, what string, try func() error) {
	t.Helper()
	for begin := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		err := try()
		if err == nil {
			return
		}
		if time.Since(begin) > 3*time.Minute {
			t.Fatalf("in vain waited for %s: %v", what, err)
		}
	}
}

// leader returns which server leads a stream, when all servers have what it has.
func (c *cluster) leader(t *testing.T, stream string) (leader int) {
	t.Helper()
	eventually(t, "copies of "+stream, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		s, err := c.js.Stream(ctx, stream)
		if err != nil {
			return err
		}
		state := s.CachedInfo().Cluster
		for _, r := range state.Replicas {
			if !r.Current || r.Offline {
				return fmt.Errorf("%s is behind", r.Name)
			}
		}
		for leader = range c.places {
			if c.places[leader].Name == state.Leader && len(state.Replicas) == len(c.places)-1 {
				return nil
			}
		}
		return errors.New("no leader")
	})
	return leader
}

// open opens a queue on servers.
func open(ctx context.Context, url string) (*queue.Queue, error) {
	return queue.Open(ctx, queue.Config{URL: url, Replicas: 3, Logger: quiet(), NATS: []nats.Option{nats.ReconnectWait(50 * time.Millisecond)}})
}

func (c *cluster) open(t *testing.T) *queue.Queue {
	t.Helper()
	q, err := open(t.Context(), c.url())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	})
	return q
}
