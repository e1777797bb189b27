package transporttest

import (
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stile-ipc/stile/transport"
	"github.com/stile-ipc/stile/transport/wire"
)

// enough is more than a connection may hold for a peer that does not read, in
// frames of pressureSize bytes (256 MiB).
const (
	pressureSize = 32 << 10
	enough       = 256 << 20 / pressureSize
)

// stallAfter is when a cancel closes; by then a writer is blocked. If it is not
// yet, the test is weaker and still right.
const stallAfter = 100 * time.Millisecond

// pressWriter writes numbered frames, counting on from seq, until an error, which
// it returns with the number of the frame it hit.
func pressWriter(c transport.Conn, cancel <-chan struct{}, seq uint64) (uint64, error) {
	body := make([]byte, pressureSize)
	for limit := seq + enough; seq < limit; seq++ {
		binary.LittleEndian.PutUint64(body, seq)
		if err := c.Write(cancel, streamHeader(seq), nil, body); err != nil {
			return seq, err
		}
	}
	return seq, errors.New("the peer reads nothing and Write never blocks")
}

type pressed struct {
	seq uint64
	err error
}

// pressUntilCancel fills the connection until a canceled Write.
func pressUntilCancel(t *testing.T, c transport.Conn, seq uint64) uint64 {
	t.Helper()
	cancel := make(chan struct{})
	timer := time.AfterFunc(stallAfter, func() { close(cancel) })
	defer timer.Stop()
	result := make(chan pressed, 1)
	go func() {
		n, err := pressWriter(c, cancel, seq)
		result <- pressed{n, err}
	}()
	r := receive(t, result, "canceled Write")
	wantCause(t, "blocked Write", r.err, transport.ErrCanceled)
	return r.seq
}

// expectSeq makes in check that the frames that arrive are numbered from 0 on, and
// returns a function that waits for the first n.
func expectSeq(t *testing.T, in *sink) (wait func(n uint64)) {
	var got atomic.Uint64
	tick := make(chan struct{}, 1)
	in.onFrame = func(h wire.Header, b *wire.Buf) {
		if want := got.Load(); h.Stream != want || binary.LittleEndian.Uint64(b.B) != want {
			t.Errorf("frame %d arrived, want %d", h.Stream, want)
		}
		b.Release()
		got.Add(1)
		select {
		case tick <- struct{}{}:
		default:
		}
	}
	return func(n uint64) {
		t.Helper()
		for got.Load() < n {
			receive(t, tick, "frame after a blocked Write")
		}
	}
}

func (s suite) testBackPressureNotStarted(t *testing.T) {
	client, server := s.pair(t)
	client.Start(newSink(t))
	n := pressUntilCancel(t, client, 0)
	n = pressUntilCancel(t, client, n) // the canceled frame's number is used again
	in := newSink(t)
	wait := expectSeq(t, in)
	server.Start(in)
	wait(n)
	nothingMore(t, client, in, wait, n)
}

func (s suite) testBackPressureBlockedHandler(t *testing.T) {
	client, server := s.pair(t)
	in := newSink(t)
	in.gate = make(chan struct{})
	wait := expectSeq(t, in)
	client.Start(newSink(t))
	server.Start(in)
	n := pressUntilCancel(t, client, 0)
	n = pressUntilCancel(t, client, n)
	close(in.gate)
	wait(n)
	nothingMore(t, client, in, wait, n)
}

// nothingMore uses the connection on, whose first n frames have arrived, closes it
// and checks that nothing came besides.
func nothingMore(t *testing.T, client transport.Conn, in *sink, wait func(uint64), n uint64) {
	t.Helper()
	for last := n + 100; n < last; n++ {
		(&end{Conn: client}).mustWrite(t, streamHeader(n), binary.LittleEndian.AppendUint64(nil, n))
		wait(n + 1)
	}
	closeConn(t, client)
	in.wantClosed(t, transport.ErrPeerGone)
	if got := uint64(in.count.Load()); got != n {
		t.Errorf("%d frames arrived, want %d", got, n)
	}
}

// testBackPressureResumes lets a blocked Write that has no cancel go on.
func (s suite) testBackPressureResumes(t *testing.T) {
	client, server := s.pair(t)
	in := newSink(t)
	wait := expectSeq(t, in)
	client.Start(newSink(t))
	n := pressUntilCancel(t, client, 0)
	const more = 500
	written := background(func() {
		body := make([]byte, pressureSize)
		for seq := n; seq < n+more; seq++ {
			binary.LittleEndian.PutUint64(body, seq)
			if err := client.Write(nil, streamHeader(seq), body, nil); err != nil {
				t.Errorf("write %d: %v", seq, err)
			}
		}
	})
	server.Start(in)
	receive(t, written, "blocked Write")
	wait(n + more)
}

