package hub

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/stile-ipc/stile/policy"
	"github.com/stile-ipc/stile/queue"
	"github.com/stile-ipc/stile/routemap"
)

func openURL(t *testing.T, url string, opts ...nats.Option) *queue.Queue {
	t.Helper()
	q, err := queue.Open(t.Context(), queue.Config{URL: url, NATS: append(opts, nats.ReconnectWait(20*time.Millisecond)), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// known waits until a hub knows of the queues of its NATS servers, and ends the window.
func known(t *testing.T, h *Hub, n int) map[string]*routemap.QueueStats {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		for _, q := range h.nats.all() {
			if err := h.nats.observe(t.Context(), q); err != nil {
				t.Fatal(err)
			}
		}
		all := map[string]*routemap.QueueStats{}
		for k, s := range h.agents.queues.window() {
			all[k.Topic+" "+k.Group] = s
		}
		if len(all) == n {
			return all
		}
		if time.Now().After(end) {
			t.Fatalf("%v, want %d", all, n)
		}
	}
}

// TestNATS: a hub has NATS, on which teams have queues with nothing else; it sees them and acts on them, and another hub does by URL.
func TestNATS(t *testing.T) {
	h := openHub(t, Config{NATS: loopback})
	defer func() { closeHub(t, h) }()
	url := "nats://" + h.Addrs()[ForNATS]
	d := newDying(t, openURL(t, url), "", 3)
	if all := known(t, h, 1); all["orders billing"].Dead != 3 || all["orders billing"].Where != url || all["orders billing"].Messages != 3 {
		t.Errorf("%+v", all["orders billing"])
	}
	other := openHub(t, Config{NATSURL: url})
	known(t, other, 1)
	info, err := d.q.Topic(t.Context(), "orders")
	if err != nil {
		t.Fatal(err)
	}
	id := routemap.QueueKey{Topic: "orders", Created: info.Created.UnixNano(), Group: "billing"}.ID()
	if got := decode[QueueActed](t, act(t, other, "discard", QueueAct{Queue: id, All: true, UpTo: 3, Limit: 1})); got.Done != 1 || got.Left != 2 {
		t.Errorf("by URL: %+v", got)
	}
	d.mended.Store(true)
	if got := decode[QueueActed](t, act(t, h, "redrive", QueueAct{Queue: id, All: true})); got.Done != 2 || got.Left != 0 {
		t.Errorf("of its own: %+v", got)
	}
	d.dead(0)
	closeHub(t, other)
	d.close()
	h = reopenNATS(t, h)
	if all := known(t, h, 1); all["orders billing"].Messages != 5 {
		t.Errorf("after it was started again: %+v", all["orders billing"])
	}
}

func reopenNATS(t *testing.T, h *Hub) *Hub {
	t.Helper()
	at := h.Addrs()[ForNATS]
	closeHub(t, h)
	return openHub(t, Config{Dir: h.cfg.Dir, NATS: at})
}

// TestNATSAway: a hub whose NATS servers elsewhere are away says so, and begins.
func TestNATSAway(t *testing.T) {
	h := openHub(t, Config{NATSURL: "nats://a-secret@127.0.0.1:1"})
	defer closeHub(t, h)
	for end := time.Now().Add(time.Minute); h.nats.away.now() == nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it says nothing")
		}
	}
	if s := decode[Status](t, get(t, h, "/api/v1/status")); s.NATS == "" || strings.Contains(s.NATS, "a-secret") {
		t.Errorf("%q", s.NATS)
	}
}

// TestNATSAccess: where there are tokens those who write or operate may publish, by TLS; without both others cannot reach it.
func TestNATSAccess(t *testing.T) {
	reads, writes, operates := strings.Repeat("r", 32), strings.Repeat("w", 32), strings.Repeat("o", 32)
	tokens := []Token{{Role: Read, Secret: reads}, {Role: Write, Secret: writes}, {Role: Operate, Secret: operates}}
	cert, pool := certificate(t)
	for _, secure := range []bool{false, true} {
		cfg := Config{NATS: loopback, Tokens: tokens}
		scheme, opts := "nats://", []nats.Option(nil)
		if secure {
			cfg.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
			scheme, opts = "tls://", []nats.Option{nats.Secure(&tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12})}
		}
		h := openHub(t, cfg)
		at := h.Addrs()[ForNATS]
		for secret, want := range map[string]bool{"": false, reads: false, writes: true, operates: true, "wrong": false} {
			for _, user := range []string{secret, "anybody:" + secret} {
				nc, err := nats.Connect(scheme+user+"@"+at, opts...)
				if (err == nil) != want || err != nil && !errors.Is(err, nats.ErrAuthorization) {
					t.Errorf("TLS %v, %.12q: %v", secure, user, err)
				}
				if nc != nil {
					nc.Close()
				}
			}
		}
		if secure {
			if nc, err := nats.Connect("nats://" + writes + "@" + at); err == nil {
				t.Error("without trust in the certificate it is connected to")
				nc.Close()
			}
		}
		known(t, h, 0)
		closeHub(t, h)
	}
	for name, cfg := range map[string]Config{"no tokens": {NATS: "0.0.0.0:0"}, "no TLS": {NATS: "0.0.0.0:0", Tokens: tokens}, "no port": {NATS: "127.0.0.1"}} {
		cfg.Dir, cfg.OTLPGRPC, cfg.OTLPHTTP, cfg.HTTP, cfg.Logger = t.TempDir(), Off, Off, Off, slog.New(slog.DiscardHandler)
		if h, err := Open(t.Context(), cfg); err == nil {
			t.Errorf("%s: it is opened", name)
			closeHub(t, h)
		}
	}
	l, err := net.Listen("tcp", loopback)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if h, err := Open(t.Context(), Config{Dir: t.TempDir(), OTLPGRPC: Off, OTLPHTTP: Off, HTTP: Off, NATS: l.Addr().String(), Logger: slog.New(slog.DiscardHandler)}); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("on a port that is taken: %v", err)
		if h != nil {
			closeHub(t, h)
		}
	}
}

