//go:build unix && !aix && !solaris

package local

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// maxFiles is how many descriptors one read of an answer takes; shared memory
// needs three. Further ones never reach us.
const maxFiles = 8

var errFilesLost = errors.New("not all descriptors arrived (open file limit?)")

// writeWithFiles sends b and, with its first byte, files.
func writeWithFiles(uc *net.UnixConn, b []byte, files []*os.File) error {
	if len(files) == 0 {
		_, err := uc.Write(b)
		return err
	}
	fds := make([]int, len(files))
	for i, f := range files {
		rc, err := f.SyscallConn()
		if err != nil {
			return err
		}
		if err := rc.Control(func(fd uintptr) { fds[i] = int(fd) }); err != nil {
			return err
		}
	}
	// The caller's references keep the descriptors open until this returns.
	n, _, err := uc.WriteMsgUnix(b, unix.UnixRights(fds...), nil)
	if err == nil && n < len(b) {
		_, err = uc.Write(b[n:])
	}
	return err
}

// fileReader reads a stream and collects the descriptors that come with it.
type fileReader struct {
	uc  *net.UnixConn
	fds []int
	bad error // why fds are not to be used
}

func (r *fileReader) Read(b []byte) (int, error) {
	var oob [128]byte // room for maxFiles and a header
	n, oobn, flags, _, err := r.uc.ReadMsgUnix(b, oob[:unix.CmsgSpace(4*maxFiles)])
	if flags&unix.MSG_CTRUNC != 0 {
		r.bad = errFilesLost
	}
	if oobn > 0 {
		r.take(oob[:oobn])
	}
	return n, err
}

func (r *fileReader) take(oob []byte) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		r.bad = fmt.Errorf("control message: %w", err)
		return
	}
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			r.bad = fmt.Errorf("control message: %w", err)
			continue
		}
		r.fds = append(r.fds, fds...)
	}
	if len(r.fds) > maxFiles {
		r.bad = fmt.Errorf("%d descriptors, at most %d", len(r.fds), maxFiles)
		r.close()
	}
}

// release gives the descriptors to the caller.
func (r *fileReader) release() []int {
	fds := r.fds
	r.fds = nil
	return fds
}

// close closes the descriptors nobody took.
func (r *fileReader) close() {
	for _, fd := range r.release() {
		_ = unix.Close(fd)
	}
}

// duplicate gives a second connection object for the same socket.
func duplicate(uc *net.UnixConn) (*net.UnixConn, error) {
	f, err := uc.File()
	if err != nil {
		return nil, fmt.Errorf("duplicate socket: %w", err)
	}
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("duplicate socket: %w", err)
	}
	d, ok := c.(*net.UnixConn)
	if !ok {
		_ = c.Close()
		return nil, errors.New("duplicate socket: not a unix socket")
	}
	return d, nil
}
