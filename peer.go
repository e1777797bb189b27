package stile

import (
	"net"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/stile-ipc/stile/transport"
)

// AuthInfo is the peer of a local call as peer.FromContext shows it: an identity
// that the kernel gave, not one that the peer claims.
type AuthInfo struct {
	credentials.CommonAuthInfo
	Transport     string // what carries the calls: "shm" or "unix"
	PID, UID, GID int    // of the peer when it connected (SO_PEERCRED); -1: the platform has none
}

// AuthType implements [credentials.AuthInfo]. It returns "stile".
func (AuthInfo) AuthType() string { return "stile" }

// peerOf describes the other end of a connection. The addresses are those of the
// listener beside the door, not the rendezvous's: they are what users look at.
func peerOf(i transport.Info, remote, near net.Addr) *peer.Peer {
	if !i.Peer.Known {
		i.Peer = transport.Cred{PID: -1, UID: -1, GID: -1}
	}
	return &peer.Peer{
		Addr:      remote,
		LocalAddr: near,
		AuthInfo: AuthInfo{
			CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
			Transport:      i.Transport,
			PID:            i.Peer.PID,
			UID:            i.Peer.UID,
			GID:            i.Peer.GID,
		},
	}
}

// nearOf is the address of a client on this host that calls the server at addr:
// without a name for a unix socket; for TCP, of the same host, without a port.
func nearOf(addr net.Addr) net.Addr {
	t, ok := addr.(*net.TCPAddr)
	switch {
	case !ok:
		return &net.UnixAddr{Net: "unix", Name: "@"}
	case t.IP.IsUnspecified() && t.IP.To4() != nil:
		return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}
	case t.IP.IsUnspecified():
		return &net.TCPAddr{IP: net.IPv6loopback}
	}
	return &net.TCPAddr{IP: t.IP, Zone: t.Zone}
}
