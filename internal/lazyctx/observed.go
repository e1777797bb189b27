package lazyctx

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
)

// Observed is room for what grpc-go tells of an attempt through call options.
type Observed struct {
	header  metadata.MD
	trailer metadata.MD
	peer    peer.Peer
	room    [6]grpc.CallOption
}

// Options returns opts and those that fill o.
func (o *Observed) Options(opts []grpc.CallOption) []grpc.CallOption {
	all := append(o.room[:0], grpc.HeaderCallOption{HeaderAddr: &o.header}, grpc.TrailerCallOption{TrailerAddr: &o.trailer}, grpc.PeerCallOption{PeerAddr: &o.peer})
	return append(all, opts...)
}

// Report tells what was seen of an attempt that has failed.
func (o *Observed) Report() Report {
	return Report{Known: true, Sent: o.peer.Addr != nil, Answered: len(o.header) > 0, Trailer: o.trailer}
}
