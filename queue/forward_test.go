package queue

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// TestForward: what is published while the servers are away, come and go, and while this process ends and begins, is stored there once, in the
// order of its key.
func TestForward(t *testing.T) {
	t.Parallel()
	const keys = 5
	dir, far := t.TempDir(), t.TempDir()
	s := natsServer(t, far, server.RANDOM_PORT) // for its port
	url, port := s.ClientURL(), s.Addr().(*net.TCPAddr).Port
	away := func() { s.Shutdown(); s.WaitForShutdown() }
	away()
	to := Config{URL: url, NATS: []nats.Option{nats.UserInfo("shop", "right"), nats.ReconnectWait(50 * time.Millisecond)}, Logger: quiet()}

	var q *Queue
	var top *Topic[text]
	var f *Forwarder
	begin := func() {
		t.Helper()
		q = open(t, dir)
		top = topic(t, q, "orders", KeyBy(keyOf))
		var err error
		if f, err = top.Forward(t.Context(), to); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	publishSome := func(many int) {
		t.Helper()
		for range many {
			publish(t, top, fmt.Sprintf("key%d %d", n%keys, n))
			n++
		}
	}
	begin()
	if _, err := top.Forward(t.Context(), to); err == nil {
		t.Error("forwarded twice")
	}
	publishSome(100)
	if st, err := f.Stats(t.Context()); err != nil || st.Waiting != 100 || st.OldestAge == 0 {
		t.Errorf("%+v %v", st, err)
	}
	until(t, func() bool { st, err := f.Stats(t.Context()); return err == nil && st.Cause != "" })
	s = natsServer(t, far, port)
	until(t, func() bool { st, err := f.Stats(t.Context()); return err == nil && st.Waiting == 0 && st.Cause == "" })
	for i := range 4 {
		publishSome(50)
		if i%2 == 0 { // the servers are away in the middle of it
			away()
			publishSome(50)
			s = natsServer(t, far, port)
		} else { // this process ends in the middle of it
			f.Stop()
			shut(t, q)
			begin()
		}
		publishSome(50)
	}
	if err := f.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	remote, err := Open(t.Context(), to)
	if err != nil {
		t.Fatal(err)
	}
	defer shut(t, remote)
	got := map[string]string{}
	all, err := remote.Peek(t.Context(), "orders", 1, 10*n)
	if err != nil || len(all) != n {
		t.Fatalf("%d of %d messages are there: %v", len(all), n, err)
	}
	for _, m := range all {
		if m.Header.Get(headerVia) == "" {
			t.Errorf("%+v", m)
		}
		var key string
		var number, before int
		if _, err := fmt.Sscanf(string(m.Data[2:]), "%s %d", &key, &number); err != nil {
			t.Fatal(err)
		}
		if last := got[key]; last != "" {
			fmt.Sscan(last, &before)
			if number != before+keys {
				t.Errorf("%s: %d after %d", key, number, before)
			}
		}
		got[key] = fmt.Sprint(number)
	}
}

// TestForwardOld: a message that may have been stored longer ago than the servers know IDs is looked for.
func TestForwardOld(t *testing.T) {
	s := natsServer(t, t.TempDir(), server.RANDOM_PORT)
	to := Config{URL: s.ClientURL(), NATS: []nats.Option{nats.UserInfo("shop", "right")}, Logger: quiet()}
	q := open(t, t.TempDir())
	top := topic(t, q, "orders")
	publish(t, top, "one")
	f, err := top.Forward(t.Context(), to)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	remote, err := Open(t.Context(), to)
	if err != nil {
		t.Fatal(err)
	}
	defer shut(t, remote)
	first, err := q.Peek(t.Context(), "orders", 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-2 * idWindow)
	message := func(id string, seq uint64, stored time.Time) delivery {
		return delivery{Header: Header{parsed: nats.Header{headerID: {id}}}, seq: seq, stored: stored}
	}
	w := &forwarding{f: f, remote: remote, began: time.Now(), doubted: map[uint64]time.Time{}}
	check := func(d delivery, want bool) {
		t.Helper()
		if got, err := w.isThere(t.Context(), d); err != nil || got != want {
			t.Errorf("message %d: %v %v, want %v", d.seq, got, err, want)
		}
	}
	check(message(first[0].ID, 1, old), true)
	check(message("another", 2, old), false)
	check(message(first[0].ID, 3, time.Now()), false) // the servers know it themselves
	w.doubted[4] = old
	check(message(first[0].ID, 4, time.Now()), true)
	w.doubted[5] = old
	check(message("another", 5, time.Now()), false)
}

// TestForwardRefused: what the servers refuse for good does not hold up the rest; nor does what is wrong here.
func TestForwardRefused(t *testing.T) {
	s := natsServer(t, t.TempDir(), server.RANDOM_PORT)
	to := Config{URL: s.ClientURL(), NATS: []nats.Option{nats.UserInfo("shop", "right")}, Logger: quiet()}
	q := open(t, t.TempDir())
	top := topic(t, q, "orders")
	if _, err := top.Forward(t.Context(), Config{Dir: "x"}); err == nil {
		t.Error("to a folder")
	}
	remote, err := Open(t.Context(), to)
	if err != nil {
		t.Fatal(err)
	}
	defer shut(t, remote)
	far := topic(t, remote, "orders")
	if _, err := far.Forward(t.Context(), to); err == nil {
		t.Error("from a server elsewhere")
	}
	empty, err := top.envelope(wrapperspb.String(""), publishing{}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	// It fits here, and there, where less fits, with one more header it does not.
	publish(t, top, strings.Repeat("x", int(remote.nc.MaxPayload())-len(wireHeader(empty.Header))-20))
	publish(t, top, "small")
	f, err := top.Forward(t.Context(), to)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	st, err := top.q.GroupStats(t.Context(), "orders", forwardGroup)
	if n := len(stored(t, remote, "orders")); err != nil || n != 1 || st.Dead != 1 {
		t.Errorf("%d there, %+v %v", n, st, err)
	}
}
