//go:build unix && !aix && !solaris && !darwin

package local

import (
	"net"

	"github.com/stile-ipc/stile/transport"
	"github.com/stile-ipc/stile/transport/sock"
)

func peerCred(uc *net.UnixConn) (transport.Cred, error) { return sock.PeerCred(uc) }
