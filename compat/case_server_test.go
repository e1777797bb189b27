package compat

import (
	"context"
	"errors"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"
)

// serviceConfig is a dial option for every method of the test service.
func serviceConfig(fields string) grpc.DialOption {
	return grpc.WithDefaultServiceConfig(`{"methodConfig":[{"name":[{"service":"compat.Test"}],` + fields + `}]}`)
}

// stops is a case that ends the server while a unary call and a stream run.
func stops(name string, stop func(server), finish bool) diffCase {
	return diffCase{name: "server/" + name, run: func(e *env) {
		entered, release := make(chan struct{}, 2), make(chan struct{})
		e.serve(&service{
			unary: func(ctx context.Context, in *msg) (*msg, error) {
				entered <- struct{}{}
				select {
				case <-release:
				case <-ctx.Done():
				}
				return in, nil
			},
			stream: func(ss grpc.ServerStream) error {
				entered <- struct{}{}
				select {
				case <-release:
				case <-ss.Context().Done():
				}
				return ss.SendMsg(str("last"))
			},
		})
		cc := e.dial()
		unary, stream := make(chan error, 1), make(chan []error, 1)
		go func() { unary <- cc.Invoke(e.ctx, unaryMethod, str("a"), new(msg)) }()
		go func() {
			cs, err := cc.NewStream(e.ctx, clientDesc(bidiMethod), bidiMethod)
			if err != nil {
				stream <- []error{err}
				return
			}
			stream <- []error{cs.RecvMsg(new(msg)), cs.RecvMsg(new(msg))}
		}()
		within(e, "the handlers", entered)
		within(e, "the handlers", entered)
		stopped := make(chan struct{})
		go func() { defer close(stopped); stop(e.srv) }()
		if finish {
			// A graceful stop takes no new call but lets the running ones end.
			within(e, "the listener's end", e.lis.closed)
			e.c("stop waits %v", !isClosed(stopped))
			close(release)
		}
		e.c("unary %s", codeText(within(e, "the call", unary)))
		for _, err := range within(e, "the stream", stream) {
			e.c("stream %s", codeText(err))
		}
		within(e, "the stop", stopped)
		ctx, cancel := context.WithTimeout(e.ctx, 10*time.Second)
		defer cancel()
		e.c("after: %s", codeText(cc.Invoke(ctx, unaryMethod, str("b"), new(msg))))
	}, remote: true}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

var serverCases = []diffCase{
	stops("stop during calls", server.Stop, false),
	stops("graceful stop during calls", server.GracefulStop, true),
	{name: "server/stop twice", run: func(e *env) {
		e.serve(nil)
		e.unary(e.ctx, e.dial(), "a")
		e.srv.GracefulStop()
		e.srv.GracefulStop()
		e.srv.Stop()
		e.s("serve %v", within(e, "Serve", e.served))
		e.served = nil
		e.s("serve again %v", errors.Is(e.srv.Serve(e.lis), grpc.ErrServerStopped))
	}},
	{name: "server/stop before serve", run: func(e *env) {
		e.svc = &service{}
		s := e.door.newServer()
		s.RegisterService(&testServiceDesc, e.svc)
		s.Stop()
		s.GracefulStop()
	}},
	{name: "server/listener closed from outside", run: func(e *env) {
		e.serve(nil)
		e.unary(e.ctx, e.dial(), "a")
		e.lis.Close()
		e.s("serve failed %v", within(e, "Serve", e.served) != nil)
		e.served = nil
	}},
	{name: "server/socket is gone after stop", run: func(e *env) {
		e.serve(nil)
		e.srv.Stop()
		_, err := os.Stat(e.path)
		e.s("gone %v", os.IsNotExist(err))
	}},
	{name: "server/restart", run: func(e *env) {
		e.serve(nil)
		cc := e.dial()
		e.unary(e.ctx, cc, "a")
		e.srv.Stop()
		within(e, "Serve", e.served)
		e.serve(nil)
		// A call may still meet the old connection's end.
		for e.ctx.Err() == nil && cc.Invoke(e.ctx, unaryMethod, str("b"), new(msg), grpc.WaitForReady(true)) != nil {
		}
		e.unary(e.ctx, cc, "c", grpc.WaitForReady(true))
	}, remote: true},
	{name: "server/not there", run: func(e *env) {
		e.svc = &service{}
		cc := e.dial()
		e.c("%s", codeText(cc.Invoke(e.ctx, unaryMethod, str("a"), new(msg))))
		_, err := cc.NewStream(e.ctx, clientDesc(bidiMethod), bidiMethod)
		e.c("%s", codeText(err))
	}},
	{name: "server/not there, wait with deadline", run: func(e *env) {
		e.svc = &service{}
		ctx, cancel := context.WithTimeout(e.ctx, soon)
		defer cancel()
		err := e.dial().Invoke(ctx, unaryMethod, str("a"), new(msg), grpc.WaitForReady(true))
		e.c("%s", codeText(err))
	}},
	{name: "server/not there, wait and cancel", run: func(e *env) {
		e.svc = &service{}
		ctx, cancel := context.WithCancel(e.ctx)
		time.AfterFunc(soon, cancel)
		err := e.dial().Invoke(ctx, unaryMethod, str("a"), new(msg), grpc.WaitForReady(true))
		e.c("%s", codeText(err))
	}},
	{name: "server/starts later", run: func(e *env) {
		cc := e.dial()
		done := make(chan error, 1)
		go func() { done <- cc.Invoke(e.ctx, unaryMethod, str("a"), new(msg), grpc.WaitForReady(true)) }()
		if _, err := os.Stat(e.path); err == nil {
			e.t.Error("the server is there already")
		}
		e.serve(nil)
		e.c("%s", errText(within(e, "the call", done)))
	}, remote: true},
	{name: "server/starts later, without waiting", run: func(e *env) {
		cc := e.dial()
		e.c("%s", codeText(cc.Invoke(e.ctx, unaryMethod, str("a"), new(msg))))
		e.serve(nil)
		cc.ResetConnectBackoff()
		e.unary(e.ctx, cc, "b", grpc.WaitForReady(true))
	}, remote: true},
	{name: "server/one stream at a time", run: func(e *env) {
		entered, release := make(chan struct{}, 2), make(chan struct{})
		e.serve(&service{unary: func(_ context.Context, in *msg) (*msg, error) {
			if in.GetValue() == "first" {
				entered <- struct{}{}
				<-release
			}
			return in, nil
		}}, grpc.MaxConcurrentStreams(1))
		cc := e.dial()
		first := make(chan error, 1)
		go func() { first <- cc.Invoke(e.ctx, unaryMethod, str("first"), new(msg)) }()
		within(e, "the first call", entered)
		ctx, cancel := context.WithTimeout(e.ctx, soon)
		defer cancel()
		e.unary(ctx, cc, "second")
		third := make(chan error, 1)
		go func() { third <- cc.Invoke(e.ctx, unaryMethod, str("third"), new(msg)) }()
		close(release)
		e.c("first %s", errText(within(e, "the first call", first)))
		e.c("third %s", errText(within(e, "the third call", third)))
	}},
	{name: "server/workers", run: func(e *env) {
		e.serve(nil, grpc.NumStreamWorkers(2))
		cc := e.dial()
		e.unary(e.ctx, cc, "a")
		e.unary(e.ctx, cc, "b")
	}},
	{name: "server/in-process tap", run: func(e *env) {
		e.serve(nil, grpc.ConnectionTimeout(time.Second))
		e.unary(e.ctx, e.dial(), "a")
	}},
	{name: "server/waits for handlers", run: func(e *env) {
		entered, left := make(chan struct{}), make(chan struct{})
		release := make(chan struct{})
		e.serve(&service{unary: func(ctx context.Context, _ *msg) (*msg, error) {
			close(entered)
			<-ctx.Done()
			<-release
			close(left)
			return nil, nil
		}}, grpc.WaitForHandlers(true))
		cc := e.dial()
		done := make(chan error, 1)
		go func() { done <- cc.Invoke(e.ctx, unaryMethod, str(""), new(msg)) }()
		within(e, "the handler", entered)
		stopped := make(chan struct{})
		go func() { defer close(stopped); e.srv.Stop() }()
		e.c("%s", codeText(within(e, "the call", done)))
		close(release)
		within(e, "the stop", stopped)
		e.s("handler left before stop returned %v", isClosed(left))
	}},
	{name: "config/timeout", run: func(e *env) {
		w := newWaits()
		e.serve(&w.service)
		// Of one method, so that warming, which connects, has its time.
		cc := e.dial(grpc.WithDefaultServiceConfig(
			`{"methodConfig":[{"name":[{"service":"compat.Test","method":"Unary"}],"timeout":"0.2s"}]}`))
		e.unary(e.ctx, e.warm(cc), "a")
		close(w.release)
	}},
	{name: "config/wait for ready", run: func(e *env) {
		e.svc = &service{}
		ctx, cancel := context.WithTimeout(e.ctx, soon)
		defer cancel()
		err := e.dial(serviceConfig(`"waitForReady":true`)).Invoke(ctx, unaryMethod, str("a"), new(msg))
		e.c("%s", codeText(err))
	}},
	{name: "config/sizes", run: func(e *env) {
		e.serve(sizes())
		cc := e.dial(serviceConfig(`"maxRequestMessageBytes":1000,"maxResponseMessageBytes":2000`))
		e.sizedCall(cc, sized(1000))
		e.sizedCall(cc, sized(1001))
		e.sizedCall(cc, str("size 2000"))
		e.sizedCall(cc, str("size 2001"))
		e.sizedCall(cc, str("size 1500"), grpc.MaxCallRecvMsgSize(1400))
	}},
	{name: "config/retry", run: func(e *env) {
		n := 0
		e.serve(&service{unary: func(context.Context, *msg) (*msg, error) {
			n++
			e.s("attempt %d", n)
			if n < 3 {
				return nil, status.Error(codes.Unavailable, "later")
			}
			return str("at last"), nil
		}})
		e.unary(e.ctx, e.dial(serviceConfig(`"retryPolicy":{"maxAttempts":4,"initialBackoff":"0.01s","maxBackoff":"0.01s","backoffMultiplier":1,"retryableStatusCodes":["UNAVAILABLE"]}`)), "a")
	}, remote: true},
	{name: "config/retries disabled", run: func(e *env) {
		e.serve(&service{unary: func(context.Context, *msg) (*msg, error) {
			e.s("attempt")
			return nil, status.Error(codes.Unavailable, "later")
		}})
		e.unary(e.ctx, e.dial(grpc.WithDisableRetry(), serviceConfig(`"retryPolicy":{"maxAttempts":4,"initialBackoff":"0.01s","maxBackoff":"0.01s","backoffMultiplier":1,"retryableStatusCodes":["UNAVAILABLE"]}`)), "a")
	}, remote: true},
	{name: "conn/close twice", run: func(e *env) {
		e.serve(nil)
		cc := e.dial()
		e.unary(e.ctx, cc, "a")
		e.c("%s", errText(cc.Close()))
		e.c("%s", errText(cc.Close()))
		e.c("shut down %v", cc.GetState() == connectivity.Shutdown)
	}},
	{name: "conn/never used", run: func(e *env) {
		e.serve(nil)
		cc := e.dial()
		e.c("idle %v", cc.GetState() == connectivity.Idle)
		e.c("%s", errText(cc.Close()))
	}},
}
