package sock

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"

	"github.com/stile-ipc/stile/transport"
)

// PeerCred returns who connected the other end of c, as the kernel knows it
// (SO_PEERCRED). Where the system has no such thing, Known is false.
func PeerCred(c *net.UnixConn) (transport.Cred, error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return transport.Cred{}, fmt.Errorf("sock: peer credentials: %w", err)
	}
	var u *unix.Ucred
	var optErr error
	err = rc.Control(func(fd uintptr) {
		u, optErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err == nil {
		err = optErr
	}
	if err != nil {
		return transport.Cred{}, fmt.Errorf("sock: peer credentials: %w", err)
	}
	return transport.Cred{PID: int(u.Pid), UID: int(u.Uid), GID: int(u.Gid), Known: true}, nil
}
