package queue

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// cluster is servers on the loopback that know each other.
type cluster struct {
	opts    []*server.Options
	servers []*server.Server
	urls    []string
}

// newCluster starts n servers.
func newCluster(t *testing.T, n int) *cluster {
	t.Helper()
	c := &cluster{servers: make([]*server.Server, n)}
	ports := freePorts(t, 2*n)
	var routes []*url.URL
	for _, p := range ports[:n] {
		routes = append(routes, &url.URL{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%d", p)})
	}
	deny := &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"q.secret.>", "$JS.API.STREAM.CREATE.hidden", "$JS.API.CONSUMER.CREATE.*.denied"}}}
	for i := range n {
		c.opts = append(c.opts, &server.Options{
			ServerName: fmt.Sprint("s", i), Host: "127.0.0.1", Port: ports[n+i], Routes: routes, NoSigs: true, NoLog: true,
			Cluster:   server.ClusterOpts{Name: "c", Host: "127.0.0.1", Port: ports[i]},
			JetStream: true, StoreDir: filepath.Join(t.TempDir(), fmt.Sprint(i)), JetStreamMaxMemory: 1 << 20, JetStreamMaxStore: 8 << 30,
			Users: []*server.User{{Username: "shop", Password: "right", Permissions: deny}},
		})
		c.urls = append(c.urls, fmt.Sprintf("nats://127.0.0.1:%d", ports[n+i]))
	}
	t.Cleanup(func() {
		for i := range n {
			c.stop(i)
		}
	})
	for i := range n {
		c.start(t, i)
	}
	c.ready(t)
	return c
}

// freePorts are ports of the loopback that nobody had a moment ago.
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
	s, err := server.NewServer(c.opts[i].Clone())
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(20 * time.Second) {
		t.Fatal("a server is not ready")
	}
	c.servers[i] = s
}

func (c *cluster) stop(i int) {
	if s := c.servers[i]; s != nil {
		s.Shutdown()
		s.WaitForShutdown()
		c.servers[i] = nil
	}
}

// ready waits until the servers have a leader that knows all of them.
func (c *cluster) ready(t *testing.T) {
	t.Helper()
	eventually(t, "a leader of all", func() bool {
		for _, s := range c.servers {
			if s != nil && s.JetStreamIsLeader() && len(s.JetStreamClusterPeers()) == len(c.servers) {
				return true
			}
		}
		return false
	})
}

// eventually waits for something that is going to be so.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for begin := time.Now(); !so(); time.Sleep(20 * time.Millisecond) {
		if time.Since(begin) > time.Minute {
			t.Fatal("in vain waited for ", what)
		}
	}
}

// open opens a queue on the cluster.
func (c *cluster) open(t *testing.T, replicas int) *Queue {
	t.Helper()
	q, err := Open(t.Context(), Config{
		URL: strings.Join(c.urls, ","), Replicas: replicas, Logger: quiet(),
		NATS: []nats.Option{nats.UserInfo("shop", "right"), nats.ReconnectWait(50 * time.Millisecond)},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, q) })
	return q
}

func replicasOf(t *testing.T, q *Queue, stream string) int {
	t.Helper()
	s, err := q.js.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo().Config.Replicas
}

// TestReplicas: a queue's streams are on as many servers as it wants, and those that are there stay as they are.
func TestReplicas(t *testing.T) {
	c := newCluster(t, 3)
	one, three := c.open(t, 0), c.open(t, 3)
	topic(t, one, "single")
	top := topic(t, three, "orders")
	drained(t, subscribe(t, top, "billing", func(context.Context, *Msg[text]) error { return nil }))
	if _, err := three.KeyValue(t.Context(), "policies"); err != nil {
		t.Error(err)
	}
	for _, again := range []*Queue{one, three} {
		topic(t, again, "single")
		topic(t, again, "orders")
		for stream, want := range map[string]int{"single": 1, "orders": 3, "orders=dead": 3, "KV_policies": 3} {
			if n := replicasOf(t, again, stream); n != want {
				t.Errorf("%s: %d copies, not %d", stream, n, want)
			}
		}
	}
	info, err := subscribe(t, top, "billing", func(context.Context, *Msg[text]) error { return nil }).cons.Info(t.Context())
	if err != nil || len(info.Cluster.Replicas) != 2 {
		t.Errorf("the consumer: %+v, %v", info, err)
	}
	if _, err := NewTopic[text](three, "single", Keep(time.Hour, 1<<20)); err == nil || !strings.Contains(err.Error(), "other settings") {
		t.Errorf("other settings: %v", err)
	}
	_, err = NewTopic[text](c.open(t, 5), "many")
	if err == nil || !strings.Contains(err.Error(), `topic "many": Config.Replicas wants 5 copies`) || !strings.Contains(err.Error(), "add servers") {
		t.Errorf("more copies than servers: %v", err)
	}
	for _, bad := range []Config{{URL: c.urls[0], Replicas: 6}, {URL: c.urls[0], Replicas: -1}, {Dir: t.TempDir(), Replicas: 3}} {
		if q, err := Open(t.Context(), bad); err == nil || !strings.Contains(err.Error(), "Replicas") {
			t.Errorf("%+v: %v, %v", bad, q, err)
		}
	}
	embedded, err := Open(t.Context(), Config{Dir: t.TempDir(), Replicas: 1, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	shut(t, embedded)
	alone, err := Open(t.Context(), Config{URL: natsServer(t, t.TempDir(), server.RANDOM_PORT).ClientURL(), Replicas: 3, NATS: []nats.Option{nats.UserInfo("shop", "right")}, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, alone) })
	if _, err := NewTopic[text](alone, "many"); err == nil || !strings.Contains(err.Error(), "wants 3 copies") {
		t.Errorf("copies on a server that is alone: %v", err)
	}
}

// TestDenied: what a user may not do is said at once, with the subject.
func TestDenied(t *testing.T) {
	c := newCluster(t, 3)
	if _, err := Open(t.Context(), Config{URL: c.urls[0], NATS: []nats.Option{nats.UserInfo("shop", "wrong")}, Logger: quiet()}); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("a wrong password: %v", err)
	}
	q := c.open(t, 3)
	if _, err := NewTopic[text](q, "hidden"); !errors.Is(err, nats.ErrPermissionViolation) || !strings.Contains(err.Error(), `"$JS.API.STREAM.CREATE.hidden"`) {
		t.Errorf("a stream that may not be made: %v", err)
	}
	secret := topic(t, q, "secret")
	if _, err := secret.Publish(t.Context(), wrapperspb.String("x")); !errors.Is(err, nats.ErrPermissionViolation) || !strings.Contains(err.Error(), "q.secret.") {
		t.Errorf("a subject that is denied: %v", err)
	}
	handle := func(context.Context, *Msg[text]) error { return nil }
	if _, err := secret.Subscribe(t.Context(), "denied", handle); !errors.Is(err, nats.ErrPermissionViolation) || !strings.Contains(err.Error(), `group "denied"`) {
		t.Errorf("a consumer that may not be made: %v", err)
	}
}

