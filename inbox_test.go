package stile

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
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
		for p.window <= 0 {
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

// lend sends a message as one that lies in lent memory: it may overdraw the window.
func (p *pipe) lend(t *testing.T, body []byte) {
	for p.window <= 0 {
		p.window += <-p.grants
	}
	b := wire.GetBuf(prefixLen)
	copy(b.B, encoded(body))
	b.Tail = wire.GetBuf(len(body))
	copy(b.Tail.B, body)
	if err := p.in.deliver(1, &delivery{buf: b, data: b.B}); err != nil {
		t.Error(err)
	}
	p.window -= prefixLen + len(body)
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
				for i, m := range messages {
					if i%3 == 2 {
						p.lend(t, m)
					} else {
						p.send(t, encoded(m), most)
					}
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

// waitCounter counts the waits of the reader, who polls first.
type waitCounter struct {
	transport.Conn
	polls atomic.Int32
}

func (c *waitCounter) Poll(*atomic.Bool) { c.polls.Add(1) }

// The reader of a message in many frames waits for its beginning and for its end.
func TestInboxWakesForWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipe(t)
		var conn waitCounter
		p.in.conn = &conn
		got := make(chan error)
		go func() {
			m, err := p.in.readMessage(t.Context(), 1<<20, func(int) {})
			m.release()
			got <- err
		}()
		for data := encoded(make([]byte, 6*wire.MaxPayload)); len(data) > 0; {
			synctest.Wait()
			n := min(len(data), wire.MaxPayload)
			if err := p.deliver(data[:n], false); err != nil {
				t.Error(err)
			}
			data = data[n:]
		}
		if err := <-got; err != nil {
			t.Error(err)
		}
		if n := conn.polls.Load(); n != 2 {
			t.Errorf("the reader waited %d times, want 2", n)
		}
	})
}

// What ends the wait for the rest of a message is told, and told again: what has come of
// it is no message. Memory for it is taken only once it is there.
func TestInboxRestNeverComes(t *testing.T) {
	gone := errors.New("gone")
	for name, c := range map[string]struct {
		end  func(p *pipe, cancel func()) error
		want error
	}{
		"ended":    {func(p *pipe, _ func()) error { return p.deliver(make([]byte, 100), true) }, io.ErrUnexpectedEOF},
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
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				got := make(chan error)
				go func() {
					_, err := p.in.readMessage(ctx, 8<<20, func(int) {})
					got <- err
				}()
				synctest.Wait()
				runtime.ReadMemStats(&after)
				if n := after.TotalAlloc - before.TotalAlloc; n > 4<<20 {
					t.Errorf("%d bytes taken for a message of 8 MiB of which 100 bytes came", n)
				}
				if err := c.end(p, cancel); err != nil {
					t.Error(err)
				}
				if err := <-got; !errors.Is(err, c.want) {
					t.Errorf("%v, want %v", err, c.want)
				}
				if p.in.queued != 0 || len(p.in.chunks) != 0 {
					t.Errorf("%d bytes stay", p.in.queued)
				}
				if m, err := p.in.readMessage(ctx, 8<<20, func(int) {}); err == nil {
					t.Errorf("then a message of %d bytes was read", len(m.data))
				}
			})
		})
	}
}
