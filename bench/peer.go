package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
)

// peer is one way of carrying the echo call between two processes.
type peer struct {
	name    string
	network string   // of the listener: "unix" or "tcp"
	env     []string // "KEY=value", set in both processes
	// listen opens the listener; nil: net.Listen.
	listen func(network, address string) (net.Listener, error)
	// serve starts answering on lis and returns a function that ends it and
	// waits.
	serve func(lis net.Listener) (stop func() error, err error)
	// dial connects to the address the server listens on, for that many callers.
	dial func(addr net.Addr, callers int) (client, error)
	// streams says that its client is a streamer.
	streams bool
	// aside: only by name.
	aside bool
}

// errOtherWay is wrapped when a peer's calls are carried by something else.
var errOtherWay = errors.New("calls are carried")

// client is the calling end of a peer.
type client interface {
	// echo makes one unary call. Callers are numbered from 0; one caller has one
	// call at a time, and different callers call at once. The reply is the
	// caller's to keep; payload may be changed once echo has returned.
	echo(ctx context.Context, caller int, payload []byte) ([]byte, error)
	// check fails, with errOtherWay or because it cannot tell, unless calls go the
	// way the peer's name says.
	check() error
	close() error
}

// basePeer is the one that ratios refer to.
const basePeer = "grpc-unix"

// ownPrefix begins the names of the peers that are not rivals.
const ownPrefix = "stile-"

// peers lists all peers, in the order of the table.
func peers() []peer {
	list := []peer{grpcUnixPeer(), grpcTCPPeer(), connectPeer(), ttrpcPeer(), drpcPeer(), netrpcPeer()}
	list = append(list, stilePeers()...)
	return append(list, doorPeers()...)
}

// peersNamed returns the peers of a comma-separated list; "" names all but those that
// only make sense beside each other (doorPeers).
func peersNamed(names string) ([]peer, error) {
	all := peers()
	if names == "" {
		return slices.DeleteFunc(all, func(p peer) bool { return p.aside }), nil
	}
	var list []peer
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(all, func(p peer) bool { return p.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no peer %q; there are %s", name, peerNames(all))
		}
		list = append(list, all[i])
	}
	return list, nil
}

func peerNames(list []peer) string {
	names := make([]string, len(list))
	for i, p := range list {
		names[i] = p.name
	}
	return strings.Join(names, ",")
}