// memory is an inbox that forgets when the process ends.
type memory struct {
	mu   sync.Mutex
	done map[InboxKey]bool
}

func (m *memory) Once(ctx context.Context, key InboxKey, f func(context.Context) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.done[key] {
		return nil
	}
	if err := f(ctx); err != nil {
		return err
	}
	if m.done == nil {
		m.done = map[InboxKey]bool{}
	}
	m.done[key] = true
	return nil
}

// TestNoQuorum: with most servers away nothing is taken, which publishers are told; when they are back all goes on.
func TestNoQuorum(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	q, other := c.open(t, 3), c.open(t, 3)
	top, same := topic(t, q, "orders"), topic(t, other, "orders")
	got := make(chan string, 100)
	sub := subscribe(t, same, "billing", func(_ context.Context, m *Msg[text]) error { got <- m.Value.GetValue(); return nil }, Once(&memory{}))
	publish(t, top, "one")
	if v := next(t, got); v != "one" {
		t.Error(v)
	}
	c.stop(0)
	c.stop(1)
	eventually(t, "the last server", func() bool { return q.nc.IsConnected() && q.nc.ConnectedUrl() == c.urls[2] })
	asked := q.nc.Stats().OutMsgs
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, err := top.Publish(ctx, wrapperspb.String("two"), ID("two"))
	if !errors.Is(err, ErrNoAnswer) || !strings.Contains(err.Error(), `topic "orders"`) || !strings.Contains(err.Error(), "publish again with the same ID") {
		t.Errorf("published without a quorum: %v", err)
	}
	if n := q.nc.Stats().OutMsgs - asked; n == 0 || n > 20 {
		t.Errorf("asked %d times in 5 s", n)
	}
	t.Log(err)
	published := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_, err := top.Publish(ctx, wrapperspb.String("two"), ID("two"))
		published <- err
	}()
	c.start(t, 0)
	c.start(t, 1)
	if err := next(t, published); err != nil {
		t.Error(err)
	}
	if v := next(t, got); v != "two" {
		t.Error(v)
	}
	publish(t, top, "three")
	if v := next(t, got); v != "three" {
		t.Error(v)
	}
	drained(t, sub)
	if len(got) != 0 {
		t.Errorf("%d messages twice", len(got))
	}
}

// TestClusterDelayFull: on a cluster, too, what is delayed comes although no more can be delayed, and can be cancelled.
func TestClusterDelayFull(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	q := c.open(t, 3)
	top := topic(t, q, "orders", Keep(time.Hour, 30_000))
	sub, got := arrivals(t, top, "g")
	due := time.Now().Add(5 * time.Second)
	n := 0
	for err := error(nil); err == nil; n++ {
		if _, err = top.Publish(t.Context(), wrapperspb.String(strings.Repeat("x", 1000)), ID(fmt.Sprint(n)), At(due)); err != nil && !errors.Is(err, ErrFull) || time.Now().After(due) {
			t.Fatal(n, err)
		}
	}
	n-- // the last one was refused
	if done, err := top.Cancel(t.Context(), "0"); !done || err != nil {
		t.Errorf("%v, %v", done, err)
	}
	came := map[string]bool{}
	for len(came) < n-1 {
		m := next(t, got)
		if m.ID == "0" || came[m.ID] {
			t.Errorf("%s came", m.ID)
		}
		came[m.ID] = true
		forget(t, q, "orders", m.Sequence) // all of them are more than it may have
	}
	drained(t, sub)
}

// TestObserveLeader: who looks at the topics of a cluster is told which server leads them, and when another one does.
func TestObserveLeader(t *testing.T) {
	c := newCluster(t, 3)
	q := c.open(t, 3)
	topic(t, q, "orders")
	leader := func() string {
		all, err := q.Observe(t.Context())
		if err != nil || len(all) != 1 {
			return "" // while another one is elected
		}
		return all[0].Leader
	}
	was := ""
	eventually(t, "a leader", func() bool { was = leader(); return was != "" })
	for i, s := range c.servers {
		if s.Name() == was {
			c.stop(i)
		}
	}
	eventually(t, "another leader", func() bool { is := leader(); return is != "" && is != was })
}
