//go:build unix && !aix && !solaris

package local

import (
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/stile-ipc/stile/transport"
)

// trustedUIDs is our own uid and the allowed ones. A uid that inside our user
// namespace may stand for anyone from outside is never among them.
func trustedUIDs(own int, allow []int) []int {
	uids := append([]int{own}, allow...)
	return slices.DeleteFunc(uids, standsForAnyone)
}

// checkPeer asks the kernel who is at the other end. Where it does not say, the
// permissions of the folder must have kept everyone else out.
func checkPeer(uc *net.UnixConn, uids []int, f *folder, e env) (transport.Cred, error) {
	ask := e.cred
	if ask == nil {
		ask = peerCred
	}
	cred, err := ask(uc)
	switch {
	case err != nil:
		return cred, fmt.Errorf("%w: %w", ErrUID, err)
	case cred.Known && !slices.Contains(uids, cred.UID):
		return cred, fmt.Errorf("%w: uid %d", ErrUID, cred.UID)
	case !cred.Known && (len(uids) != 1 || !f.private(e.uid())):
		return cred, fmt.Errorf("%w: this platform names no peer and %s is open to others", ErrUID, f.path)
	}
	return cred, nil
}

func makeInfo(name string, cred transport.Cred, local, remote string) transport.Info {
	return transport.Info{
		Transport:  name,
		Peer:       cred,
		LocalAddr:  &net.UnixAddr{Name: local, Net: "unix"},
		RemoteAddr: &net.UnixAddr{Name: remote, Net: "unix"},
	}
}

// madeBy adds what a client has said of itself.
func madeBy(client transport.ClientInfo, info transport.Info) transport.Info {
	info.Client = client
	return info
}

const (
	infoSHM    = "shm"
	infoSocket = "unix"
	unnamed    = "@" // what a client's end of a unix connection is called
)

// forever is no deadline, past one that ends what is under way.
var (
	forever = time.Time{}
	past    = time.Unix(1, 0)
)
