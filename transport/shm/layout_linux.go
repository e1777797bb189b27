package shm

import (
	"encoding/binary"
	"fmt"

	"github.com/stile-ipc/stile/transport/wire"
)

// The file of a segment, in bytes. R is the ring size.
//
//	0          64 KiB                64 KiB + R            64 KiB + 2R
//	┌──────────┬─────────────────────┬─────────────────────┬─────────┬─────────┐
//	│ control  │ ring 0              │ ring 1              │ arena 0 │ arena 1 │
//	└──────────┴─────────────────────┴─────────────────────┴─────────┴─────────┘
//
// Ring 0 and arena 0 carry what the creating side sends, ring 1 and arena 1 what the
// attaching side sends. An arena has 56 MiB, of which only pages that were written
// exist (slots_linux.go). In memory each ring is followed by a second mapping of its
// first 64 KiB, so that a frame is contiguous wherever it begins:
//
//	┌──────────┬──────────┬────────┬──────────┬────────┬─────────┬─────────┐
//	│ control  │ ring 0   │ ring 0 │ ring 1   │ ring 1 │ arena 0 │ arena 1 │
//	└──────────┴──────────┴────────┴──────────┴────────┴─────────┴─────────┘
//
// Control area, little endian. Words that different sides write are 128 bytes
// apart, because processors fetch lines of 64 bytes in pairs:
//
//	0x000  magic    8 bytes "STILESHM"
//	0x008  version  u32
//	0x00c  zero     u32
//	0x010  R        u64
//	0x100 + 0x400·ring, for each ring:
//	  +0x000  head      u64, bytes ever written; only the producer writes it
//	  +0x080  tail      u64, bytes ever read; only the consumer writes it
//	  +0x100  sleeping  u64, 1: ring the consumer's doorbell for the next frame
//	  +0x180  wanting   u64, 1: ring the producer's doorbell for free space
//	0x1000 + 0x800·arena + 8·slot:
//	  +0x000  in use    u64, 1: the receiver is not done with the slot
//
// head and tail never wrap in practice (2^64 bytes) and are taken modulo R. A
// frame is a wire.Header and its payload, filled up to 16 bytes, hence a header
// never crosses the end of the ring.
const (
	layoutMagic   = "STILESHM"
	layoutVersion = 2

	offVersion = 0x008
	offSize    = 0x010
	headerLen  = 0x018

	offRing      = 0x100
	ringStride   = 0x400
	offHead      = 0x000
	offTail      = 0x080
	offSleeping  = 0x100
	offWanting   = 0x180
	offSlots     = 0x1000
	slotsStride  = 0x800
	controlSize  = 64 << 10 // a whole number of pages whatever their size
	frameAlign   = 16
	maxFrame     = wire.HeaderSize + wire.MaxPayload
	mirrorSize   = maxFrame
	segmentFiles = 3 // memfd, the creating side's doorbell, the attaching side's
)

func fileSize(ring int) int64 { return controlSize + 2*int64(ring) + 2*arenaSize }

// frameSize is what a frame with n payload bytes takes in a ring.
func frameSize(n int) uint64 {
	return uint64(wire.HeaderSize+n+frameAlign-1) &^ (frameAlign - 1)
}

func encodeLayout(ring int) []byte {
	b := make([]byte, headerLen)
	copy(b, layoutMagic)
	binary.LittleEndian.PutUint32(b[offVersion:], layoutVersion)
	binary.LittleEndian.PutUint64(b[offSize:], uint64(ring))
	return b
}

// parseLayout checks the first bytes of a segment file of the given size and
// returns its ring size.
func parseLayout(b []byte, size int64) (int, error) {
	if len(b) < headerLen || string(b[:len(layoutMagic)]) != layoutMagic {
		return 0, fmt.Errorf("%w: bad magic", ErrLayout)
	}
	if v := binary.LittleEndian.Uint32(b[offVersion:]); v != layoutVersion {
		return 0, fmt.Errorf("%w: version %d, known is %d", ErrLayout, v, layoutVersion)
	}
	n := binary.LittleEndian.Uint64(b[offSize:])
	if n < MinRingSize || n > MaxRingSize || n&(n-1) != 0 {
		return 0, fmt.Errorf("%w: ring of %d bytes", ErrLayout, n)
	}
	if want := fileSize(int(n)); size != want {
		return 0, fmt.Errorf("%w: file of %d bytes, rings need %d", ErrLayout, size, want)
	}
	return int(n), nil
}
