//go:build linux

package shm

import (
	"net"
	"os"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/stile-ipc/stile/transport"
)

func TestMain(m *testing.M) {
	if mode := os.Getenv(childEnv); mode != "" {
		runChild(mode)
		return
	}
	goleak.VerifyTestMain(m)
}

func TestAvailable(t *testing.T) {
	if err := Available(); err != nil {
		t.Fatal(err)
	}
}

// newPair makes both ends in this process. The caller closes them.
func newPair(t testing.TB, client, server Config) (attached, created *Conn) {
	t.Helper()
	a, b := controlPair(t)
	created, files, err := Create(a, transport.Info{LocalAddr: a.LocalAddr(), RemoteAddr: a.RemoteAddr()}, server)
	if err != nil {
		t.Fatal(err)
	}
	attached, err = Attach(b, takeFDs(t, files), transport.Info{LocalAddr: b.LocalAddr(), RemoteAddr: b.RemoteAddr()}, client)
	if err != nil {
		t.Fatal(err)
	}
	return attached, created
}

// controlPair makes a connected pair of unix sockets.
func controlPair(t testing.TB) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	return unixConn(t, fds[0]), unixConn(t, fds[1])
}

// unixConn wraps a socket, which it owns.
func unixConn(t testing.TB, fd int) *net.UnixConn {
	t.Helper()
	f := os.NewFile(uintptr(fd), "control")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	return c.(*net.UnixConn)
}

// takeFDs does what SCM_RIGHTS does: new descriptors of the same files, which
// the caller owns. The files are closed.
func takeFDs(t testing.TB, files []*os.File) []int {
	t.Helper()
	var fds []int
	for _, f := range files {
		fd, err := unix.Dup(int(f.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		fds = append(fds, fd)
		f.Close()
	}
	return fds
}
