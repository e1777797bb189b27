package compat

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// soon is a deadline that passes within a case.
const soon = 100 * time.Millisecond

// waits is a service whose handlers say that they run, wait for the end of their
// context and say that too; then they wait for release, so that their answer
// cannot race the client's own end.
type waits struct {
	service
	entered, ended, release chan struct{}
}

func newWaits() *waits {
	w := &waits{entered: make(chan struct{}, 100), ended: make(chan struct{}, 100), release: make(chan struct{})}
	wait := func(ctx context.Context) error {
		w.entered <- struct{}{}
		<-ctx.Done()
		w.ended <- struct{}{}
		<-w.release
		return status.FromContextError(ctx.Err()).Err()
	}
	w.unary = func(ctx context.Context, _ *msg) (*msg, error) { return nil, wait(ctx) }
	w.stream = func(ss grpc.ServerStream) error { return wait(ss.Context()) }
	return w
}

var deadlineCases = []diffCase{
	{name: "deadline/already expired", run: func(e *env) {
		e.serve(nil)
		cc := e.dial()
		ctx, cancel := context.WithDeadline(e.ctx, time.Now().Add(-time.Second))
		defer cancel()
		e.unaryMD(ctx, cc, "")
		e.open(ctx, cc, bidiMethod)
		e.unary(e.ctx, cc, "alive")
	}},
	{name: "deadline/during unary", run: func(e *env) {
		w := newWaits()
		e.serve(&w.service)
		cc := e.warm(e.dial())
		ctx, cancel := context.WithTimeout(e.ctx, soon)
		defer cancel()
		e.unaryMD(ctx, cc, "")
		within(e, "the handler's context", w.ended)
		close(w.release)
	}},
	{name: "deadline/during stream", run: func(e *env) {
		w := newWaits()
		e.serve(&w.service)
		cc := e.warm(e.dial())
		ctx, cancel := context.WithTimeout(e.ctx, soon)
		defer cancel()
		cs := e.open(ctx, cc, bidiMethod)
		cs.recv()
		cs.recv()
		cs.header()
		cs.trailer()
		within(e, "the handler's context", w.ended)
		close(w.release)
	}},
	{name: "deadline/after header and message", run: func(e *env) {
		release := make(chan struct{})
		e.serve(e.streams(func(s *sstream) error {
			s.SetTrailer(metadata.Pairs("t", "1"))
			s.SendHeader(metadata.Pairs("h", "1"))
			s.send("x")
			<-s.Context().Done()
			<-release
			return nil
		}))
		cc := e.warm(e.dial())
		ctx, cancel := context.WithTimeout(e.ctx, 4*soon)
		defer cancel()
		cs := e.open(ctx, cc, bidiMethod)
		cs.header()
		cs.recv()
		cs.recv()
		cs.header()
		cs.trailer()
		close(release)
	}},
	{name: "deadline/known to the server", run: func(e *env) {
		e.serve(&service{unary: func(ctx context.Context, _ *msg) (*msg, error) {
			d, ok := ctx.Deadline()
			left := time.Until(d)
			e.s("deadline %v, within tolerance %v", ok, left > 50*time.Second && left <= 60*time.Second)
			return str(""), nil
		}})
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		e.unary(ctx, e.dial(), "")
	}},
	{name: "deadline/none at the server", run: func(e *env) {
		e.serve(&service{unary: func(ctx context.Context, _ *msg) (*msg, error) {
			_, ok := ctx.Deadline()
			e.s("deadline %v", ok)
			return str(""), nil
		}})
		e.unary(context.Background(), e.dial(), "")
	}},
	{name: "deadline/very far", run: func(e *env) {
		e.serve(&service{unary: func(ctx context.Context, _ *msg) (*msg, error) {
			d, ok := ctx.Deadline()
			e.s("deadline %v, far %v", ok, time.Until(d) > 1000*time.Hour)
			return str(""), nil
		}})
		ctx, cancel := context.WithTimeout(context.Background(), 2000*time.Hour)
		defer cancel()
		e.unary(ctx, e.dial(), "")
	}},
	{name: "deadline/server returns it early", run: func(e *env) {
		e.serve(&service{unary: func(context.Context, *msg) (*msg, error) { return nil, context.DeadlineExceeded }})
		e.unary(e.ctx, e.dial(), "")
	}},
	{name: "deadline/server context with cause", run: func(e *env) {
		w := newWaits()
		e.serve(&service{unary: func(ctx context.Context, _ *msg) (*msg, error) {
			<-ctx.Done()
			err := ctx.Err()
			e.s("known error %v", errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled))
			<-w.release
			return nil, nil
		}})
		cc := e.warm(e.dial())
		ctx, cancel := context.WithTimeout(e.ctx, soon)
		defer cancel()
		e.unary(ctx, cc, "")
		close(w.release)
	}},
	{name: "cancel/before", run: func(e *env) {
		e.serve(nil)
		cc := e.dial()
		ctx, cancel := context.WithCancel(e.ctx)
		cancel()
		e.unaryMD(ctx, cc, "")
		e.open(ctx, cc, bidiMethod)
		e.unary(e.ctx, cc, "alive")
	}},
	{name: "cancel/during unary", run: func(e *env) {
		w := newWaits()
		e.serve(&w.service)
		cc := e.dial()
		ctx, cancel := context.WithCancel(e.ctx)
		go func() { <-w.entered; cancel() }()
		e.unaryMD(ctx, cc, "")
		within(e, "the handler's context", w.ended)
		close(w.release)
	}},
	{name: "cancel/with cause", run: func(e *env) {
		w := newWaits()
		e.serve(&w.service)
		ctx, cancel := context.WithCancelCause(e.ctx)
		go func() { <-w.entered; cancel(errors.New("my cause")) }()
		e.unary(ctx, e.dial(), "")
		close(w.release)
	}},
	{name: "cancel/reaches the server as Canceled", run: func(e *env) {
		ended := make(chan struct{})
		entered := make(chan struct{})
		e.serve(&service{unary: func(ctx context.Context, _ *msg) (*msg, error) {
			close(entered)
			<-ctx.Done()
			e.s("%v", ctx.Err())
			close(ended)
			return nil, nil
		}})
		ctx, cancel := context.WithCancel(context.Background())
		go func() { <-entered; cancel() }()
		e.unary(ctx, e.dial(), "")
		within(e, "the handler", ended)
	}},
	{name: "cancel/during receive", run: func(e *env) {
		w := newWaits()
		e.serve(&w.service)
		ctx, cancel := context.WithCancel(e.ctx)
		cs := e.open(ctx, e.dial(), bidiMethod)
		go func() { <-w.entered; cancel() }()
		cs.recv()
		cs.recv()
		cs.trailer()
		within(e, "the handler's context", w.ended)
		close(w.release)
	}},
	{name: "cancel/during header", run: func(e *env) {
		w := newWaits()
		e.serve(&w.service)
		ctx, cancel := context.WithCancel(e.ctx)
		cs := e.open(ctx, e.dial(), bidiMethod)
		go func() { <-w.entered; cancel() }()
		cs.header()
		cs.recv()
		close(w.release)
	}},
	{name: "cancel/during blocked send", run: func(e *env) {
		w := newWaits()
		e.serve(&w.service)
		ctx, cancel := context.WithCancel(e.ctx)
		cs := e.open(ctx, e.dial(), bidiMethod)
		go func() {
			<-w.entered
			time.AfterFunc(soon, cancel)
		}()
		big := str(string(make([]byte, 1<<20)))
		var err error
		for err == nil {
			err = cs.SendMsg(big)
		}
		e.c("send: %s", errText(err))
		cs.recv()
		close(w.release)
	}},
	{name: "cancel/server send and receive fail", run: func(e *env) {
		done := make(chan struct{})
		entered := make(chan struct{})
		e.serve(e.streams(func(s *sstream) error {
			defer close(done)
			close(entered)
			s.recv()
			<-s.Context().Done()
			var err error
			for err == nil {
				err = s.SendMsg(str("x"))
			}
			e.s("send: %s", codeText(err))
			return nil
		}))
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		cs := e.open(ctx, e.dial(), bidiMethod)
		within(e, "the handler", entered)
		cancel()
		cs.recv()
		within(e, "the handler's end", done)
	}},
	{name: "cancel/after the end", run: func(e *env) {
		e.serve(e.echo())
		ctx, cancel := context.WithCancel(e.ctx)
		cc := e.dial()
		cs := e.open(ctx, cc, bidiMethod)
		cs.send("a")
		cs.recv()
		cs.closeSend()
		cs.recv()
		cancel()
		cs.recv()
		cs.header()
		e.unary(e.ctx, cc, "alive")
	}},
	{name: "cancel/one of two", run: func(e *env) {
		e.serve(&service{stream: func(ss grpc.ServerStream) error {
			for {
				m := new(msg)
				if ss.RecvMsg(m) != nil || ss.SendMsg(m) != nil {
					return nil
				}
			}
		}})
		cc := e.dial()
		ctx, cancel := context.WithCancel(e.ctx)
		a, b := e.open(ctx, cc, bidiMethod), e.open(e.ctx, cc, bidiMethod)
		a.send("a")
		a.recv()
		b.send("b")
		b.recv()
		cancel()
		a.recv()
		b.send("b2")
		b.recv()
		b.closeSend()
		b.recv()
	}},
	{name: "cancel/handler ends with Canceled itself", run: func(e *env) {
		e.serve(e.streams(func(*sstream) error { return status.Error(codes.Canceled, "by server") }))
		cs := e.open(e.ctx, e.dial(), bidiMethod)
		cs.recv()
	}},
	{name: "cancel/handler context ends with the handler", run: func(e *env) {
		kept := make(chan context.Context, 1)
		e.serve(&service{unary: func(c context.Context, _ *msg) (*msg, error) {
			kept <- c
			return str(""), nil
		}})
		e.unary(e.ctx, e.dial(), "")
		ctx := <-kept
		within(e, "the handler's context", ctx.Done())
		e.s("%v", ctx.Err())
	}},
	{name: "cancel/stream context", run: func(e *env) {
		// The stream's own context ends with the stream, the caller's does not.
		e.serve(e.echo())
		ctx, cancel := context.WithCancel(e.ctx)
		defer cancel()
		cs := e.open(ctx, e.dial(), bidiMethod)
		cs.closeSend()
		cs.recv()
		within(e, "the stream's context", cs.Context().Done())
		e.c("stream %v caller %v", cs.Context().Err(), ctx.Err())
	}},
}
