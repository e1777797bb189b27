package compat

import (
	"fmt"
	"io"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// answers is a service whose stream handler reads one message and sends texts.
func (e *env) answers(texts ...string) *service {
	return e.streams(func(s *sstream) error {
		s.recv()
		for _, t := range texts {
			s.send(t)
		}
		return nil
	})
}

// streamCases: half-close, cardinality, and use of a stream against its rules.
var streamCases = []diffCase{
	{name: "stream/send after CloseSend", run: func(e *env) {
		e.serve(&service{stream: func(ss grpc.ServerStream) error { // does not end before the client does
			if err := ss.RecvMsg(new(msg)); err != nil {
				return err
			}
			if err := ss.SendMsg(str("re: a")); err != nil {
				return err
			}
			<-ss.Context().Done()
			return ss.Context().Err()
		}})
		cs := e.open(e.ctx, e.dial(), bidiMethod)
		cs.send("a")
		cs.recv()
		cs.closeSend()
		cs.send("b")
		cs.recv()
		e.svc.wait()
		e.drop("server") // it sees the half-close or the cancelation first
	}},
	{name: "stream/CloseSend twice", run: func(e *env) {
		e.serve(e.echo())
		cs := e.open(e.ctx, e.dial(), bidiMethod)
		cs.closeSend()
		cs.closeSend()
		cs.recv()
		cs.closeSend()
	}},
	{name: "stream/half-close reaches the server", run: func(e *env) {
		e.serve(e.streams(func(s *sstream) error {
			s.recv()
			s.recv() // EOF
			s.recv() // EOF again
			s.send("after your end")
			s.send("still")
			return nil
		}))
		cs := e.open(e.ctx, e.dial(), bidiMethod)
		cs.send("a")
		cs.closeSend()
		cs.drain()
	}},
	{name: "stream/server does not read", run: func(e *env) {
		e.serve(e.streams(func(s *sstream) error { return s.send("did not read") }))
		cs := e.open(e.ctx, e.dial(), bidiMethod)
		cs.recv()
		cs.recv()
	}},
	{name: "stream/early return while client streams", run: func(e *env) {
		e.serve(e.streams(func(s *sstream) error {
			s.recv()
			return status.Error(codes.OutOfRange, "enough")
		}))
		cc := e.dial()
		cs := e.open(e.ctx, cc, clientMethod)
		var err error
		for err == nil {
			err = cs.SendMsg(str(strings.Repeat("x", 1000)))
		}
		e.c("send: %s", errText(err))
		cs.recv()
		e.unary(e.ctx, cc, "alive")
	}},
	{name: "stream/early OK while client streams", run: func(e *env) {
		e.serve(e.streams(func(s *sstream) error {
			s.recv()
			return s.send("done early")
		}))
		cs := e.open(e.ctx, e.dial(), clientMethod)
		cs.send("a")
		cs.recv()
		e.c("send: %s", errText(cs.SendMsg(str("late"))))
	}},
	{name: "cardinality/client stream without answer", run: func(e *env) {
		e.serve(e.answers())
		cs := e.open(e.ctx, e.dial(), clientMethod)
		cs.send("a")
		cs.closeSend()
		cs.recv()
		cs.recv()
	}},
	{name: "cardinality/client stream with two answers", run: func(e *env) {
		e.serve(e.answers("1", "2"))
		cs := e.open(e.ctx, e.dial(), clientMethod)
		cs.send("a")
		cs.closeSend()
		cs.recv()
	}},
	{name: "cardinality/client stream answer, then error", run: func(e *env) {
		e.serve(e.streams(func(s *sstream) error {
			s.recv()
			s.send("1")
			return status.Error(codes.Aborted, "after all")
		}))
		cs := e.open(e.ctx, e.dial(), clientMethod)
		cs.send("a")
		cs.closeSend()
		cs.recv()
		cs.trailer()
	}},
	{name: "cardinality/server stream without request", run: func(e *env) {
		e.serve(e.streams(func(s *sstream) error {
			_, err := s.recv()
			return err
		}))
		cs := e.open(e.ctx, e.dial(), serverMethod)
		cs.closeSend()
		cs.recv()
	}},
	{name: "cardinality/server stream with two requests", run: func(e *env) {
		e.serve(e.streams(func(s *sstream) error {
			_, err := s.recv()
			return err
		}))
		desc := clientDesc(bidiMethod) // so that the client may send twice
		cs, err := e.dial().NewStream(e.ctx, desc, serverMethod)
		if err != nil {
			e.c("%s", errText(err))
			return
		}
		cs.SendMsg(str("1"))
		cs.SendMsg(str("2"))
		cs.CloseSend()
		e.c("recv %s", errText(cs.RecvMsg(new(msg))))
	}},
	{name: "cardinality/unary without request", run: func(e *env) {
		e.serve(nil)
		cs := e.open(e.ctx, e.dial(), unaryMethod)
		cs.closeSend()
		cs.recv()
	}},
	{name: "cardinality/unary with two requests", run: func(e *env) {
		e.serve(nil)
		cs, err := e.dial().NewStream(e.ctx, clientDesc(bidiMethod), unaryMethod)
		if err != nil {
			e.c("%s", errText(err))
			return
		}
		cs.SendMsg(str("1"))
		cs.SendMsg(str("2"))
		cs.CloseSend()
		e.c("recv %s", codeText(cs.RecvMsg(new(msg))))
	}},
	{name: "cardinality/unary method that streams", run: func(e *env) {
		e.serve(e.answers("1", "2"))
		cc := e.dial()
		err := cc.Invoke(e.ctx, serverMethod, str("a"), new(msg))
		e.c("%s", errText(err))
	}},
	{name: "cardinality/unary method that answers nothing", run: func(e *env) {
		e.serve(e.answers())
		err := e.dial().Invoke(e.ctx, serverMethod, str("a"), new(msg))
		e.c("%s", errText(err))
	}},
	{name: "cardinality/second send on server stream", run: func(e *env) {
		e.serve(e.answers("1"))
		cs := e.open(e.ctx, e.dial(), serverMethod)
		cs.send("a")
		cs.closeSend()
		cs.drain()
	}},
	{name: "stream/zero-byte messages", run: func(e *env) {
		e.serve(e.answers("", "", "x", ""))
		cs := e.open(e.ctx, e.dial(), bidiMethod)
		cs.send("")
		cs.drain()
	}},
	{name: "stream/handler uses the stream after its end", run: func(e *env) {
		kept := make(chan *sstream, 1)
		e.serve(e.streams(func(s *sstream) error { kept <- s; return nil }))
		cs := e.open(e.ctx, e.dial(), bidiMethod)
		cs.recv()
		s := <-kept
		within(e, "the end of the stream", s.Context().Done())
		e.s("send failed %v", s.SendMsg(str("x")) != nil)
		e.s("recv failed %v", s.RecvMsg(new(msg)) != nil)
		e.s("header failed %v", s.SendHeader(metadata.Pairs("a", "b")) != nil)
	}},
	{name: "flow/one unread stream stalls only itself", run: func(e *env) {
		sent := make(chan error, 1)
		e.serve(&service{stream: func(ss grpc.ServerStream) error {
			var err error
			for range 160 {
				if err = ss.SendMsg(str(strings.Repeat("x", 64<<10))); err != nil {
					break
				}
			}
			sent <- err
			return err
		}})
		cc := e.dial()
		cs := e.open(e.ctx, cc, serverMethod)
		cs.SendMsg(str("go"))
		cs.CloseSend()
		for i := range 50 {
			e.unary(e.ctx, cc, fmt.Sprint(i))
		}
		e.s("sender still waits %v", len(sent) == 0)
		n, m := 0, new(msg)
		var err error
		for err = cs.RecvMsg(m); err == nil; err = cs.RecvMsg(m) {
			n++
		}
		e.c("%d messages then %s", n, errText(err))
		e.s("sender %s", errText(<-sent))
	}},
	{name: "flow/server that reads not stalls only itself", run: func(e *env) {
		entered, release := make(chan struct{}), make(chan struct{})
		e.serve(&service{stream: func(ss grpc.ServerStream) error {
			close(entered)
			<-release
			n := 0
			for ss.RecvMsg(new(msg)) == nil {
				n++
			}
			return ss.SendMsg(str(fmt.Sprint(n)))
		}})
		cc := e.dial()
		cs := e.open(e.ctx, cc, clientMethod)
		sent := make(chan error, 1)
		go func() {
			for range 160 {
				if err := cs.SendMsg(str(strings.Repeat("x", 64<<10))); err != nil {
					sent <- err
					return
				}
			}
			sent <- cs.CloseSend()
		}()
		within(e, "the handler", entered)
		for i := range 50 {
			e.unary(e.ctx, cc, fmt.Sprint(i))
		}
		e.c("sender still waits %v", len(sent) == 0)
		close(release)
		e.c("sender %s", errText(within(e, "the sender", sent)))
		cs.recv()
	}},
	{name: "flow/many unread streams", run: func(e *env) {
		e.serve(&service{stream: func(ss grpc.ServerStream) error {
			for {
				if err := ss.SendMsg(str(strings.Repeat("x", 16<<10))); err != nil {
					return err
				}
			}
		}})
		cc := e.dial()
		for range 10 {
			cs := e.open(e.ctx, cc, serverMethod)
			cs.SendMsg(str("go"))
			cs.CloseSend()
			cs.header()
		}
		for i := range 20 {
			e.unary(e.ctx, cc, fmt.Sprint(i))
		}
	}},
	{name: "flow/interleaved order", run: func(e *env) {
		// Each stream keeps its own order whatever the others do.
		e.serve(&service{stream: func(ss grpc.ServerStream) error {
			for i := range 200 {
				if err := ss.SendMsg(str(fmt.Sprint(i))); err != nil {
					return err
				}
			}
			return nil
		}})
		cc := e.dial()
		var all []*cstream
		for range 5 {
			cs := e.open(e.ctx, cc, serverMethod)
			cs.SendMsg(str("go"))
			cs.CloseSend()
			all = append(all, cs)
		}
		for i := range 200 {
			for j, cs := range all {
				m := new(msg)
				if err := cs.RecvMsg(m); err != nil || m.GetValue() != fmt.Sprint(i) {
					e.c("stream %d message %d: %s %v", j, i, m.GetValue(), err)
				}
			}
		}
		for _, cs := range all {
			if err := cs.RecvMsg(new(msg)); err != io.EOF {
				e.c("end: %v", err)
			}
		}
		e.c("all in order")
	}},
}
