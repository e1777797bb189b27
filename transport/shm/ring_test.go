//go:build linux

package shm

import (
	"bytes"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/stile-ipc/stile/transport"
	"github.com/stile-ipc/stile/transport/wire"
)

// newTestRing makes a ring and both its ends, which stand at offset at.
func newTestRing(t testing.TB, at uint64) (*producer, *consumer) {
	t.Helper()
	fd, err := createSegmentFile(MinRingSize)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	s, err := mapSegment(fd, MinRingSize)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.unmap)
	p, k := newProducer(s, 1), newConsumer(s, 1)
	moveRing(&p, &k, at)
	return &p, &k
}

// moveRing empties the ring and puts both ends at offset at.
func moveRing(p *producer, k *consumer, at uint64) {
	p.pos, p.seen, k.pos, k.end = at, at, at, at
	p.head.store(at)
	p.tail.store(at)
}

func pattern(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = seed + byte(i) + byte(i>>8)
	}
	return b
}

// TestRingWrap sends a frame of each kind of length from every offset near the
// end of the ring, the end of the counters included.
func TestRingWrap(t *testing.T) {
	p, k := newTestRing(t, 0)
	for _, base := range []uint64{0, 5 * MinRingSize, 1<<64 - MinRingSize} {
		for _, n := range []int{0, 1, 15, 16, 17, 4096, 4097, wire.MaxPayload - 1, wire.MaxPayload} {
			for back := uint64(0); back <= maxFrame+frameAlign; back += frameAlign {
				if back > 512 && back < maxFrame-512 && n > 17 && back%4096 > 64 {
					continue // the long lengths need no more than a sample
				}
				moveRing(p, k, base+MinRingSize-back)
				body := pattern(n, byte(back))
				if ok, err := p.fits(frameSize(n)); !ok || err != nil {
					t.Fatal(ok, err)
				}
				want := wire.Header{Len: uint32(n), Type: wire.TypePart, Stream: back}
				p.put(want, 0, body[:n/2], body[n/2:])
				h, b, err := k.next()
				if err != nil || h != want || !bytes.Equal(b.B, body) {
					t.Fatalf("%d bytes, %d before the end: %+v, %v", n, back, h, err)
				}
				b.Release()
				if _, b, err := k.next(); b != nil || err != nil {
					t.Fatal("the ring is not empty", err)
				}
			}
		}
	}
}

// TestRingFull fills the ring to the last byte, and checks that a producer that
// was told of space finds it.
func TestRingFull(t *testing.T) {
	p, k := newTestRing(t, MinRingSize-48)
	frames := 0
	for ; ; frames++ {
		ok, err := p.fits(maxFrame)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			break
		}
		p.put(wire.Header{Type: wire.TypePart, Len: wire.MaxPayload}, 0, nil, make([]byte, wire.MaxPayload))
	}
	if frames != MinRingSize/maxFrame {
		t.Fatalf("%d frames fit", frames)
	}
	for range frames {
		_, b, err := k.next()
		if err != nil || b == nil {
			t.Fatal(b, err)
		}
		b.Release()
		if ok, err := p.fits(maxFrame); k.roomy() && (!ok || err != nil) {
			t.Fatal("no space for a frame in a ring said to be roomy", err)
		}
	}
}

