package shm

import (
	"errors"
	"fmt"

	"github.com/stile-ipc/stile/transport"
)

var (
	// ErrUnavailable says that this system cannot carry connections through
	// shared memory.
	ErrUnavailable = errors.New("shm: not available")
	// ErrSeals says that what the peer offered is not a memfd sealed against
	// shrinking and growing.
	ErrSeals = errors.New("shm: segment is not a sealed memfd")
	// ErrLayout says that a segment's magic, version or sizes are not ours.
	ErrLayout = errors.New("shm: unknown segment layout")
	// ErrCorrupt says that an index or a length in the segment cannot be true. It
	// is a [transport.ErrProtocol].
	ErrCorrupt = fmt.Errorf("shm: corrupt ring: %w", transport.ErrProtocol)
)
