package stile

import (
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/stile-ipc/stile/transport"
)

// AuthInfo is the peer of a local call as peer.FromContext shows it: an identity
// that the kernel gave, not one that the peer claims.
type AuthInfo struct {
	credentials.CommonAuthInfo
	Transport     string // what carries the calls: "shm" or "unix"
	PID, UID, GID int    // of the peer when it connected (SO_PEERCRED)
}

// AuthType implements [credentials.AuthInfo]. It returns "stile".
func (AuthInfo) AuthType() string { return "stile" }

// peerOf describes the other end of a connection.
func peerOf(i transport.Info) *peer.Peer {
	return &peer.Peer{
		Addr:      i.RemoteAddr,
		LocalAddr: i.LocalAddr,
		AuthInfo: AuthInfo{
			CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
			Transport:      i.Transport,
			PID:            i.Peer.PID,
			UID:            i.Peer.UID,
			GID:            i.Peer.GID,
		},
	}
}
