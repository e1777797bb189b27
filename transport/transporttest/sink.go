package transporttest

import (
	"bytes"
	"os"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/stile-ipc/stile/transport"
	"github.com/stile-ipc/stile/transport/wire"
)

// patience is how long something that must happen is awaited before the test
// calls it lost.
var patience = 60 * time.Second

// received is one delivered frame.
type received struct {
	h wire.Header
	b *wire.Buf
}

func (r received) release() { r.b.Release() }

// sink is a [transport.Handler] that keeps, or hands to onFrame, what it is given,
// and checks the contract of the calls themselves.
type sink struct {
	t       *testing.T
	onFrame func(wire.Header, *wire.Buf) // set before Start; owns the buffer
	gate    chan struct{}                // if not nil, each HandleFrame waits for it to close

	inside atomic.Int32
	count  atomic.Int64
	closed chan struct{}
	err    error // of HandleClose, after closed

	mu     sync.Mutex
	frames []received
	more   chan struct{} // capacity 1
}

func newSink(t *testing.T) *sink {
	return &sink{t: t, closed: make(chan struct{}), more: make(chan struct{}, 1)}
}

func (s *sink) enter(call string) {
	if s.inside.Add(1) != 1 {
		s.t.Errorf("%s is called while another call of the handler runs", call)
	}
	select {
	case <-s.closed:
		s.t.Errorf("%s is called after HandleClose", call)
	default:
	}
}

func (s *sink) HandleFrame(h wire.Header, b *wire.Buf) {
	s.enter("HandleFrame")
	defer s.inside.Add(-1)
	n := len(b.B)
	if b.Tail != nil {
		n += len(b.Tail.B)
	}
	if int(h.Len) != n {
		s.t.Errorf("header says %d payload bytes, buffer has %d", h.Len, n)
	}
	if s.gate != nil {
		<-s.gate
	}
	s.count.Add(1)
	if s.onFrame != nil {
		s.onFrame(h, b)
		return
	}
	s.mu.Lock()
	s.frames = append(s.frames, received{h, b})
	s.mu.Unlock()
	select {
	case s.more <- struct{}{}:
	default:
	}
}

func (s *sink) HandleClose(err error) {
	s.enter("HandleClose")
	defer s.inside.Add(-1)
	if err == nil {
		s.t.Error("HandleClose without an error")
	}
	select {
	case <-s.closed:
	default:
		s.err = err
		close(s.closed)
	}
}

// next waits for the oldest frame not taken yet.
func (s *sink) next(t *testing.T) received {
	t.Helper()
	timeout := time.After(patience)
	closed := s.closed
	for {
		s.mu.Lock()
		if len(s.frames) > 0 {
			r := s.frames[0]
			s.frames = s.frames[1:]
			s.mu.Unlock()
			return r
		}
		s.mu.Unlock()
		if closed == nil {
			t.Fatalf("connection ended (%v) before the frame arrived", s.err)
		}
		select {
		case <-s.more:
		case <-closed:
			closed = nil // look once more
		case <-timeout:
			lost(t, "frame")
		}
	}
}

// wantClosed waits for HandleClose and checks its cause.
func (s *sink) wantClosed(t *testing.T, want error) {
	t.Helper()
	receive(t, s.closed, "HandleClose")
	wantCause(t, "HandleClose", s.err, want)
}

// end is a connection's end with its sink.
type end struct {
	transport.Conn
	*sink
}

func (e *end) mustWrite(t *testing.T, h wire.Header, body []byte) {
	t.Helper()
	if err := e.Write(nil, h, nil, body); err != nil {
		t.Fatalf("write: %v", err)
	}
}

func streamHeader(id uint64) wire.Header {
	return wire.Header{Type: wire.TypeStream, Stream: id}
}

// receive waits for ch, which the named thing sends on or closes.
func receive[T any](t *testing.T, ch <-chan T, what string) T {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case v := <-ch:
		return v
	case <-timer.C:
		lost(t, what)
		panic("not reached")
	}
}

// lost ends the test with every goroutine's stack.
func lost(t *testing.T, what string) {
	t.Helper()
	var stacks bytes.Buffer
	pprof.Lookup("goroutine").WriteTo(&stacks, 1)
	t.Fatalf("%s still awaited after %v\n%s", what, patience, stacks.String())
}

// background runs f and returns a channel that closes when it has returned.
func background(f func()) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	return done
}

// closeConn closes c, which must come to an end.
func closeConn(t *testing.T, c transport.Conn) {
	t.Helper()
	receive(t, background(func() {
		if err := c.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}), "Close")
}

// resources is what the process held at one moment.
type resources struct {
	goroutines goleak.Option
	fds        int
	memfds     int // mappings of memfds
}

func countResources(t *testing.T) resources {
	t.Helper()
	r := resources{goroutines: goleak.IgnoreCurrent()}
	r.fds, r.memfds = countKernel(t)
	return r
}

// countKernel counts descriptors and memfd mappings, on Linux.
func countKernel(t *testing.T) (fds, memfds int) {
	t.Helper()
	if runtime.GOOS != "linux" {
		return 0, 0
	}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries), strings.Count(string(maps), "/memfd:")
}

// verify checks that no more is held than was. What a goroutine that is just
// ending gives back is awaited.
func (r resources) verify(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(patience / 10)
	for err := goleak.Find(r.goroutines); err != nil; err = goleak.Find(r.goroutines) {
		if time.Now().After(deadline) {
			t.Error(err)
			break
		}
	}
	for ; ; time.Sleep(5 * time.Millisecond) {
		fds, memfds := countKernel(t)
		if fds <= r.fds && memfds <= r.memfds {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("%d file descriptors, were %d; %d memfd mappings, were %d", fds, r.fds, memfds, r.memfds)
			return
		}
	}
}
