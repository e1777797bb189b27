package wire

import (
	"math/bits"
	"sync"
)

// Buf is a byte buffer with one owner at a time, mostly pooled. The owner calls
// Release once, after which the buffer must not be touched.
type Buf struct {
	B []byte
	// Tail, if there is one, holds the bytes behind B. It is released with this
	// buffer; an owner that takes it away sets it to nil and releases it itself.
	Tail  *Buf
	class int8 // index into pools, or one of those below
	lease Lease
}

const (
	notPooled int8 = -1
	borrowed  int8 = -2
)

// Lease gives borrowed memory back to whose it is.
type Lease interface{ End() }

// Borrow makes b hold memory that is not its own and that the peer may still
// change. Release ends the lease.
func (b *Buf) Borrow(mem []byte, l Lease) { b.B, b.class, b.lease = mem, borrowed, l }

// Borrowed reports whether the peer may still change what is in B.
func (b *Buf) Borrowed() bool { return b.class == borrowed }

// Buffers are pooled in power-of-two classes from 256 B to 8 MiB: frames have up to
// 64 KiB, messages more.
const (
	minClassBits = 8
	maxClassBits = 23
)

var pools [maxClassBits - minClassBits + 1]sync.Pool

// GetBuf returns a buffer with len(B) == n, whose content is undefined.
func GetBuf(n int) *Buf {
	if n > 1<<maxClassBits {
		return &Buf{B: make([]byte, n), class: notPooled}
	}
	c := 0
	if n > 1<<minClassBits {
		c = bits.Len(uint(n-1)) - minClassBits
	}
	if b, ok := pools[c].Get().(*Buf); ok {
		b.B = b.B[:n]
		return b
	}
	return &Buf{B: make([]byte, n, 1<<(c+minClassBits)), class: int8(c)}
}

// Release returns the buffer, and its tail, to where they came from.
func (b *Buf) Release() {
	if t := b.Tail; t != nil {
		b.Tail = nil
		t.Release()
	}
	switch {
	case b.class >= 0:
		b.B = b.B[:0]
		pools[b.class].Put(b)
	case b.class == borrowed:
		b.B = nil
		b.lease.End()
	}
}
