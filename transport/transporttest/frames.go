package transporttest

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stile-ipc/stile/transport"
	"github.com/stile-ipc/stile/transport/wire"
)

func (s suite) testOrder(t *testing.T) {
	const frames = 20_000
	client, server := s.pair(t)
	in, done := newSink(t), make(chan struct{})
	var want uint64
	in.onFrame = func(h wire.Header, b *wire.Buf) {
		want++
		if h.Stream != want {
			t.Errorf("frame %d, want %d", h.Stream, want)
		}
		if got := binary.LittleEndian.Uint64(b.B); got != want {
			t.Errorf("frame %d carries the payload of %d", want, got)
		}
		b.Release()
		if want == frames {
			close(done)
		}
	}
	client.Start(newSink(t))
	server.Start(in)
	var body [8]byte
	for i := uint64(1); i <= frames; i++ {
		binary.LittleEndian.PutUint64(body[:], i)
		if err := client.Write(nil, streamHeader(i), body[:3], body[3:]); err != nil {
			t.Fatal(err)
		}
	}
	receive(t, done, "last frame")
}

// sizes are payload sizes around every boundary, then random ones.
func sizes(rnd *rand.Rand, n int) []int {
	all := []int{
		0, 1, 2, 7, 8, 9, 15, 16, 17, 63, 64, 65, 255, 256, 257, 4079, 4080, 4081, 4095, 4096, 4097,
		32767, 32768, 32769, wire.MaxPayload - 17, wire.MaxPayload - 16, wire.MaxPayload - 1, wire.MaxPayload,
		wire.MaxPayload, 0, 0, wire.MaxPayload,
	}
	for len(all) < n {
		switch rnd.IntN(3) {
		case 0:
			all = append(all, rnd.IntN(100))
		case 1:
			all = append(all, rnd.IntN(4096))
		default:
			all = append(all, rnd.IntN(wire.MaxPayload+1))
		}
	}
	return all
}

func fill(rnd *rand.Rand, b []byte) {
	for len(b) >= 8 {
		binary.LittleEndian.PutUint64(b, rnd.Uint64())
		b = b[8:]
	}
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
}

