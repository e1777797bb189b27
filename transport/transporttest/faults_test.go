package transporttest

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/stile-ipc/stile/transport"
	"github.com/stile-ipc/stile/transport/inproc"
	"github.com/stile-ipc/stile/transport/wire"
)

// faultVar names the fault that TestFaulty builds in.
const faultVar = "STILE_TRANSPORTTEST_FAULT"

func TestMain(m *testing.M) {
	if os.Getenv(faultVar) != "" {
		patience = time.Second // what is lost is known to be lost
		os.Exit(m.Run())
	}
	goleak.VerifyTestMain(m)
}

// TestFaulty runs the suite on a wrapped in-process connection with the fault that
// the environment names; without one the suite must pass.
func TestFaulty(t *testing.T) {
	fault := os.Getenv(faultVar)
	Run(t, func(*testing.T) (client, server transport.Conn) {
		a, b := inproc.Pipe()
		if fault == "leak-fd" {
			leakFD()
		}
		return &faulty{Conn: a, fault: fault}, &faulty{Conn: b, fault: fault}
	})
}

var leaked []*os.File

func leakFD() {
	f, err := os.Open(os.DevNull)
	if err != nil {
		panic(err)
	}
	leaked = append(leaked, f)
}

// TestSuiteFindsFaults runs TestFaulty in a process of its own for each fault, and
// the case that must find it.
func TestSuiteFindsFaults(t *testing.T) {
	for _, c := range []struct{ fault, finder string }{
		{"drop", "Order"},
		{"duplicate", "Order"},
		{"reorder", "Order"},
		{"corrupt", "Integrity"},
		{"truncate", "Integrity"},
		{"flags", "HeaderKept"},
		{"keep-payload", "WriteCopies"},
		{"keep-buffer", "HandlerOwnsBuffers"},
		{"oversize", "Oversize"},
		{"concurrent", "ConcurrentWriters"},
		{"no-pressure", "BackPressureNotStarted"},
		{"ignore-cancel", "BackPressureNotStarted"},
		{"ignore-cancel", "BackPressureBlockedHandler"},
		{"cancel-sends", "BackPressureBlockedHandler"},
		{"cancel-sends", "BackPressureManyWriters"},
		{"close-loses", "CloseDelivers"},
		{"close-loses", "CloseDeliversToSlowReader"},
		{"close-twice", "CloseOnceAndLast"},
		{"frame-after-close", "CloseOnceAndLast"},
		{"close-early", "CloseOnceAndLast"},
		{"close-hangs", "CloseBeforeStart"},
		{"wrong-cause", "CloseOnceAndLast"},
		{"last-cause", "FailFirstCause"},
		{"poll-forever", "PollIdle"},
		{"poll-forever", "PollEnded"},
		{"poll-delivers", "PollDone"},
		{"lost-wake", "Echo1"},
		{"lost-wake", "Echo64"},
		{"deaf-when-idle", "EchoIdleGaps"},
		{"info", "Info"},
		{"leak-goroutine", "Info"},
		{"leak-fd", "NothingLeft"},
	} {
		t.Run(c.fault+"/"+c.finder, func(t *testing.T) {
			t.Parallel()
			if c.fault == "leak-fd" && runtime.GOOS != "linux" {
				return // descriptors are counted on Linux only
			}
			exe, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(exe, "-test.run=^TestFaulty$/^"+c.finder+"$")
			cmd.Env = append(os.Environ(), faultVar+"="+c.fault)
			out, err := cmd.CombinedOutput()
			found := strings.Contains(string(out), "--- FAIL: TestFaulty/"+c.finder) ||
				strings.Contains(string(out), "WARNING: DATA RACE") // the race detector found it first
			if err == nil || !found {
				t.Errorf("not found: %v\n%s", err, out)
			}
		})
	}
}

// faulty is a connection with one fault.
type faulty struct {
	transport.Conn
	fault string
	h     *faultyHandler

	mu      sync.Mutex
	sent    []byte // keep-payload
	sentHdr wire.Header
	cause   error // last-cause
	closed  atomic.Bool
	started atomic.Bool
}

func (f *faulty) Start(h transport.Handler) {
	if f.fault == "leak-goroutine" {
		go func() { select {} }()
	}
	f.started.Store(true)
	f.h = &faultyHandler{Handler: h, c: f}
	f.Conn.Start(f.h)
}

