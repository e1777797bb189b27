package hub

import (
	"fmt"

	"github.com/stile-ipc/stile/hub/hubpb"
	"github.com/stile-ipc/stile/routemap"
)

// What a span says of bodies, at most.
const (
	maxBlobs = 16
	maxAsked = 64
	maxUses  = 8
)

func checkBodies(b *hubpb.Bodies) error {
	if len(b.GetRequest()) > maxBlobs || len(b.GetResponse()) > maxBlobs || len(b.GetAsked()) > maxAsked {
		return fmt.Errorf("%d and %d blobs, %d calls; %d and %d at most", len(b.GetRequest()), len(b.GetResponse()), len(b.GetAsked()), maxBlobs, maxAsked)
	}
	for _, all := range [][]*hubpb.Blob{b.GetRequest(), b.GetResponse()} {
		for _, one := range all {
			if len(one.GetHash()) != len(routemap.Blob{}.Hash) || one.GetSize() > maxReportBytes {
				return fmt.Errorf("a blob of %d bytes, with a hash of %d", one.GetSize(), len(one.GetHash()))
			}
		}
	}
	for _, a := range b.GetAsked() {
		if len(a.GetUses()) > maxUses {
			return fmt.Errorf("a call that uses %d answers; %d at most", len(a.GetUses()), maxUses)
		}
	}
	return nil
}

// bodiesOf is what a span says of bodies, as a map has it. It was checked.
func bodiesOf(b *hubpb.Bodies) *routemap.Bodies {
	if b == nil {
		return nil
	}
	out := &routemap.Bodies{Request: blobsOf(b.GetRequest()), Response: blobsOf(b.GetResponse())}
	for _, a := range b.GetAsked() {
		out.Asked = append(out.Asked, routemap.Asked{Span: a.GetSpan(), Looked: a.GetLooked(), Uses: a.GetUses(), Used: a.GetUsed()})
	}
	return out
}

func blobsOf(all []*hubpb.Blob) (out []routemap.Blob) {
	for _, b := range all {
		out = append(out, routemap.Blob{Hash: [16]byte(b.GetHash()), Size: int64(b.GetSize())})
	}
	return out
}
