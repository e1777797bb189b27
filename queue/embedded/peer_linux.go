package embedded

import (
	"fmt"
	"net"
	"os"
	"syscall"
)

// ours refuses a server that another user has put where one of this user's was. Root may visit anybody's.
func ours(c net.Conn) error {
	u, ok := c.(*net.UnixConn)
	if !ok || os.Getuid() == 0 {
		return nil
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return err
	}
	var cred *syscall.Ucred
	var errCred error
	err = raw.Control(func(fd uintptr) {
		cred, errCred = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	switch {
	case err != nil:
		return err
	case errCred != nil:
		return errCred
	case int(cred.Uid) != os.Getuid():
		return fmt.Errorf("the process that listens there is of the user %d", cred.Uid)
	}
	return nil
}
