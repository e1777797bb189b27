package queue

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// natsServer is a server elsewhere: on a port of the loopback, for users who give a password.
func natsServer(t *testing.T, dir string, port int) *server.Server {
	t.Helper()
	deny := &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"q.secret.>"}}}
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: port, NoSigs: true, NoLog: true, JetStream: true, StoreDir: dir, JetStreamMaxMemory: 1 << 20, JetStreamMaxStore: 8 << 30,
		Users: []*server.User{{Username: "shop", Password: "right", Permissions: deny}},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server is not ready")
	}
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	return s
}

// TestURL: topics on a server elsewhere, which is away for a while.
func TestURL(t *testing.T) {
	dir := t.TempDir()
	s := natsServer(t, dir, server.RANDOM_PORT)
	url, port := s.ClientURL(), s.Addr().(*net.TCPAddr).Port
	if _, err := Open(t.Context(), Config{URL: url, NATS: []nats.Option{nats.UserInfo("shop", "wrong")}, Logger: quiet()}); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("a wrong password: %v", err)
	}
	q, err := Open(t.Context(), Config{URL: url, NATS: []nats.Option{nats.UserInfo("shop", "right"), nats.ReconnectWait(50 * time.Millisecond), nats.ReconnectBufSize(64)}, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(t, q) })
	top := topic(t, q, "orders", KeyBy(keyOf))
	got := make(chan string, 10)
	handle := func(_ context.Context, m *Msg[text]) error { got <- m.Value.GetValue(); return nil }
	sub := subscribe(t, top, "billing", handle)
	publish(t, top, "one")
	if v := next(t, got); v != "one" {
		t.Error(v)
	}
	if _, err := NewTopic[text](q, "bounded", Durable(Bounded)); err == nil {
		t.Error("Bounded on a server elsewhere")
	}
	secret := topic(t, q, "secret")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := secret.Publish(ctx, wrapperspb.String("x")); !errors.Is(err, nats.ErrPermissionViolation) || !strings.Contains(err.Error(), "q.secret.") {
		t.Errorf("a subject that is denied: %v", err)
	}
	s.Shutdown()
	s.WaitForShutdown()
	eventually(t, "the end of the connection", q.nc.IsReconnecting)
	published := make(chan error, 2)
	for _, v := range []string{"two", "two again"} { // there is room for one in the connection's buffer
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			_, err := top.Publish(ctx, wrapperspb.String(v), ID(v))
			published <- err
		}()
	}
	time.Sleep(100 * time.Millisecond)
	natsServer(t, dir, port)
	for range 2 {
		if err := next(t, published); err != nil {
			t.Error(err)
		}
		if v := next(t, got); !strings.HasPrefix(v, "two") {
			t.Error(v)
		}
	}
	drained(t, sub)
}
