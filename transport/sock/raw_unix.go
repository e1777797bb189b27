//go:build unix

package sock

import (
	"net"
	"syscall"
)

// rawWriter writes to a socket without having to wait for it. Its user calls
// write from one goroutine at a time.
type rawWriter struct {
	rc syscall.RawConn
	fn func(fd uintptr) bool // made once, so that write does not allocate

	b     []byte
	block bool
	n     int
	err   error
}

// newRawWriter returns nil for what is not a plain socket.
func newRawWriter(c net.Conn) *rawWriter {
	var rc syscall.RawConn
	var err error
	switch c := c.(type) {
	case *net.UnixConn:
		rc, err = c.SyscallConn()
	case *net.TCPConn:
		rc, err = c.SyscallConn()
	default:
		return nil
	}
	if err != nil {
		return nil
	}
	r := &rawWriter{rc: rc}
	r.fn = r.try
	return r
}

// write makes one write(2) of b. Without block, n is 0 when the kernel is full;
// with it, it waits until the kernel takes something.
func (r *rawWriter) write(b []byte, block bool) (n int, err error) {
	r.b, r.block, r.n, r.err = b, block, 0, nil
	if err := r.rc.Write(r.fn); err != nil {
		return 0, err
	}
	return r.n, r.err
}

// try uses package syscall because the race detector knows the order between its
// writes and package net's reads.
func (r *rawWriter) try(fd uintptr) bool {
	for {
		n, err := syscall.Write(int(fd), r.b)
		switch err {
		case nil:
			r.n = n
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			return !r.block
		default:
			r.err = err
		}
		return true
	}
}
