package stile

import (
	"context"
	"net"
	"path/filepath"
	"sync"
	"testing"

	pb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/stile-ipc/stile/internal/spans"
	"github.com/stile-ipc/stile/telemetry"
	"github.com/stile-ipc/stile/transport"
	"github.com/stile-ipc/stile/transport/local"
	"github.com/stile-ipc/stile/transport/wire"
)

// TestTracedByStranger: a client may say of any trace that its call is in it, and a server takes its word for it; of a client that does not choose, calls are roots.
func TestTracedByStranger(t *testing.T) {
	target, _, _ := startServer(t, &echo{})
	take := tracing(t)
	said := wire.Trace{ID: [16]byte{1, 15: 2}, Span: 7}
	for framing, of := range map[string]*wire.Trace{"shm": &said, "unix": nil} {
		l := newLiar(t, target, framing)
		l.open(1, wire.Call{Method: unaryMethod, Trace: of}, wire.FlagHalfClose, framed(0, nil))
		l.ended(1, 0)
		s := take(1)[0]
		if s.Link.Side != telemetry.Server || of != nil && (s.Trace != said.ID || s.Parent != said.Span || s.Weight != 0) || of == nil && (s.Parent != 0 || s.Weight != 1 || s.Trace == (spans.TraceID{})) {
			t.Errorf("%s: %+v", framing, s)
		}
	}
}

// catcher is a server that answers nothing, and remembers the calls that come.
type catcher struct {
	mu    sync.Mutex
	calls []wire.Call
	more  chan struct{}
}

func (c *catcher) HandleClose(error) {}

func (c *catcher) HandleFrame(h wire.Header, b *wire.Buf) {
	defer b.Release()
	if h.Flags&wire.FlagCall == 0 {
		return
	}
	section, _, err := wire.CutSection(b.B)
	call, perr := wire.ParseCall(section, defaultHeaderList)
	if err == nil && perr == nil {
		c.mu.Lock()
		c.calls = append(c.calls, call)
		c.mu.Unlock()
	}
	c.more <- struct{}{}
}

// catch listens with settings, and returns a client of it.
func catch(t *testing.T, s settings) (*catcher, pb.TestServiceClient) {
	t.Helper()
	dir := t.TempDir()
	lis, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lis.Close() })
	keys, err := local.KeysForListener(lis)
	if err != nil {
		t.Fatal(err)
	}
	doors := filepath.Join(dir, "doors")
	l, err := local.Listen(local.ListenConfig{Dir: doors, Keys: keys, Settings: s.encode()})
	if err != nil {
		t.Fatal(err)
	}
	c := &catcher{more: make(chan struct{}, 10)}
	conns := make(chan transport.Conn, 1)
	go func() {
		if conn, err := l.Accept(); err == nil {
			conn.Start(c)
			conns <- conn
		}
		close(conns)
	}()
	t.Cleanup(func() {
		_ = l.Close()
		for conn := range conns {
			_ = conn.Close()
		}
	})
	return c, dialTest(t, "unix://"+lis.Addr().String(), WithDir(doors))
}

// TestTracedOldServer: a trace is sent to servers that read it, and for calls that are in one.
func TestTracedOldServer(t *testing.T) {
	for _, reads := range []bool{true, false} {
		c, client := catch(t, settings{maxStreams: 100, maxHeaderList: defaultHeaderList, readsTraces: reads})
		take := tracing(t)
		for _, is := range []bool{true, false} {
			if !is {
				traced.Stop()
			}
			ctx, cancel := context.WithCancel(testContext(t))
			done := make(chan struct{})
			go func() {
				_, _ = client.UnaryCall(ctx, &pb.SimpleRequest{})
				close(done)
			}()
			<-c.more
			cancel()
			<-done
			c.mu.Lock()
			got := c.calls[len(c.calls)-1].Trace
			c.mu.Unlock()
			if (got != nil) != (reads && is) {
				t.Errorf("reads %t, traced %t: %+v was sent", reads, is, got)
			}
			if is {
				if s := take(1)[0]; s.Ended != spans.Cancelled || got != nil && (*got != wire.Trace{ID: s.Trace, Span: s.ID}) {
					t.Errorf("%+v, sent %+v", s, got)
				}
			}
		}
	}
}

// TestSettingsOfTraces: that a server reads traces is found behind what earlier clients know, and is not there in what earlier servers say.
func TestSettingsOfTraces(t *testing.T) {
	for _, want := range []settings{{maxStreams: 1, readsTraces: true}, {maxStreams: 1}} {
		b := want.encode()
		if got, err := parseSettings(b); err != nil || got != want {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
		if got, err := parseSettings(append(b, 0x80, 1, 2)); err != nil || got.readsTraces != want.readsTraces { // of a newer server
			t.Errorf("%+v, %v", got, err)
		}
	}
}
