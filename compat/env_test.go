package compat

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// patience bounds waits that must end; passing it means a hang.
const patience = time.Minute

// env is one case on one door: its server, its client and its transcript.
type env struct {
	transcript
	t      *testing.T
	door   door
	path   string // of the server's unix socket
	lis    *countingListener
	srv    server
	svc    *service
	ctx    context.Context
	served chan error
	conns  []*grpc.ClientConn
	extra  []server // stopped with the case
}

func newEnv(t *testing.T, d door) *env {
	// A unix socket path has at most 107 bytes, too few for t.TempDir of a
	// deeply nested subtest.
	dir, err := os.MkdirTemp("", "compat")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return &env{t: t, door: d, path: filepath.Join(dir, "s"), ctx: ctx}
}

func (e *env) target() string { return "unix:" + e.path }

// c writes to the client's lane, s to the server's.
func (e *env) c(format string, args ...any) { e.add("client", format, args...) }
func (e *env) s(format string, args ...any) { e.add("server", format, args...) }

// serve starts the test service with svc's handlers.
func (e *env) serve(svc *service, opts ...grpc.ServerOption) {
	e.serveWith(svc, nil, opts...)
}

// serveWith also lets the case register more on the server before it serves.
func (e *env) serveWith(svc *service, register func(server), opts ...grpc.ServerOption) {
	if svc == nil {
		svc = &service{}
	}
	l, err := net.Listen("unix", e.path)
	if err != nil {
		e.t.Error(err)
		return
	}
	e.serveOn(l, svc, register, opts...)
}

// serveOn is serveWith on any listener.
func (e *env) serveOn(l net.Listener, svc *service, register func(server), opts ...grpc.ServerOption) {
	e.svc = svc
	e.srv = e.door.newServer(opts...)
	e.srv.RegisterService(&testServiceDesc, svc)
	if register != nil {
		register(e.srv)
	}
	e.lis = newCountingListener(l)
	e.served = make(chan error, 1)
	go func() { e.served <- e.srv.Serve(e.lis) }()
	select {
	case <-e.lis.serving:
	case <-time.After(patience):
		e.t.Error("the server does not accept")
	}
}

// dial makes a client of the door's kind; it closes with the case.
func (e *env) dial(opts ...grpc.DialOption) *grpc.ClientConn {
	e.t.Helper()
	return e.dialTo(e.target(), opts...)
}

func (e *env) dialTo(target string, opts ...grpc.DialOption) *grpc.ClientConn {
	e.t.Helper()
	cc, err := e.tryDialTo(target, opts...)
	if err != nil {
		e.t.Errorf("dial: %v", err)
		panic(stopCase{})
	}
	return cc
}

func (e *env) tryDial(opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	return e.tryDialTo(e.target(), opts...)
}

func (e *env) tryDialTo(target string, opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	all := append([]grpc.DialOption{insecureOption()}, opts...)
	cc, err := e.door.newClient(target, all...)
	if err == nil {
		e.conns = append(e.conns, cc)
	}
	return cc, err
}

func insecureOption() grpc.DialOption {
	return grpc.WithTransportCredentials(insecure.NewCredentials())
}

// stopCase ends a case that cannot go on; the failure is already reported.
type stopCase struct{}

// within waits for ch, or reports a hang.
func within[T any](e *env, what string, ch <-chan T) (v T) {
	select {
	case v = <-ch:
	case <-time.After(patience):
		e.t.Errorf("hang: waited for %s", what)
		panic(stopCase{})
	}
	return v
}

// close ends clients and server and waits for the handlers.
func (e *env) close() {
	for _, cc := range e.conns {
		cc.Close()
	}
	if e.srv == nil {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, s := range e.extra {
			s.Stop()
		}
		e.srv.Stop()
		if e.served != nil {
			<-e.served
		}
		e.svc.wait()
	}()
	select {
	case <-done:
	case <-time.After(patience):
		e.t.Error("hang: Stop, Serve or a handler did not return")
	}
}

// checkLocal fails the test if a local door let a call through HTTP/2.
func (e *env) checkLocal() {
	if !e.door.local || e.lis == nil {
		return
	}
	if n := e.lis.accepted.Load(); n != 0 {
		e.t.Errorf("not local: %d HTTP/2 connection(s) accepted\n%s", n, journal.about(e.path))
	}
}

// runCase runs one case on one door and returns its transcript.
func runCase(t *testing.T, d door, c diffCase) map[string][]string {
	e := newEnv(t, d)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if r := recover(); r != nil {
				if _, ok := r.(stopCase); !ok {
					// As where a stream did not open: the transcript says so.
					t.Errorf("the case panicked: %v\n%s", r, debug.Stack())
				}
			}
		}()
		c.run(e)
	}()
	select {
	case <-done:
	case <-time.After(2 * patience):
		t.Error("hang: the case does not end")
		return e.copy()
	}
	e.close()
	if !c.remote {
		e.checkLocal()
	}
	return e.copy()
}
