package wire

import (
	"math/bits"
	"sync"
)

// Buf is a pooled byte buffer with one owner at a time. The owner calls Release
// once, after which the buffer must not be touched.
type Buf struct {
	B     []byte
	class int8 // index into pools, -1 when not pooled
}

// Buffers are pooled in power-of-two classes from 256 B to 64 KiB (the largest
// frame with its header).
const (
	minClassBits = 8
	maxClassBits = 16
)

var pools [maxClassBits - minClassBits + 1]sync.Pool

// GetBuf returns a buffer with len(B) == n, whose content is undefined.
func GetBuf(n int) *Buf {
	if n > 1<<maxClassBits {
		return &Buf{B: make([]byte, n), class: -1}
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

// Release returns the buffer to its pool.
func (b *Buf) Release() {
	if b.class >= 0 {
		b.B = b.B[:0]
		pools[b.class].Put(b)
	}
}
