//go:build linux && !amd64 && !arm64

package shm

// pause wastes a little time, n times.
//
//go:noinline
func pause(n uint32) {
	for ; n > 0; n-- {
	}
}
