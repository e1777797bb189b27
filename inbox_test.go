package stile

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stile-ipc/stile/transport"
	"github.com/stile-ipc/stile/transport/inproc"
	"github.com/stile-ipc/stile/transport/wire"
)

// pipe is an inbox and the peer that fills it, who keeps to the window.
type pipe struct {
	in     inbox
	waits  atomic.Int32
	grants chan int
	window int
}

func newPipe(t *testing.T) *pipe {
	t.Helper()
	near, far := inproc.Pipe()
	t.Cleanup(func() { _ = near.Close(); _ = far.Close() })
	p := &pipe{grants: make(chan int, 1<<16), window: initialWindow}
	p.in.init(1, near, &p.waits)
	return p
}

func (p *pipe) deliver(data []byte, ended bool) error {
	b := wire.GetBuf(len(data))
	copy(b.B, data)
	return p.in.deliver(1, &delivery{buf: b, data: b.B, ended: ended})
}

// send sends data in pieces of at most most bytes.
func (p *pipe) send(t *testing.T, data []byte, most int) {
	for len(data) > 0 {
		for p.window == 0 {
			p.window += <-p.grants
		}
		n := min(1+rand.IntN(most), p.window, len(data))
		if err := p.deliver(data[:n], false); err != nil {
			t.Error(err)
			return
		}
		p.window -= n
		data = data[n:]
	}
}

func encoded(body []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(body))), body...)
}

// Whatever the sizes of messages and frames, each arrives whole, and what the peer may
// send ends where it began: a window given ahead is not given twice.
func TestInboxWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, most := range []int{7, 4096, wire.MaxPayload} {
			p := newPipe(t)
			var messages [][]byte
			for _, size := range []int{0, 1, initialWindow - prefixLen, initialWindow, initialWindow + 1, 3 * initialWindow} {
				messages = append(messages, bytes.Repeat([]byte{byte(size + 1)}, size), bytes.Repeat([]byte{2}, rand.IntN(1000)))
			}
			go func() {
				for _, m := range messages {
					p.send(t, encoded(m), most)
				}
			}()
			for i, want := range messages {
				m, err := p.in.readMessage(t.Context(), 1<<30, func(n int) { p.grants <- n })
				if err != nil || !bytes.Equal(m.data, want) {
					t.Fatalf("message %d in frames up to %d: %d bytes, %v", i, most, len(m.data), err)
				}
				m.release()
			}
			synctest.Wait()
			close(p.grants)
			for n := range p.grants {
				p.window += n
			}
			if p.window != p.in.allowed || p.in.allowed+p.in.consumed != initialWindow || p.in.queued != 0 {
				t.Errorf("frames up to %d: the peer may send %d, we take %d, %d to be granted, %d queued",
					most, p.window, p.in.allowed, p.in.consumed, p.in.queued)
			}
		}
	})
}

// The reader of a message in many frames is woken once.
func TestInboxWakesForWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipe(t)
		body := make([]byte, 4*wire.MaxPayload)
		got := make(chan error)
		go func() {
			m, err := p.in.readMessage(t.Context(), 1<<20, func(int) {})
			m.release()
			got <- err
		}()
		data := encoded(body)
		for first := true; len(data) > 0; first = false {
			synctest.Wait()
			p.in.mu.Lock()
			if !p.in.waiting || !first && p.in.arrived.Load() {
				t.Errorf("%d bytes before the end the reader is awake", len(data))
			}
			p.in.arrived.Store(false)
			p.in.mu.Unlock()
			n := min(len(data), wire.MaxPayload)
			if err := p.deliver(data[:n], false); err != nil {
				t.Error(err)
			}
			data = data[n:]
		}
		if err := <-got; err != nil {
			t.Error(err)
		}
	})
}

// What ends the wait for the rest of a message is told, and memory for the message is
// only taken once it is there.
func TestInboxRestNeverComes(t *testing.T) {
	gone := errors.New("gone")
	for name, c := range map[string]struct {
		end  func(p *pipe, cancel func()) error
		want error
	}{
		"ended":    {func(p *pipe, _ func()) error { return p.deliver([]byte{1}, true) }, io.ErrUnexpectedEOF},
		"failed":   {func(p *pipe, _ func()) error { p.in.fail(1, gone, true); return nil }, gone},
		"canceled": {func(_ *pipe, cancel func()) error { cancel(); return nil }, context.Canceled},
		"too much": {func(p *pipe, _ func()) error {
			p.in.mu.Lock()
			left := p.in.allowed
			p.in.mu.Unlock()
			err := p.deliver(make([]byte, left+1), false)
			if !errors.Is(err, transport.ErrProtocol) {
				return errors.New("the window is not kept")
			}
			p.in.fail(1, gone, true)
			return nil
		}, gone},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPipe(t)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if err := p.deliver(encoded(make([]byte, 8<<20))[:100], false); err != nil {
					t.Fatal(err)
				}
				got := make(chan error)
				go func() {
					m, err := p.in.readMessage(ctx, 8<<20, func(int) {})
					if m.buf != nil {
						err = errors.New("memory for a message that is not there")
					}
					got <- err
				}()
				synctest.Wait()
				if err := c.end(p, cancel); err != nil {
					t.Error(err)
				}
				if err := <-got; !errors.Is(err, c.want) {
					t.Errorf("%v, want %v", err, c.want)
				}
				p.in.discard()
			})
		})
	}
}
