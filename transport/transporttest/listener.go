package transporttest

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stile-ipc/stile/transport"
)

// RunListener tests tr itself. addr returns a fresh address on each call; the
// listener's Addr, as a string, is what is dialed.
func RunListener(t *testing.T, tr transport.Transport, addr func(t *testing.T) string) {
	s := listenerSuite{tr, addr}
	cases := []struct {
		name string
		test func(*testing.T)
	}{
		{"Name", s.testName},
		{"DialAccept", s.testDialAccept},
		{"ManyDialers", s.testManyDialers},
		{"NobodyListens", s.testNobodyListens},
		{"DialCanceled", s.testDialCanceled},
		{"NotAccepted", s.testNotAccepted},
		{"CloseEndsAccept", s.testCloseEndsAccept},
		{"CloseKeepsConns", s.testCloseKeepsConns},
		{"CloseEndsDialers", s.testCloseEndsDialers},
		{"AddressInUse", s.testAddressInUse},
		{"ListenAgain", s.testListenAgain},
	}
	s.testDialAccept(t)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			inUse := countResources(t)
			t.Cleanup(func() { inUse.verify(t) }) // first in, so after every other cleanup
			c.test(t)
		})
	}
}

type listenerSuite struct {
	tr   transport.Transport
	addr func(t *testing.T) string
}

func (s listenerSuite) listen(t *testing.T, addr string) transport.Listener {
	t.Helper()
	l, err := s.tr.Listen(addr)
	if err != nil {
		t.Fatalf("listen on %s: %v", addr, err)
	}
	t.Cleanup(func() { closeListener(t, l) })
	return l
}

func closeListener(t *testing.T, l transport.Listener) {
	t.Helper()
	receive(t, background(func() {
		if err := l.Close(); err != nil {
			t.Errorf("close listener: %v", err)
		}
	}), "Listener.Close")
}

func (s listenerSuite) testName(t *testing.T) {
	if s.tr.Name() == "" {
		t.Error("no name")
	}
}

// connect makes a connection over l with a sink on each end.
func (s listenerSuite) connect(t *testing.T, l transport.Listener) (client, server *end) {
	t.Helper()
	a, b := dialAccept(t, s.tr, l, l.Addr().String())
	t.Cleanup(func() { closeConn(t, a); closeConn(t, b) })
	client, server = &end{a, newSink(t)}, &end{b, newSink(t)}
	client.Start(client.sink)
	server.Start(server.sink)
	return client, server
}

func talk(t *testing.T, client, server *end) {
	t.Helper()
	client.mustWrite(t, streamHeader(1), []byte("hello"))
	if r := server.next(t); string(r.b.B) != "hello" {
		t.Errorf("server got %q", r.b.B)
	}
	server.mustWrite(t, streamHeader(1), []byte("well met"))
	if r := client.next(t); string(r.b.B) != "well met" {
		t.Errorf("client got %q", r.b.B)
	}
}

func (s listenerSuite) testDialAccept(t *testing.T) {
	l := s.listen(t, s.addr(t))
	if l.Addr() == nil || l.Addr().Network() == "" {
		t.Errorf("address %v", l.Addr())
	}
	client, server := s.connect(t, l)
	talk(t, client, server)
	for _, e := range []*end{client, server} {
		if got := e.Info().Transport; got != s.tr.Name() {
			t.Errorf("Info says %q, Name %q", got, s.tr.Name())
		}
	}
	closeConn(t, server)
	client.wantClosed(t, transport.ErrPeerGone)
}

// testManyDialers dials and accepts from many goroutines at once; each connection
// must join one dialer to one accepted end.
func (s listenerSuite) testManyDialers(t *testing.T) {
	const n = 24
	l := s.listen(t, s.addr(t))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range n / 4 {
				c, err := l.Accept()
				if err != nil {
					t.Errorf("accept: %v", err)
					return
				}
				e := &end{c, newSink(t)}
				e.Start(e.sink)
				wg.Go(func() {
					defer c.Close()
					r := e.next(t)
					defer r.release()
					if err := c.Write(nil, r.h, nil, r.b.B); err != nil {
						t.Errorf("write: %v", err)
					}
					receive(t, e.closed, "end of the dialer's connection")
				})
			}
		})
	}
	for i := range uint64(n) {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			c, err := s.tr.Dial(ctx, l.Addr().String())
			if err != nil {
				t.Errorf("dial: %v", err)
				return
			}
			defer c.Close()
			e := &end{c, newSink(t)}
			e.Start(e.sink)
			if err := c.Write(nil, streamHeader(i), nil, nil); err != nil {
				t.Errorf("write: %v", err)
				return
			}
			r := e.next(t)
			defer r.release()
			if r.h.Stream != i {
				t.Errorf("dialer %d got the frame of %d", i, r.h.Stream)
			}
		})
	}
	receive(t, background(wg.Wait), "dialers")
}