// testBackPressureManyWriters blocks many writers, of which every second cancels.
// What was accepted arrives once, what was canceled never.
func (s suite) testBackPressureManyWriters(t *testing.T) {
	const writers = 32
	client, server := s.pair(t)
	client.Start(newSink(t))
	full := pressUntilCancel(t, client, 0)

	cancel := make(chan struct{})
	var accepted, arrived [writers]atomic.Int64
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			var stop <-chan struct{}
			if w%2 == 0 {
				stop = cancel
			}
			for range 20 {
				err := client.Write(stop, wire.Header{Type: wire.TypeReset, Stream: uint64(w)}, nil, make([]byte, 10_000))
				switch {
				case err == nil:
					accepted[w].Add(1)
				case stop == nil || !errors.Is(err, transport.ErrCanceled):
					t.Errorf("writer %d: %v", w, err)
					return
				}
			}
		})
	}
	time.AfterFunc(stallAfter, func() { close(cancel) })
	receive(t, cancel, "timer")

	in := newSink(t)
	in.onFrame = func(h wire.Header, b *wire.Buf) {
		if h.Type == wire.TypeReset {
			arrived[h.Stream].Add(1)
		}
		b.Release()
	}
	server.Start(in)
	receive(t, background(wg.Wait), "writers")
	closeConn(t, client)
	in.wantClosed(t, transport.ErrPeerGone)
	total := full
	for w := range writers {
		if a, b := accepted[w].Load(), arrived[w].Load(); a != b {
			t.Errorf("writer %d: %d frames accepted, %d arrived", w, a, b)
		}
		total += uint64(accepted[w].Load())
	}
	if got := uint64(in.count.Load()); got != total {
		t.Errorf("%d frames arrived, want %d", got, total)
	}
}

// testBackPressureOneWay fills one direction; the other still carries frames.
func (s suite) testBackPressureOneWay(t *testing.T) {
	client, server := s.pair(t)
	in := newSink(t)
	in.gate = make(chan struct{})
	defer close(in.gate)
	back := newSink(t)
	client.Start(back)
	server.Start(in)
	pressUntilCancel(t, client, 0)
	for i := range uint64(1000) {
		(&end{Conn: server}).mustWrite(t, streamHeader(i), make([]byte, 1000))
		r := back.next(t)
		if r.h.Stream != i {
			t.Fatalf("frame %d, want %d", r.h.Stream, i)
		}
		r.release()
	}
}

// testBlockedWriteEnds ends the connection in each way while a Write without
// cancel is blocked.
func (s suite) testBlockedWriteEnds(t *testing.T) {
	boom := errors.New("boom")
	for _, c := range []struct {
		name string
		end  func(client, server transport.Conn)
		want error
	}{
		{"Close", func(client, _ transport.Conn) { client.Close() }, transport.ErrClosed},
		{"Fail", func(client, _ transport.Conn) { client.Fail(boom) }, boom},
		{"PeerClose", func(_, server transport.Conn) { server.Close() }, transport.ErrPeerGone},
		{"PeerFail", func(_, server transport.Conn) { server.Fail(boom) }, transport.ErrPeerGone},
	} {
		t.Run(c.name, func(t *testing.T) {
			client, server := s.pair(t)
			out := newSink(t)
			client.Start(out)
			n := pressUntilCancel(t, client, 0)
			results := make(chan pressed, 3)
			for range cap(results) {
				go func() {
					seq, err := pressWriter(client, nil, n)
					results <- pressed{seq, err}
				}()
			}
			ended := background(func() { c.end(client, server) })
			for range cap(results) {
				wantCause(t, "blocked Write", receive(t, results, "blocked Write").err, c.want)
			}
			receive(t, ended, "end of the connection")
			out.wantClosed(t, c.want)
		})
	}
}

// testCanceledBefore writes with a cancel that is closed already: the frame is
// refused or sent, as the error says.
func (s suite) testCanceledBefore(t *testing.T) {
	client, server := s.started(t)
	canceled := make(chan struct{})
	close(canceled)
	for i := range uint64(100) {
		err := client.Write(canceled, streamHeader(i), nil, []byte("maybe"))
		if err != nil {
			wantCause(t, "canceled Write", err, transport.ErrCanceled)
		}
		client.mustWrite(t, wire.Header{Type: wire.TypeGoAway, Stream: i}, nil)
		r := server.next(t)
		if err == nil {
			if r.h.Type != wire.TypeStream || r.h.Stream != i {
				t.Fatalf("frame %d was accepted, and then came %+v", i, r.h)
			}
			r.release()
			r = server.next(t)
		}
		if r.h.Type != wire.TypeGoAway || r.h.Stream != i {
			t.Fatalf("came %+v, want the frame after %d", r.h, i)
		}
		r.release()
	}
}
