package shm

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"

	"github.com/stile-ipc/stile/transport/wire"
)

// A frame whose payload goes on in a slot says so in a byte of its header that is
// otherwise zero, and ends with a reference: the slot's number and how many bytes of
// it, u32 each.
const (
	offMark = 6
	markRef = 1
	refSize = 8
)

func putRef(b *[refSize]byte, slot, n int) {
	binary.LittleEndian.PutUint32(b[:], uint32(slot))
	binary.LittleEndian.PutUint32(b[4:], uint32(n))
}

// borrower is what this side holds of the arena that the peer sends through.
type borrower struct {
	seg  *segment
	side int // the peer's
	mem  []byte
	held [numSlots]heldSlot
}

// heldSlot is a slot while the peer's payload in it is in use. It is a [wire.Lease].
type heldSlot struct {
	owner *borrower
	slot  int
	busy  atomic.Bool
	buf   wire.Buf
}

func newBorrower(s *segment, side int) *borrower {
	b := &borrower{seg: s, side: side, mem: s.arena(side)}
	for i := range b.held {
		b.held[i].owner, b.held[i].slot = b, i
	}
	return b
}

// borrow takes what a reference names. A peer that names a slot which does not
// exist, is smaller, or is in use here, is corrupt.
func (b *borrower) borrow(ref []byte) (*wire.Buf, error) {
	i, n := binary.LittleEndian.Uint32(ref), binary.LittleEndian.Uint32(ref[4:])
	if i >= numSlots || n == 0 || int64(n) > int64(slots[i].size) {
		return nil, fmt.Errorf("%w: reference to %d bytes of slot %d", ErrCorrupt, n, i)
	}
	h := &b.held[i]
	if h.busy.Swap(true) {
		return nil, fmt.Errorf("%w: slot %d is sent again while it is in use", ErrCorrupt, i)
	}
	b.seg.hold()
	at := slots[i].at
	h.buf.Borrow(b.mem[at:at+int(n):at+int(n)], h)
	return &h.buf, nil
}

// End gives the slot back to the peer.
func (h *heldSlot) End() {
	seg := h.owner.seg
	h.busy.Store(false)
	seg.slotWord(h.owner.side, h.slot).store(0)
	seg.release()
}
