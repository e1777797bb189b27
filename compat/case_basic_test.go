package compat

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// basicCases: the four kinds of call, their order of events, their ends.
var basicCases = []diffCase{
	{name: "proof/local", run: proveLocal},
	{name: "unary/plain", run: func(e *env) {
		e.serve(nil)
		cc := e.dial()
		e.unaryMD(e.ctx, cc, "a")
		e.unary(e.ctx, cc, "")
	}},
	{name: "unary/sequence", run: func(e *env) {
		e.serve(nil)
		cc := e.dial()
		for i := range 50 {
			e.unary(e.ctx, cc, fmt.Sprint(i))
		}
	}},
	{name: "unary/concurrent 100", run: func(e *env) {
		e.serve(nil)
		cc := e.dial()
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() { e.unary(e.ctx, cc, fmt.Sprint(i)) })
		}
		wg.Wait()
		e.sortLane("client")
	}},
	{name: "unary/two clients", run: func(e *env) {
		e.serve(nil)
		a, b := e.dial(), e.dial()
		e.unary(e.ctx, a, "a")
		e.unary(e.ctx, b, "b")
		a.Close()
		e.unary(e.ctx, b, "b again")
	}},
	{name: "unary/after conn close", run: func(e *env) {
		e.serve(nil)
		cc := e.dial()
		e.unary(e.ctx, cc, "a")
		cc.Close()
		e.unary(e.ctx, cc, "b")
		e.open(e.ctx, cc, bidiMethod)
	}},
	{name: "unary/close conn during call", run: func(e *env) {
		in := make(chan struct{})
		e.serve(&service{unary: func(ctx context.Context, m *msg) (*msg, error) {
			close(in)
			<-ctx.Done()
			e.s("ctx %v", ctx.Err())
			return nil, ctx.Err()
		}})
		cc := e.dial()
		done := make(chan struct{})
		go func() { defer close(done); e.unary(e.ctx, cc, "a") }()
		within(e, "the handler", in)
		cc.Close()
		within(e, "the call", done)
	}},
	{name: "unary/reply reused", run: func(e *env) {
		// A reply that already holds something is reset, not merged.
		e.serve(&service{unary: func(context.Context, *msg) (*msg, error) { return str(""), nil }})
		out := str("old")
		err := e.dial().Invoke(e.ctx, unaryMethod, str("a"), out)
		e.c("%q %s", out.GetValue(), errText(err))
	}},
	{name: "unary/nil reply", run: func(e *env) {
		e.serve(&service{unary: func(context.Context, *msg) (*msg, error) { return nil, nil }})
		e.unaryMD(e.ctx, e.dial(), "a")
	}},
	{name: "unary/request not a message", run: func(e *env) {
		e.serve(nil)
		cc := e.dial()
		err := cc.Invoke(e.ctx, unaryMethod, "text", new(msg))
		e.c("%s", errText(err))
		err = cc.Invoke(e.ctx, unaryMethod, str("a"), new(string))
		e.c("%s", codeText(err))
		err = cc.Invoke(e.ctx, unaryMethod, str("\xff"), new(msg))
		e.c("%s", errText(err))
		e.unary(e.ctx, cc, "still alive")
	}},
	{name: "unary/handler keeps request", run: func(e *env) {
		// What the handler was given stays intact after it returned. And what it
		// wrote before it answered, the caller may read: grpc-go's connections order
		// the two for the race detector, and tests out there rely on it.
		var kept []*msg
		e.serve(&service{unary: func(_ context.Context, in *msg) (*msg, error) {
			kept = append(kept, in)
			return in, nil
		}})
		cc := e.dial()
		for i := range 20 {
			e.unary(e.ctx, cc, strings.Repeat(fmt.Sprint(i), 1000))
		}
		for _, m := range kept {
			e.s("%s", brief(m.GetValue()))
		}
	}},
	{name: "client stream/sum", run: func(e *env) {
		e.serve(e.streams(func(s *sstream) error {
			n := 0
			for {
				_, err := s.recv()
				if err == io.EOF {
					return s.send(fmt.Sprint(n))
				}
				if err != nil {
					return err
				}
				n++
			}
		}))
		cs := e.open(e.ctx, e.dial(), clientMethod)
		for i := range 5 {
			cs.send(fmt.Sprint(i))
		}
		cs.closeSend()
		cs.recv()
		cs.recv()
		cs.trailer()
	}},
	{name: "client stream/empty", run: func(e *env) {
		e.serve(e.streams(func(s *sstream) error {
			s.recv()
			return s.send("none")
		}))
		cs := e.open(e.ctx, e.dial(), clientMethod)
		cs.closeSend()
		cs.recv()
	}},
	{name: "server stream/five", run: func(e *env) {
		e.serve(e.streams(func(s *sstream) error {
			s.recv()
			for i := range 5 {
				s.send(fmt.Sprint(i))
			}
			return nil
		}))
		cs := e.open(e.ctx, e.dial(), serverMethod)
		cs.send("go")
		cs.closeSend()
		cs.drain()
		cs.recv() // EOF stays EOF
		cs.recv()
		cs.trailer()
	}},
	{name: "server stream/none", run: func(e *env) {
		e.serve(e.streams(func(s *sstream) error { s.recv(); return nil }))
		cs := e.open(e.ctx, e.dial(), serverMethod)
		cs.send("go")
		cs.closeSend()
		cs.header()
		cs.drain()
		cs.recv()
	}},
	{name: "server stream/error after two", run: func(e *env) {
		e.serve(e.streams(func(s *sstream) error {
			s.recv()
			s.send("1")
			s.send("2")
			return status.Error(codes.DataLoss, "gone")
		}))
		cs := e.open(e.ctx, e.dial(), serverMethod)
		cs.send("go")
		cs.closeSend()
		cs.drain()
		cs.recv() // the same error again
		cs.header()
		cs.trailer()
	}},
	{name: "bidi/ping pong", run: func(e *env) {
		e.serve(e.echo())
		cs := e.open(e.ctx, e.dial(), bidiMethod)
		for i := range 10 {
			cs.send(fmt.Sprint(i))
			cs.recv()
		}
		cs.closeSend()
		cs.recv()
		cs.recv()
	}},
	{name: "bidi/server first", run: func(e *env) {
		e.serve(e.streams(func(s *sstream) error {
			s.send("hello")
			s.recv()
			s.recv()
			return nil
		}))
		cs := e.open(e.ctx, e.dial(), bidiMethod)
		cs.recv()
		cs.send("hi")
		cs.closeSend()
		cs.recv()
	}},
	{name: "bidi/server ends first", run: func(e *env) {
		e.serve(e.streams(func(s *sstream) error { s.recv(); return nil }))
		cs := e.open(e.ctx, e.dial(), bidiMethod)
		cs.send("1")
		cs.recv()
		e.c("send after the end: %s", errText(cs.SendMsg(str("2"))))
		cs.closeSend()
		cs.recv()
	}},
	{name: "bidi/server fails first", run: func(e *env) {
		e.serve(e.streams(func(*sstream) error { return status.Error(codes.Aborted, "no") }))
		cs := e.open(e.ctx, e.dial(), bidiMethod)
		cs.recv()
		cs.send("late")
		cs.recv()
		cs.trailer()
	}},
	{name: "bidi/send into an early end", run: func(e *env) {
		// SendMsg reports io.EOF once the server has ended; the status is RecvMsg's.
		e.serve(e.streams(func(*sstream) error { return status.Error(codes.FailedPrecondition, "enough") }))
		cs := e.open(e.ctx, e.dial(), bidiMethod)
		var err error
		for err == nil {
			err = cs.SendMsg(str("x"))
		}
		e.c("send: %s", errText(err))
		cs.recv()
	}},
	{name: "bidi/100 streams at once", run: func(e *env) {
		e.serve(&service{stream: func(ss grpc.ServerStream) error {
			for {
				m := new(msg)
				if err := ss.RecvMsg(m); err != nil {
					return nil
				}
				if err := ss.SendMsg(m); err != nil {
					return err
				}
			}
		}})
		cc := e.dial()
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() { e.c("stream %d: %v", i, pingPong(e.ctx, cc, fmt.Sprint(i), 10)) })
		}
		wg.Wait()
		e.sortLane("client")
	}},
	{name: "bidi/send and receive at once", run: func(e *env) {
		e.serve(&service{stream: func(ss grpc.ServerStream) error {
			for {
				m := new(msg)
				if err := ss.RecvMsg(m); err != nil {
					return nil
				}
				if err := ss.SendMsg(m); err != nil {
					return err
				}
			}
		}})
		cs := e.open(e.ctx, e.dial(), bidiMethod)
		sent := make(chan error, 1)
		go func() {
			for i := range 500 {
				if err := cs.SendMsg(str(strings.Repeat("x", i*10))); err != nil {
					sent <- err
					return
				}
			}
			sent <- cs.CloseSend()
		}()
		n, bytes := 0, 0
		m := new(msg)
		err := cs.RecvMsg(m)
		for ; err == nil; err = cs.RecvMsg(m) {
			n, bytes = n+1, bytes+len(m.GetValue())
		}
		e.c("%d messages, %d bytes, then %s; sender: %s", n, bytes, errText(err), errText(<-sent))
	}},
}

