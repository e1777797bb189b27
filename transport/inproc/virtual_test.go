package inproc_test

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stile-ipc/stile/transport"
	"github.com/stile-ipc/stile/transport/inproc"
	"github.com/stile-ipc/stile/transport/wire"
)

// tally counts what it is given.
type tally struct {
	frames atomic.Int64
	gate   chan struct{} // each HandleFrame waits for it, if not nil
	closed chan error    // capacity 1
}

func newTally() *tally { return &tally{closed: make(chan error, 1)} }

func (h *tally) HandleFrame(_ wire.Header, b *wire.Buf) {
	b.Release()
	if h.gate != nil {
		<-h.gate
	}
	h.frames.Add(1)
}

func (h *tally) HandleClose(err error) { h.closed <- err }

var streamFrame = wire.Header{Type: wire.TypeStream, Stream: 1}

// TestVirtualTime blocks on a connection in every way; the bubble's clock must go on.
func TestVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := inproc.Pipe()
		ha, hb := newTally(), newTally()
		hb.gate = make(chan struct{})
		a.Start(ha)
		b.Start(hb)

		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		var written int64
		var err error
		for ; err == nil; written++ {
			err = a.Write(ctx.Done(), streamFrame, nil, make([]byte, 1000))
			synctest.Wait() // the handler has taken what it can
		}
		written-- // the last was refused
		if !errors.Is(err, transport.ErrCanceled) {
			t.Errorf("blocked Write: %v", err)
		}

		start := time.Now()
		time.AfterFunc(time.Minute, func() { close(hb.gate) })
		if err := a.Write(nil, streamFrame, nil, nil); err != nil {
			t.Errorf("Write: %v", err)
		}
		if waited := time.Since(start); waited != time.Minute {
			t.Errorf("Write waited %v", waited)
		}
		synctest.Wait() // everybody idle: all is delivered
		if got := hb.frames.Load(); got != written+1 {
			t.Errorf("%d frames delivered, want %d", got, written+1)
		}
		a.Close()
		b.Close()
		if err := <-ha.closed; !errors.Is(err, transport.ErrClosed) {
			t.Errorf("HandleClose: %v", err)
		}
		<-hb.closed
	})
}

func TestVirtualTimeDial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := inproc.New()
		l, err := tr.Listen("x")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := tr.Dial(ctx, "x"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("dial: %v", err)
		}
		time.AfterFunc(time.Second, func() { l.Close() })
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("accept: %v", err)
		}
	})
}

// TestRefusesMalformed writes what a peer in another process would not read.
func TestRefusesMalformed(t *testing.T) {
	a, b := inproc.Pipe()
	h := newTally()
	a.Start(newTally())
	b.Start(h)
	for _, bad := range []wire.Header{{}, {Type: 99}, {Type: wire.TypeWindow, Flags: wire.FlagCall}, {Type: wire.TypeStream, Flags: 0x10}} {
		if err := a.Write(nil, bad, nil, nil); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("%+v: %v, want ErrMalformed", bad, err)
		}
	}
	if err := a.Write(nil, streamFrame, nil, nil); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	a.Close()
	<-h.closed
	b.Close()
	if n := h.frames.Load(); n != 1 {
		t.Errorf("%d frames delivered, want 1", n)
	}
}

func TestNames(t *testing.T) {
	tr := inproc.New()
	if _, err := tr.Listen(""); err == nil {
		t.Error("an empty name was given")
	}
	if _, err := tr.Dial(t.Context(), "x"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial: %v", err)
	}
	l, err := tr.Listen("x")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := tr.Listen("x"); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("listen: %v", err)
	}
	if _, err := inproc.New().Dial(t.Context(), "x"); err == nil {
		t.Error("names are shared between transports")
	}
	if a := l.Addr(); a.Network() != "inproc" || a.String() != "x" {
		t.Errorf("address %s %s", a.Network(), a)
	}
}

func TestPeerIsThisProcess(t *testing.T) {
	a, b := inproc.Pipe()
	defer a.Close()
	defer b.Close()
	p := a.Info().Peer
	if p != b.Info().Peer {
		t.Errorf("ends differ: %+v, %+v", p, b.Info().Peer)
	}
	if p.Known && (p.PID != os.Getpid() || p.UID != os.Geteuid() || p.GID != os.Getegid()) {
		t.Errorf("peer is %+v", p)
	}
}

// TestDropsWhatIsLeft ends connections with frames nobody has read.
func TestDropsWhatIsLeft(t *testing.T) {
	for range 100 {
		a, b := inproc.Pipe()
		ha, hb := newTally(), newTally()
		a.Start(ha)
		for range 20 {
			if err := a.Write(nil, streamFrame, nil, make([]byte, 100)); err != nil {
				t.Fatal(err)
			}
		}
		var wg sync.WaitGroup
		wg.Go(func() { a.Fail(errors.New("boom")) })
		wg.Go(func() { b.Start(hb) })
		wg.Wait()
		<-ha.closed
		if err := <-hb.closed; !errors.Is(err, transport.ErrPeerGone) {
			t.Errorf("HandleClose: %v", err)
		}
		a.Close()
		b.Close()
	}
}
