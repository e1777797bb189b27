//go:build linux

package shm

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// mincore tells for each page of s whether it exists.
func mincore(s *segment, vec []byte) error {
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(s.base), s.total, uintptr(unsafe.Pointer(unsafe.SliceData(vec))))
	if errno != 0 {
		return errno
	}
	return nil
}