// testIntegrity sends frames of all sizes, split at any point into head and body,
// with their checksum as the stream number.
func (s suite) testIntegrity(t *testing.T) {
	client, server := s.pair(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	all := sizes(rnd, 3000)
	in, done := newSink(t), make(chan struct{})
	next := 0
	in.onFrame = func(h wire.Header, b *wire.Buf) {
		if len(b.B) != all[next] {
			t.Errorf("frame %d has %d bytes, want %d", next, len(b.B), all[next])
		}
		if sum := uint64(crc32.ChecksumIEEE(b.B)); sum != h.Stream {
			t.Errorf("frame %d of %d bytes: checksum %#x, want %#x", next, len(b.B), sum, h.Stream)
		}
		b.Release()
		if next++; next == len(all) {
			close(done)
		}
	}
	client.Start(newSink(t))
	server.Start(in)
	buf := make([]byte, wire.MaxPayload)
	for _, n := range all {
		b := buf[:n]
		fill(rnd, b)
		cut := rnd.IntN(n + 1)
		if err := client.Write(nil, streamHeader(uint64(crc32.ChecksumIEEE(b))), b[:cut], b[cut:]); err != nil {
			t.Fatal(err)
		}
	}
	receive(t, done, "last frame")
}

// testHeaderKept sends every type and every combination of flags.
func (s suite) testHeaderKept(t *testing.T) {
	client, server := s.started(t)
	var headers []wire.Header
	for flags := wire.Flags(0); flags < wire.FlagHalfClose<<1; flags++ {
		headers = append(headers, wire.Header{Type: wire.TypeStream, Flags: flags, Stream: 1<<63 + uint64(flags)})
	}
	for typ := wire.TypeStream; typ <= wire.TypeGoAway; typ++ {
		headers = append(headers, wire.Header{Type: typ}, wire.Header{Type: typ, Stream: ^uint64(0)})
	}
	for _, h := range headers {
		h.Len = 12345 // Write knows better
		client.mustWrite(t, h, []byte("four"))
		client.mustWrite(t, h, nil)
		for _, n := range []uint32{4, 0} {
			got := server.next(t)
			if h.Len = n; got.h != h {
				t.Errorf("got header %+v, want %+v", got.h, h)
			}
			got.release()
		}
	}
}

// copiedSize is the body size, in bytes, that testWriteCopies uses.
const copiedSize = 5000

// testWriteCopies overwrites head and body as soon as Write returns.
func (s suite) testWriteCopies(t *testing.T) {
	const frames = 200
	client, server := s.started(t)
	head, body := make([]byte, 10), make([]byte, copiedSize)
	for i := range frames {
		fillByte(head, byte(i))
		fillByte(body, byte(i))
		if err := client.Write(nil, streamHeader(uint64(i)), head, body); err != nil {
			t.Fatal(err)
		}
		fillByte(head, 0xff)
		fillByte(body, 0xff)
	}
	want := make([]byte, len(head)+len(body))
	for i := range frames {
		r := server.next(t)
		fillByte(want, byte(i))
		if !bytes.Equal(r.b.B, want) {
			t.Errorf("frame %d was changed after Write returned", i)
		}
		r.release()
	}
}

func fillByte(b []byte, v byte) {
	for i := range b {
		b[i] = v
	}
}

// testHandlerOwnsBuffers keeps every buffer while much more arrives.
func (s suite) testHandlerOwnsBuffers(t *testing.T) {
	const frames = 300
	client, server := s.started(t)
	rnd := rand.New(rand.NewPCG(3, 4))
	buf := make([]byte, 20_000)
	for range frames {
		b := buf[:rnd.IntN(len(buf))]
		fill(rnd, b)
		client.mustWrite(t, streamHeader(uint64(crc32.ChecksumIEEE(b))), b)
	}
	var kept []received
	for range frames {
		kept = append(kept, server.next(t))
	}
	for i, r := range kept {
		if uint64(crc32.ChecksumIEEE(r.b.B)) != r.h.Stream {
			t.Errorf("buffer of frame %d changed while the handler owned it", i)
		}
	}
	for _, r := range kept {
		r.release()
	}
}

func (s suite) testOversize(t *testing.T) {
	client, server := s.started(t)
	big := make([]byte, wire.MaxPayload)
	for _, bad := range [][2][]byte{{nil, make([]byte, wire.MaxPayload+1)}, {big[:1], big}, {big, big}} {
		if err := client.Write(nil, streamHeader(1), bad[0], bad[1]); err == nil {
			t.Errorf("a payload of %d+%d bytes was accepted", len(bad[0]), len(bad[1]))
		}
	}
	client.mustWrite(t, streamHeader(2), big)
	r := server.next(t)
	if r.h.Stream != 2 || len(r.b.B) != len(big) {
		t.Errorf("after refused frames came %+v", r.h)
	}
	r.release()
}

// stamp fills b with a writer's mark that tells a mixed frame from a whole one.
func stamp(b []byte, writer, seq uint32) {
	for i := range b {
		b[i] = byte(writer*31 + seq)
	}
	if len(b) >= 8 {
		binary.LittleEndian.PutUint32(b, writer)
		binary.LittleEndian.PutUint32(b[4:], seq)
	}
}

// checker tests stamped frames: whole, and in order for each writer.
type checker struct {
	t    *testing.T
	next []uint32
	want []byte
}

func (c *checker) check(h wire.Header, b []byte) {
	writer, seq := uint32(h.Stream>>32), uint32(h.Stream)
	if int(writer) >= len(c.next) {
		c.t.Errorf("frame of unknown writer %d", writer)
		return
	}
	if seq != c.next[writer] {
		c.t.Errorf("writer %d: frame %d, want %d", writer, seq, c.next[writer])
	}
	c.next[writer] = seq + 1
	c.want = slices.Grow(c.want[:0], len(b))[:len(b)]
	stamp(c.want, writer, seq)
	if !bytes.Equal(b, c.want) {
		c.t.Errorf("writer %d: frame %d of %d bytes is damaged", writer, seq, len(b))
	}
}

// flood writes frames stamped frames of random sizes from each of writers goroutines.
func flood(t *testing.T, c transport.Conn, writers, frames, maxSize int) *sync.WaitGroup {
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(w), 5))
			buf := make([]byte, maxSize)
			for seq := range frames {
				b := buf[:rnd.IntN(maxSize+1)]
				if rnd.IntN(4) > 0 {
					b = b[:min(len(b), 200)]
				}
				stamp(b, uint32(w), uint32(seq))
				cut := rnd.IntN(len(b) + 1)
				if err := c.Write(nil, streamHeader(uint64(w)<<32|uint64(seq)), b[:cut], b[cut:]); err != nil {
					t.Errorf("writer %d: %v", w, err)
					return
				}
			}
		})
	}
	return &wg
}

func (s suite) testConcurrentWriters(t *testing.T) {
	const writers, frames = 16, 400
	client, server := s.pair(t)
	in := newSink(t)
	ck := &checker{t: t, next: make([]uint32, writers)}
	done := make(chan struct{})
	n := 0
	in.onFrame = func(h wire.Header, b *wire.Buf) {
		ck.check(h, b.B)
		b.Release()
		if n++; n == writers*frames {
			close(done)
		}
	}
	client.Start(newSink(t))
	server.Start(in)
	wg := flood(t, client, writers, frames, 30_000)
	receive(t, done, "last frame")
	receive(t, background(wg.Wait), "writers")
}

// testBothDirections floods both ways at once, more than any buffer holds.
func (s suite) testBothDirections(t *testing.T) {
	const writers, frames = 4, 500
	client, server := s.pair(t)
	var left atomic.Int64
	left.Store(2 * writers * frames)
	done := make(chan struct{})
	for _, c := range []transport.Conn{client, server} {
		in := newSink(t)
		ck := &checker{t: t, next: make([]uint32, writers)}
		in.onFrame = func(h wire.Header, b *wire.Buf) {
			ck.check(h, b.B)
			b.Release()
			if left.Add(-1) == 0 {
				close(done)
			}
		}
		c.Start(in)
	}
	up := flood(t, client, writers, frames, wire.MaxPayload)
	down := flood(t, server, writers, frames, wire.MaxPayload)
	receive(t, done, "last frame")
	receive(t, background(func() { up.Wait(); down.Wait() }), "writers")
}
