//go:build unix && !aix && !solaris

package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

func socketKey(path string) (Key, error) {
	fi, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("%w: %w", ErrNoEntry, err)
	case err != nil:
		return "", fmt.Errorf("local: key of %s: %w", path, err)
	case fi.Mode().Type() != fs.ModeSocket:
		return "", fmt.Errorf("%w: %s is no socket", ErrAddress, path)
	}
	id := identity(fi)
	return Key(fmt.Sprintf("unix-%d:%d", id.dev, id.ino)), nil
}

// fileID tells files apart for as long as one of them is open or bound.
type fileID struct{ dev, ino uint64 }

func identity(fi fs.FileInfo) fileID {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return fileID{}
	}
	return fileID{uint64(st.Dev), uint64(st.Ino)}
}

func owner(fi fs.FileInfo) int {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid)
	}
	return -1
}

func ownUID() int { return os.Geteuid() }

func takesOnly6(c syscall.Conn) bool {
	rc, err := c.SyscallConn()
	if err != nil {
		return false
	}
	v := 0
	_ = rc.Control(func(fd uintptr) {
		v, _ = unix.GetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
	})
	return v != 0
}
