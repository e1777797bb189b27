package wire_test

import (
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/stile-ipc/stile/transport/wire"
)

func TestBufClasses(t *testing.T) {
	for _, c := range []struct{ n, capacity int }{
		{0, 256}, {1, 256}, {255, 256}, {256, 256},
		{257, 512}, {512, 512}, {513, 1024},
		{4096, 4096}, {4097, 8192},
		{32 << 10, 32 << 10}, {32<<10 + 1, 64 << 10},
		{wire.MaxPayload, 64 << 10}, {64 << 10, 64 << 10},
		{64<<10 + 1, 128 << 10}, {1 << 20, 1 << 20}, {1<<20 + 1, 2 << 20},
		{8 << 20, 8 << 20}, {8<<20 + 1, 8<<20 + 1},
	} {
		// Twice: the second may come from a pool, and must be no other.
		for range 2 {
			b := wire.GetBuf(c.n)
			if len(b.B) != c.n || cap(b.B) != c.capacity {
				t.Errorf("GetBuf(%d): length %d, capacity %d, want capacity %d", c.n, len(b.B), cap(b.B), c.capacity)
			}
			b.Release()
		}
	}
}

// TestBufEverySize walks all sizes of a frame with buffers going back and forth
// between classes.
func TestBufEverySize(t *testing.T) {
	for n := range 64<<10 + 2 {
		b := wire.GetBuf(n)
		if len(b.B) != n {
			t.Fatalf("GetBuf(%d) has length %d", n, len(b.B))
		}
		if n > 0 {
			b.B[0], b.B[n-1] = 1, 1
		}
		b.Release()
	}
}

// TestBufShortened releases buffers whose owner has cut B; the next owner gets the
// whole class.
func TestBufShortened(t *testing.T) {
	for range 100 {
		b := wire.GetBuf(1000)
		b.B = b.B[:3]
		b.Release()
		b = wire.GetBuf(1024)
		if len(b.B) != 1024 {
			t.Fatalf("length %d, want 1024", len(b.B))
		}
		b.Release()
	}
}

// TestBufOneOwner checks that no two owners hold the same memory.
func TestBufOneOwner(t *testing.T) {
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(w), 1))
			var held []*wire.Buf
			check := func(b *wire.Buf) {
				for i, v := range b.B {
					if v != byte(w) {
						t.Errorf("owner %d finds %d at %d of %d", w, v, i, len(b.B))
						return
					}
				}
			}
			for range 2000 {
				b := wire.GetBuf(rnd.IntN(2000))
				for i := range b.B {
					b.B[i] = byte(w)
				}
				held = append(held, b)
				if len(held) == 10 {
					i := rnd.IntN(len(held))
					check(held[i])
					held[i].Release()
					held[i] = held[9]
					held = held[:9]
				}
			}
			for _, b := range held {
				check(b)
				b.Release()
			}
		})
	}
	wg.Wait()
}