// TestNATSNoPage: a web page that posts to NATS's port has nothing done.
func TestNATSNoPage(t *testing.T) {
	h := openHub(t, Config{NATS: loopback})
	defer closeHub(t, h)
	body := "x\r\nCONNECT {}\r\nPUB $JS.API.STREAM.CREATE.evil 2\r\n{}\r\n"
	if r, err := http.Post("http://"+h.Addrs()[ForNATS]+"/", "text/plain", strings.NewReader(body)); err == nil {
		r.Body.Close()
	}
	known(t, h, 0)
}

func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	like := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "hub"}, NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	raw, err := x509.CreateCertificate(rand.Reader, like, like, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}, pool
}

// TestPolicyKey: a policy that somebody puts into a key of the hub's NATS is obeyed by those who follow it.
func TestPolicyKey(t *testing.T) {
	h := openHub(t, Config{NATS: loopback})
	defer closeHub(t, h)
	url := "nats://" + h.Addrs()[ForNATS]
	team, service := openURL(t, url), openURL(t, url)
	defer func() {
		if err := errors.Join(team.Close(), service.Close()); err != nil {
			t.Error(err)
		}
	}()
	put, err := team.KeyValue(t.Context(), "policies")
	if err != nil {
		t.Fatal(err)
	}
	text := func(timeout string) []byte {
		return []byte("methodConfig:\n- name: [{service: shop.v1.Catalog}]\n  timeout: " + timeout + "\n")
	}
	if _, err := put.Put(t.Context(), "shop", text("0.25s")); err != nil {
		t.Fatal(err)
	}
	kv, err := service.KeyValue(t.Context(), "policies")
	if err != nil {
		t.Fatal(err)
	}
	feed := queue.NewKeyFeed(kv, "shop")
	p, err := policy.Follow(t.Context(), feed)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(p.Close(), feed.Close()); err != nil {
			t.Error(err)
		}
	}()
	first := p.Status().Since
	if _, err := put.Put(t.Context(), "shop", text("0.5s")); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); p.Status().Since.Equal(first); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it goes on with the first")
		}
	}
}

// publishUntil publishes numbers, and tells of a receipt that is not of the next place.
func publishUntil(ctx context.Context, topic *queue.Topic[text], published *atomic.Int64, stop chan struct{}) error {
	for n := int64(0); ; n++ {
		select {
		case <-stop:
			return nil
		default:
		}
		within, cancel := context.WithTimeout(ctx, time.Minute)
		r, err := topic.Publish(within, wrapperspb.String(fmt.Sprint(n)), queue.ID(fmt.Sprint(n)))
		cancel()
		if err != nil || r.Sequence != uint64(n+1) {
			return fmt.Errorf("message %d: %+v, %w", n, r, err)
		}
		published.Store(n + 1)
	}
}

// TestNATSKilled: what has a receipt is there, once and in its place, after the hub was killed again and again; publishers and subscribers go on.
func TestNATSKilled(t *testing.T) {
	dir := t.TempDir()
	h := startHub(t, dir, Off, loopback)
	defer func() { h.kill() }()
	at := h.addrs[ForNATS]
	q := openURL(t, "nats://"+at)
	topic, err := queue.NewTopic[text](q, "orders")
	if err != nil {
		t.Fatal(err)
	}
	const each, kills = 300, 3
	got := make(chan string, 1000*each)
	sub, err := topic.Subscribe(t.Context(), "g", func(_ context.Context, m *queue.Msg[text]) error { got <- m.Value.GetValue(); return nil })
	if err != nil {
		t.Fatal(err)
	}
	var published atomic.Int64
	stop, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- publishUntil(t.Context(), topic, &published, stop) }()
	for range kills {
		for from := published.Load(); published.Load() < from+each && len(ended) == 0; time.Sleep(time.Millisecond) {
		}
		h.kill()
		h = startHub(t, dir, Off, at)
	}
	close(stop)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	n := int(published.Load())
	seen := map[string]bool{}
	for len(seen) < n {
		select {
		case v := <-got:
			seen[v] = true
		case <-time.After(time.Minute):
			t.Fatalf("%d messages of %d came", len(seen), n)
		}
	}
	info, err := q.Topic(t.Context(), "orders")
	if err != nil || info.Messages != uint64(n) {
		t.Errorf("%+v, %v: want %d messages", info, err, n)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := errors.Join(sub.Drain(ctx), q.Close()); err != nil {
		t.Error(err)
	}
}
