package queue

import (
	"net"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// TestDelayURL: on a server elsewhere a message comes when its publisher is gone, also one that a process had taken when it died; and with several
// processes each comes once, also when the server was away.
func TestDelayURL(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := natsServer(t, dir, server.RANDOM_PORT)
	port := s.Addr().(*net.TCPAddr).Port
	connect := func() *Queue {
		t.Helper()
		q, err := Open(t.Context(), Config{URL: s.ClientURL(), NATS: []nats.Option{nats.UserInfo("shop", "right"), nats.ReconnectWait(50 * time.Millisecond)}, Logger: quiet()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { shut(t, q) })
		return q
	}
	one, other, gone := connect(), connect(), connect()
	_, got := arrivals(t, topic(t, one, "orders"), "billing")
	topic(t, other, "orders")
	top := topic(t, gone, "orders")
	gone.movers["orders"].cancel()
	<-gone.movers["orders"].done // it dies before it hands anything over
	later(t, top, "a", 300*time.Millisecond)
	later(t, top, "taken", time.Hour)
	m := gone.movers["orders"]
	stream, err := m.find(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	msg, err := lastOf(t.Context(), stream, laterSubject("orders", allGroups, "taken"))
	if err != nil {
		t.Fatal(err)
	}
	if seq, err := m.take(t.Context(), stream, msg); seq == 0 || err != nil {
		t.Fatalf("%d, %v", seq, err)
	}
	if done, err := top.Cancel(t.Context(), "taken"); done || err != nil {
		t.Errorf("one that is taken: %v, %v", done, err)
	}
	shut(t, gone)
	for _, q := range []*Queue{one, other} {
		q.movers["orders"].wake() // or it looks after half a minute
	}
	for _, want := range []string{"a", "taken"} {
		if m := next(t, got); m.ID != want {
			t.Errorf("%s, want %s", m.ID, want)
		}
	}
	const messages = 200
	for range messages {
		later(t, topic(t, one, "orders"), "", 500*time.Millisecond)
	}
	came := map[string]bool{}
	for range messages {
		came[next(t, got).ID] = true
	}
	laterLeft(t, one, "orders", 0)
	if len(came) != messages || len(got) != 0 {
		t.Errorf("%d came, %d twice", len(came), len(got))
	}
	later(t, topic(t, one, "orders"), "while it is away", 300*time.Millisecond)
	s.Shutdown()
	s.WaitForShutdown()
	time.Sleep(500 * time.Millisecond)
	natsServer(t, dir, port)
	if m := next(t, got); m.ID != "while it is away" {
		t.Errorf("%+v", m)
	}
}
