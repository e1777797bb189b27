package shm

import (
	"fmt"

	"github.com/stile-ipc/stile/transport/wire"
)

// producer is the writing end of a ring. The holder of the write lock owns it.
//
// Its own position is private: head is written for the peer and never read back.
type producer struct {
	control
	data []byte // ring and mirror
	size uint64
	pos  uint64 // bytes ever written
	seen uint64 // last believed tail

	charged int    // bytes of the ring that count as filled
	from    uint64 // pos when none of its pages existed
}

func newProducer(s *segment, i int) producer {
	return producer{control: s.control(i), data: s.data(i), size: uint64(s.ring), charged: ringCharge}
}

// ringCharge is the step in which a ring counts as filled, in bytes: the first for
// every connection, the others as frames reach them. The ring must work, so that they
// may overrun the limit, which then keeps others from growing.
const ringCharge = 64 << 10

// charge accounts for the pages that frames have reached.
func (p *producer) charge() {
	for p.charged < int(p.size) && p.pos-p.from > uint64(p.charged) {
		memory.add(ringCharge)
		p.charged += ringCharge
	}
}

// emptied accounts for a ring that has no pages any more.
func (p *producer) emptied() {
	memory.give(p.charged - ringCharge)
	p.charged, p.from = ringCharge, p.pos
}

// fits tells whether n more bytes fit. A tail that goes backwards, passes the
// head or lies between frames is corrupt.
func (p *producer) fits(n uint64) (bool, error) {
	if p.size-(p.pos-p.seen) >= n {
		return true, nil
	}
	t := p.tail.load()
	if p.pos-t > p.pos-p.seen || t%frameAlign != 0 {
		return false, fmt.Errorf("%w: tail %d, was %d, head %d", ErrCorrupt, t, p.seen, p.pos)
	}
	p.seen = t
	return p.size-(p.pos-t) >= n, nil
}

// put writes one frame, for which fits was true, and publishes it. mark is 0 or
// markRef.
func (p *producer) put(h wire.Header, mark byte, head, body []byte) {
	n := frameSize(len(head) + len(body))
	b := p.data[p.pos&(p.size-1):][:n]
	wire.PutHeader(b, h)
	b[offMark] = mark
	copy(b[wire.HeaderSize:], head)
	copy(b[wire.HeaderSize+len(head):], body)
	p.pos += n
	if p.charged < int(p.size) {
		p.charge()
	}
	p.head.store(p.pos)
}

// consumer is the reading end of a ring. The holder of the receive lock owns it.
type consumer struct {
	control
	data []byte // ring and mirror
	size uint64
	pos  uint64 // bytes ever read
	end  uint64 // last believed head

	seg   *segment
	side  int
	slots *borrower // made by the first reference
}

func newConsumer(s *segment, i int) consumer {
	return consumer{control: s.control(i), data: s.data(i), size: uint64(s.ring), seg: s, side: i}
}

// ready tells whether something was published.
func (k *consumer) ready() bool { return k.pos != k.end || k.head.load() != k.pos }

// refresh believes the peer's head if it can be true.
func (k *consumer) refresh() error {
	h := k.head.load()
	if used := h - k.pos; used > k.size || used < k.end-k.pos || h%frameAlign != 0 {
		return fmt.Errorf("%w: head %d, was %d, tail %d", ErrCorrupt, h, k.end, k.pos)
	}
	k.end = h
	return nil
}

// next takes one frame, or none if the ring is empty: then b is nil. The caller
// owns b.
func (k *consumer) next() (h wire.Header, b *wire.Buf, err error) {
	if k.pos == k.end {
		if err := k.refresh(); err != nil || k.pos == k.end {
			return wire.Header{}, nil, err
		}
	}
	at := k.data[k.pos&(k.size-1):]
	var hdr [wire.HeaderSize]byte // the peer can still change its own
	copy(hdr[:], at)
	mark := hdr[offMark]
	if mark == markRef {
		hdr[offMark] = 0
	}
	h, err = wire.ParseHeader(hdr[:])
	if err != nil {
		return h, nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	n := frameSize(int(h.Len))
	if n > k.end-k.pos {
		return h, nil, fmt.Errorf("%w: frame of %d bytes, %d are there", ErrCorrupt, n, k.end-k.pos)
	}
	b = wire.GetBuf(int(h.Len))
	copy(b.B, at[wire.HeaderSize:][:h.Len])
	k.pos += n
	k.tail.store(k.pos)
	if mark == markRef {
		err = k.follow(&h, b)
	}
	return h, b, err
}

// follow takes the reference at the end of b and hangs what it names behind it. It
// releases b when it fails.
func (k *consumer) follow(h *wire.Header, b *wire.Buf) (err error) {
	own := len(b.B) - refSize
	if own < 0 {
		b.Release()
		return fmt.Errorf("%w: reference in a payload of %d bytes", ErrCorrupt, len(b.B))
	}
	if k.slots == nil {
		k.slots = newBorrower(k.seg, k.side)
	}
	if b.Tail, err = k.slots.borrow(b.B[own:]); err != nil {
		b.Release()
		return err
	}
	b.B = b.B[:own]
	h.Len = uint32(own + len(b.Tail.B))
	return nil
}

// roomy tells whether enough is free for any frame, as far as is known here.
func (k *consumer) roomy() bool { return k.size-(k.end-k.pos) >= k.size/4 }
