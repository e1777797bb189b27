// Package transporttest is the conformance suite of [transport.Conn] and
// [transport.Transport]: what their comments promise, as tests.
//
// The suite counts goroutines, file descriptors and mappings of the process; do
// not run other tests at the same time as [Run] or [RunListener].
package transporttest

import (
	"context"
	"errors"
	"testing"

	"github.com/stile-ipc/stile/transport"
)

// NewPair makes a connection and returns its two ends, neither started. The suite
// closes both.
type NewPair func(t *testing.T) (client, server transport.Conn)

// Run tests the connections that newPair makes.
func Run(t *testing.T, newPair func(t *testing.T) (client, server transport.Conn)) {
	s := suite{newPair}
	cases := []struct {
		name string
		test func(*testing.T)
	}{
		{"Order", s.testOrder},
		{"Integrity", s.testIntegrity},
		{"HeaderKept", s.testHeaderKept},
		{"WriteCopies", s.testWriteCopies},
		{"HandlerOwnsBuffers", s.testHandlerOwnsBuffers},
		{"Oversize", s.testOversize},
		{"ConcurrentWriters", s.testConcurrentWriters},
		{"BothDirections", s.testBothDirections},
		{"BackPressureNotStarted", s.testBackPressureNotStarted},
		{"BackPressureBlockedHandler", s.testBackPressureBlockedHandler},
		{"BackPressureResumes", s.testBackPressureResumes},
		{"BackPressureManyWriters", s.testBackPressureManyWriters},
		{"BackPressureOneWay", s.testBackPressureOneWay},
		{"BlockedWriteEnds", s.testBlockedWriteEnds},
		{"CanceledBefore", s.testCanceledBefore},
		{"CloseDelivers", s.testCloseDelivers},
		{"CloseDeliversToSlowReader", s.testCloseDeliversToSlowReader},
		{"CloseDespiteStuckPeer", s.testCloseDespiteStuckPeer},
		{"CloseOnceAndLast", s.testCloseOnceAndLast},
		{"CloseBothAtOnce", s.testCloseBothAtOnce},
		{"CloseConcurrent", s.testCloseConcurrent},
		{"CloseDuringWrites", s.testCloseDuringWrites},
		{"CloseBeforeStart", s.testCloseBeforeStart},
		{"PeerClosedBeforeStart", s.testPeerClosedBeforeStart},
		{"FailFirstCause", s.testFailFirstCause},
		{"FailConcurrent", s.testFailConcurrent},
		{"FailFromHandler", s.testFailFromHandler},
		{"FailUnderLoad", s.testFailUnderLoad},
		{"PollIdle", s.testPollIdle},
		{"PollEnded", s.testPollEnded},
		{"PollDone", s.testPollDone},
		{"Echo1", func(t *testing.T) { s.testEcho(t, 1, 8000) }},
		{"Echo8", func(t *testing.T) { s.testEcho(t, 8, 2000) }},
		{"Echo64", func(t *testing.T) { s.testEcho(t, 64, 250) }},
		{"EchoIdleGaps", s.testEchoIdleGaps},
		{"EchoBothWays", s.testEchoBothWays},
		{"EchoLarge", s.testEchoLarge},
		{"Loans", s.testLoans},
		{"LoansEnd", s.testLoansEnd},
		{"LoansExhausted", s.testLoansExhausted},
		{"Info", s.testInfo},
	}
	// What is made once and kept, like pools and the runtime's own descriptors,
	// exists before anything is counted.
	s.roundTrip(t)
	before := countResources(t)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			inUse := countResources(t)
			t.Cleanup(func() { inUse.verify(t) }) // first in, so after every other cleanup
			c.test(t)
		})
	}
	t.Run("NothingLeft", func(t *testing.T) {
		for range 50 {
			s.roundTrip(t)
		}
		before.verify(t)
	})
}

// Dialed returns a [NewPair] over tr: a listener on the address that addr returns,
// one Dial, one Accept.
func Dialed(tr transport.Transport, addr func(t *testing.T) string) NewPair {
	return func(t *testing.T) (client, server transport.Conn) {
		t.Helper()
		l, err := tr.Listen(addr(t))
		if err != nil {
			t.Fatalf("listen: %v", err)
		}
		defer l.Close()
		return dialAccept(t, tr, l, l.Addr().String())
	}
}

// dialAccept connects to l under the name addr.
func dialAccept(t *testing.T, tr transport.Transport, l transport.Listener, addr string) (client, server transport.Conn) {
	t.Helper()
	type result struct {
		c   transport.Conn
		err error
	}
	accepted := make(chan result, 1)
	go func() {
		c, err := l.Accept()
		accepted <- result{c, err}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	client, err := tr.Dial(ctx, addr)
	if err != nil {
		t.Fatalf("dial %s: %v", addr, err)
	}
	r := receive(t, accepted, "Accept")
	if r.err != nil {
		t.Fatalf("accept: %v", r.err)
	}
	return client, r.c
}

type suite struct{ newPair NewPair }

// pair makes a connection whose ends are closed with the test.
func (s suite) pair(t *testing.T) (client, server transport.Conn) {
	t.Helper()
	client, server = s.newPair(t)
	t.Cleanup(func() {
		closeConn(t, client)
		closeConn(t, server)
	})
	return client, server
}

// started makes a connection with a sink on each end.
func (s suite) started(t *testing.T) (client, server *end) {
	t.Helper()
	c, d := s.pair(t)
	client, server = &end{c, newSink(t)}, &end{d, newSink(t)}
	client.Start(client.sink)
	server.Start(server.sink)
	return client, server
}

// roundTrip uses one connection in full and closes it.
func (s suite) roundTrip(t *testing.T) {
	t.Helper()
	a, b := s.newPair(t)
	client, server := &end{a, newSink(t)}, &end{b, newSink(t)}
	client.Start(client.sink)
	server.Start(server.sink)
	client.mustWrite(t, streamHeader(1), []byte("there"))
	server.next(t).release()
	server.mustWrite(t, streamHeader(1), []byte("and back"))
	client.next(t).release()
	closeConn(t, a)
	client.wantClosed(t, transport.ErrClosed)
	server.wantClosed(t, transport.ErrPeerGone)
	closeConn(t, b)
}

// wantCause checks that err is, or wraps, want.
func wantCause(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: error %v, want %v", what, err, want)
	}
}
