//go:build linux && (amd64 || arm64)

package shm

// pause tells the processor n times that a loop waits for another core.
//
//go:noescape
func pause(n uint32)
