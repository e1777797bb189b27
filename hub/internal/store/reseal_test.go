package store

import (
	"slices"

	"github.com/stile-ipc/stile/internal/packed"
)

// reseal gives what may be damaged the checksum of what is sound, so that it is read.
func reseal(data []byte) []byte { return packed.Seal(slices.Clone(data[:len(data)-4])) }
