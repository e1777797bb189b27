package local

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"

	"github.com/stile-ipc/stile/transport"
)

// peerCred asks with LOCAL_PEERCRED, which is what getpeereid(3) does, and
// LOCAL_PEERPID.
func peerCred(uc *net.UnixConn) (transport.Cred, error) {
	rc, err := uc.SyscallConn()
	if err != nil {
		return transport.Cred{}, fmt.Errorf("local: peer credentials: %w", err)
	}
	var cred transport.Cred
	var optErr error
	err = rc.Control(func(fd uintptr) {
		var x *unix.Xucred
		if x, optErr = unix.GetsockoptXucred(int(fd), unix.SOL_LOCAL, unix.LOCAL_PEERCRED); optErr != nil {
			return
		}
		cred = transport.Cred{UID: int(x.Uid), GID: -1, Known: true}
		if x.Ngroups > 0 {
			cred.GID = int(x.Groups[0])
		}
		if pid, err := unix.GetsockoptInt(int(fd), unix.SOL_LOCAL, unix.LOCAL_PEERPID); err == nil {
			cred.PID = pid
		}
	})
	if err == nil {
		err = optErr
	}
	if err != nil {
		return transport.Cred{}, fmt.Errorf("local: peer credentials: %w", err)
	}
	return cred, nil
}