// TestRingCorrupt checks every lie about the indices, one by one.
func TestRingCorrupt(t *testing.T) {
	const at = 3*MinRingSize + 64
	body := make([]byte, 100)
	put := func(p *producer) { p.put(wire.Header{Type: wire.TypePart, Len: 100}, 0, nil, body) }
	tests := []struct {
		name string
		lie  func(p *producer, k *consumer)
	}{
		{"head ahead of the ring", func(p *producer, k *consumer) { p.head.store(at + MinRingSize + 16) }},
		{"head behind tail", func(p *producer, k *consumer) { p.head.store(at - 16) }},
		{"head far off", func(p *producer, k *consumer) { p.head.store(1 << 63) }},
		{"head between frames", func(p *producer, k *consumer) { p.head.store(at + 8) }},
		{"head in a frame", func(p *producer, k *consumer) { put(p); p.head.store(at + 32) }},
		{"length over the limit", func(p *producer, k *consumer) {
			put(p)
			copy(k.data[at&(MinRingSize-1):], []byte{0xff, 0xff, 0xff, 0xff})
		}},
		{"length past head", func(p *producer, k *consumer) {
			put(p)
			copy(k.data[at&(MinRingSize-1):], []byte{200, 0, 0, 0})
		}},
		{"unknown type", func(p *producer, k *consumer) { put(p); k.data[at&(MinRingSize-1)+4] = 99 }},
		{"flags on a type without", func(p *producer, k *consumer) { put(p); k.data[at&(MinRingSize-1)+5] = 1 }},
		{"reserved bytes", func(p *producer, k *consumer) { put(p); k.data[at&(MinRingSize-1)+7] = 1 }},
	}
	p, k := newTestRing(t, 0)
	for _, tt := range tests {
		t.Run("consumer/"+tt.name, func(t *testing.T) {
			moveRing(p, k, at)
			tt.lie(p, k)
			_, b, err := k.next()
			if b != nil || !errors.Is(err, ErrCorrupt) || !errors.Is(err, transport.ErrProtocol) {
				t.Fatalf("got %v, %v", b, err)
			}
		})
	}
	for name, tail := range map[string]uint64{
		"ahead of head": at + 16, "backwards": at - 16, "far off": 1 << 62, "between frames": at + 8, "zero": 0,
	} {
		t.Run("producer/"+name, func(t *testing.T) {
			moveRing(p, k, at)
			for p.pos-p.seen < p.size {
				p.put(wire.Header{Type: wire.TypePart}, 0, nil, nil)
			}
			p.tail.store(tail + (p.pos - at))
			switch name {
			case "backwards":
				p.tail.store(at - 16)
			case "between frames":
				p.tail.store(at + 8)
			case "zero":
				p.tail.store(0)
			}
			if ok, err := p.fits(16); ok || !errors.Is(err, ErrCorrupt) {
				t.Fatalf("got %v, %v", ok, err)
			}
		})
	}
}

// FuzzRing lets the input be the other side's memory accesses: frames, lies about
// indices and scribbles over data, in any order.
func FuzzRing(f *testing.F) {
	f.Add([]byte{0, 10, 3, 3, 0, 200, 3})
	f.Add([]byte{0, 10, 1, 0, 8, 3})
	f.Add([]byte{0, 1, 0, 1, 2, 4, 99, 3, 3})
	f.Add([]byte{1, 255, 255, 3, 0, 1})
	f.Add(bytes.Repeat([]byte{0, 255}, 60))
	p, k := newTestRing(f, 0)
	f.Fuzz(func(t *testing.T, ops []byte) {
		const at = MinRingSize - 256
		clear(k.data[:MinRingSize])
		moveRing(p, k, at)
		arg := func(n int) uint64 {
			v := uint64(0)
			for i := 0; i < n && len(ops) > 0; i++ {
				v, ops = v<<8|uint64(ops[0]), ops[1:]
			}
			return v
		}
		for len(ops) > 0 {
			switch arg(1) % 5 {
			case 0: // a frame in good order
				n := int(arg(1)) * 250
				ok, err := p.fits(frameSize(n))
				if err != nil && !errors.Is(err, ErrCorrupt) {
					t.Fatal(err)
				}
				if err != nil {
					return
				}
				if ok {
					p.put(wire.Header{Type: wire.TypePart, Len: uint32(n)}, 0, nil, make([]byte, n))
				}
			case 1:
				p.head.store(p.pos + arg(2) - 1<<12)
			case 2:
				p.data[(at+arg(2))&(MinRingSize-1)] = byte(arg(1))
			case 3:
				_, b, err := k.next()
				if err != nil {
					if !errors.Is(err, ErrCorrupt) {
						t.Fatal(err)
					}
					return
				}
				if b != nil {
					b.Release()
				}
				if k.end-k.pos > k.size {
					t.Fatalf("consumer at %d believes %d", k.pos, k.end)
				}
			case 4:
				p.tail.store(k.pos + arg(2) - 1<<12)
			}
		}
	})
}
