package redo

import (
	"os"

	"golang.org/x/sys/unix"
)

// dataFile is a file whose size does not change.
type dataFile struct{ *os.File }

// Sync leaves out what only the file's times need.
func (f dataFile) Sync() error {
	for {
		if err := unix.Fdatasync(int(f.Fd())); err != unix.EINTR {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}