// pingPong is a stream of n echoes of text; it says what went wrong.
func pingPong(ctx context.Context, cc *grpc.ClientConn, text string, n int) error {
	cs, err := cc.NewStream(ctx, clientDesc(bidiMethod), bidiMethod)
	if err != nil {
		return err
	}
	for range n {
		if err := cs.SendMsg(str(text)); err != nil {
			return err
		}
		m := new(msg)
		if err := cs.RecvMsg(m); err != nil {
			return err
		}
		if m.GetValue() != text {
			return fmt.Errorf("got %q for %q", m.GetValue(), text)
		}
	}
	cs.CloseSend()
	if err := cs.RecvMsg(new(msg)); !errors.Is(err, io.EOF) {
		return fmt.Errorf("end: %v", err)
	}
	return nil
}

// proveLocal checks that both sides see a peer whose identity is not that of an
// insecure HTTP/2 connection, and (through runCase) that none was accepted.
func proveLocal(e *env) {
	kind := func(side string, p *peer.Peer) {
		if p == nil || p.Addr == nil {
			e.t.Errorf("%s: incomplete peer %+v", side, p)
			return
		}
		auth := "none" // grpc-go's server says nothing of an insecure client
		if p.AuthInfo != nil {
			auth = p.AuthInfo.AuthType()
		}
		if http := auth == "none" || auth == "insecure"; http == e.door.local {
			e.t.Errorf("%s: peer is %s, AuthType %q", side, p.Addr, auth)
		}
		if by := carrier(p.AuthInfo); by != e.door.carries {
			e.t.Errorf("%s: carried by %q, not %q", side, by, e.door.carries)
		}
		e.add(side, "peer network %s", p.Addr.Network())
	}
	e.serve(&service{
		unary: func(ctx context.Context, _ *msg) (*msg, error) {
			p, _ := peer.FromContext(ctx)
			kind("server", p)
			return str(""), nil
		},
		stream: func(ss grpc.ServerStream) error {
			p, _ := peer.FromContext(ss.Context())
			kind("server", p)
			return nil
		},
	})
	cc := e.dial()
	var p peer.Peer
	e.unary(e.ctx, cc, "a", grpc.Peer(&p))
	kind("client", &p)
	cs := e.open(e.ctx, cc, bidiMethod)
	cs.recv()
	sp, _ := peer.FromContext(cs.Context())
	kind("client", sp)
}
