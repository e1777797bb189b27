package shm

import (
	"fmt"
	"time"
)

const (
	// MinRingSize is four times the largest frame, so that a ring a quarter free
	// takes any frame.
	MinRingSize = 4 << 16
	// MaxRingSize bounds what a peer can make us map.
	MaxRingSize = 64 << 20
	// DefaultRingSize is used where Config.RingSize is 0.
	DefaultRingSize = MinRingSize

	// defaultSpin bounds one spin. It exceeds what it costs to wake a sleeping
	// peer, so that a caller sees the reply of a server that slept.
	defaultSpin = 50 * time.Microsecond
)

// Config tunes a connection. The zero value is useful.
type Config struct {
	// RingSize is the size of the ring of each direction in bytes: a power of two
	// from MinRingSize to MaxRingSize, or 0 for DefaultRingSize. Create uses it;
	// Attach takes what the segment has.
	RingSize int
	// Spin bounds the time one wait spins before it sleeps. 0 is the default, a
	// negative value means never to spin. Below the bound, spinning follows its
	// own success.
	Spin time.Duration
}

// Validate tells what is wrong with the configuration.
func (c Config) Validate() error {
	if n := c.RingSize; n != 0 && (n < MinRingSize || n > MaxRingSize || n&(n-1) != 0) {
		return fmt.Errorf("shm: ring size %d is not a power of two from %d to %d", n, MinRingSize, MaxRingSize)
	}
	return nil
}

func (c Config) ringSize() int {
	if c.RingSize == 0 {
		return DefaultRingSize
	}
	return c.RingSize
}

// Stats counts what one side of a connection did since it was made.
type Stats struct {
	FramesIn, FramesOut uint64
	BytesIn, BytesOut   uint64        // payloads
	Doorbells           uint64        // times the peer's doorbell was rung, one system call each
	Parks               uint64        // times the connection's goroutine went to sleep
	Polls               uint64        // times a caller received on its own goroutine
	Spin                time.Duration // time spent spinning, whether it paid or not
}