func (s listenerSuite) testNobodyListens(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if c, err := s.tr.Dial(ctx, s.addr(t)); err == nil {
		c.Close()
		t.Error("dialed where nobody listens")
	}
	if ctx.Err() != nil {
		t.Error("Dial waited for its context where nobody listens")
	}
}

func (s listenerSuite) testDialCanceled(t *testing.T) {
	l := s.listen(t, s.addr(t))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if c, err := s.tr.Dial(ctx, l.Addr().String()); err == nil {
		c.Close()
		t.Error("dialed with a canceled context")
	}
	client, server := s.connectPast(t, l)
	talk(t, client, server)
}

// connectPast connects to a listener that may still see dialers that have given
// up: an accepted end that is gone is skipped.
func (s listenerSuite) connectPast(t *testing.T, l transport.Listener) (client, server *end) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	dialed := make(chan *end, 1)
	go func() {
		c, err := s.tr.Dial(ctx, l.Addr().String())
		if err != nil {
			t.Errorf("dial: %v", err)
			close(dialed)
			return
		}
		e := &end{c, newSink(t)}
		e.Start(e.sink)
		if err := c.Write(nil, streamHeader(99), nil, nil); err != nil {
			t.Errorf("write: %v", err)
		}
		dialed <- e
	}()
	for {
		c, err := l.Accept()
		if err != nil {
			t.Fatalf("accept: %v", err)
		}
		t.Cleanup(func() { closeConn(t, c) })
		e := &end{c, newSink(t)}
		e.Start(e.sink)
		select {
		case <-e.more:
			server, client = e, receive(t, dialed, "Dial")
			if client == nil {
				t.FailNow()
			}
			t.Cleanup(func() { closeConn(t, client) })
			e.next(t).release()
			return client, server
		case <-e.closed:
		case <-time.After(patience):
			lost(t, "dialer's frame")
		}
	}
}

// testNotAccepted dials a listener that does not accept: Dial ends with its
// context. Connections to the same listener work afterwards.
func (s listenerSuite) testNotAccepted(t *testing.T) {
	l := s.listen(t, s.addr(t))
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	receive(t, background(func() {
		c, err := s.tr.Dial(ctx, l.Addr().String())
		if err == nil {
			c.Close() // a transport may accept on its own
			return
		}
		wantCause(t, "Dial", err, context.DeadlineExceeded)
	}), "Dial beyond its deadline")
	client, server := s.connectPast(t, l)
	talk(t, client, server)
}

func (s listenerSuite) testCloseEndsAccept(t *testing.T) {
	l := s.listen(t, s.addr(t))
	errs := make(chan error, 3)
	for range cap(errs) {
		go func() {
			_, err := l.Accept()
			errs <- err
		}()
	}
	closeListener(t, l)
	for range cap(errs) {
		wantCause(t, "Accept", receive(t, errs, "Accept"), net.ErrClosed)
	}
	_, err := l.Accept()
	wantCause(t, "Accept after Close", err, net.ErrClosed)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { closeListener(t, l) })
	}
	wg.Wait()
}

func (s listenerSuite) testCloseKeepsConns(t *testing.T) {
	l := s.listen(t, s.addr(t))
	client, server := s.connect(t, l)
	closeListener(t, l)
	talk(t, client, server)
}

// testCloseEndsDialers closes a listener with dialers nobody accepted: each Dial
// fails, or its connection ends.
func (s listenerSuite) testCloseEndsDialers(t *testing.T) {
	l := s.listen(t, s.addr(t))
	var wg sync.WaitGroup
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for range 4 {
		wg.Go(func() {
			c, err := s.tr.Dial(ctx, l.Addr().String())
			if err != nil {
				if errors.Is(err, context.DeadlineExceeded) {
					t.Error("Dial outlives the listener")
				}
				return
			}
			defer c.Close()
			in := newSink(t)
			c.Start(in)
			receive(t, in.closed, "end of a connection nobody accepted")
		})
	}
	time.AfterFunc(20*time.Millisecond, func() { l.Close() })
	receive(t, background(wg.Wait), "dialers")
}

func (s listenerSuite) testAddressInUse(t *testing.T) {
	l := s.listen(t, s.addr(t))
	if second, err := s.tr.Listen(l.Addr().String()); err == nil {
		second.Close()
		t.Error("two listeners on one address")
	}
	client, server := s.connect(t, l)
	talk(t, client, server)
}

func (s listenerSuite) testListenAgain(t *testing.T) {
	addr := s.addr(t)
	for range 3 {
		l := s.listen(t, addr)
		client, server := s.connect(t, l)
		talk(t, client, server)
		closeListener(t, l)
	}
}