func (f *faulty) Write(cancel <-chan struct{}, h wire.Header, head, body []byte) error {
	switch f.fault {
	case "oversize":
		if len(head)+len(body) > wire.MaxPayload {
			return nil
		}
	case "no-pressure":
		if h.Len = uint32(len(body)); h.Len == pressureSize {
			return nil
		}
	case "ignore-cancel":
		cancel = nil
	case "keep-payload":
		if len(body) != copiedSize {
			break
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		old := f.sent
		oldHdr := f.sentHdr
		f.sent, f.sentHdr = body, h
		if old == nil {
			return nil
		}
		return f.Conn.Write(cancel, oldHdr, head, old)
	}
	err := f.Conn.Write(cancel, h, head, body)
	switch {
	case f.fault == "cancel-sends" && errors.Is(err, transport.ErrCanceled):
		late := append(append([]byte(nil), head...), body...)
		go f.Conn.Write(nil, h, late, nil)
	case f.fault == "wrong-cause" && err != nil:
		return errors.New("something is wrong")
	case f.fault == "last-cause" && err != nil:
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.cause
	}
	return err
}

func (f *faulty) Fail(err error) {
	f.mu.Lock()
	f.cause = err
	f.mu.Unlock()
	f.Conn.Fail(err)
}

func (f *faulty) Close() error {
	switch f.fault {
	case "close-loses":
		f.Conn.Fail(transport.ErrClosed)
	case "close-early":
		go f.Conn.Close()
		return nil
	case "close-hangs":
		if !f.started.Load() {
			select {}
		}
	}
	f.closed.Store(true)
	return f.Conn.Close()
}

func (f *faulty) Poll(done *atomic.Bool) {
	switch f.fault {
	case "poll-forever":
		for !done.Load() {
			time.Sleep(time.Millisecond)
		}
	case "poll-delivers":
		f.h.HandleFrame(streamHeader(0), wire.GetBuf(0))
	}
}

func (f *faulty) Info() transport.Info {
	info := f.Conn.Info()
	if f.fault == "info" && f.closed.Load() {
		info.RemoteAddr = nil
	}
	return info
}

// faultyHandler stands between a connection and the handler of the test.
type faultyHandler struct {
	transport.Handler
	c    *faulty
	n    int
	last time.Time
	held *received
	kept []byte
}

func (f *faultyHandler) HandleFrame(h wire.Header, b *wire.Buf) {
	f.n++
	deliver := f.Handler.HandleFrame
	held := f.held
	f.held = nil
	switch f.c.fault {
	case "drop":
		if f.n == 50 {
			b.Release()
			return
		}
	case "duplicate":
		if f.n == 50 {
			twin := wire.GetBuf(len(b.B))
			copy(twin.B, b.B)
			deliver(h, twin)
		}
	case "reorder":
		if f.n == 50 {
			f.held = &received{h, b}
			return
		}
	case "lost-wake":
		if f.n%200 == 0 {
			f.held = &received{h, b}
			return
		}
	case "deaf-when-idle":
		idle := time.Since(f.last) > 40*time.Millisecond
		f.last = time.Now()
		if idle && f.n > 1 {
			f.held = &received{h, b}
			return
		}
	case "corrupt":
		if len(b.B) > 100 && f.n%10 == 0 {
			b.B[99] ^= 1
		}
	case "truncate":
		if h.Len == wire.MaxPayload {
			h.Len--
			b.B = b.B[:h.Len]
		}
	case "flags":
		h.Flags &^= wire.FlagTrailer
	case "keep-buffer":
		fillByte(f.kept, 0xee)
		f.kept = b.B
	case "concurrent":
		go deliver(h, b)
		return
	}
	deliver(h, b)
	if held != nil {
		deliver(held.h, held.b)
	}
}

func (f *faultyHandler) HandleClose(err error) {
	if f.c.fault == "close-early" {
		time.Sleep(10 * time.Millisecond)
	}
	f.Handler.HandleClose(err)
	switch f.c.fault {
	case "close-twice":
		f.Handler.HandleClose(err)
	case "frame-after-close":
		f.Handler.HandleFrame(streamHeader(1), wire.GetBuf(0))
	}
}
