package spans

import (
	"time"

	"github.com/stile-ipc/stile/internal/values"
	"github.com/stile-ipc/stile/telemetry"
)

// TraceID is a trace's. It is random but for one bit (see [Buffer.Looks]), and never zero.
type TraceID [16]byte

// Ended says why a call has ended, if not by its server's answer.
type Ended uint8

// Why.
const (
	Answered  Ended = iota
	Cancelled       // by who made it
	Expired         // its deadline has passed
	Lost            // no answer came: of the connection, or it was not sent
)

// Span is one side of a call that is traced. Until it is handed to a [Buffer] it belongs to the call; afterwards it is not changed. Times are on telemetry's clock;
// 0: it did not happen, or is not known.
type Span struct {
	Trace  TraceID
	ID     uint64
	Parent uint64 // 0: it is a root
	Weight uint32 // of a root: how many calls it stands for; else 0

	Link *telemetry.Link // says the side, the transport and the peer
	Name telemetry.RouteName
	Try  uint32 // attempts that were made before

	Begun time.Duration // at a client it was made, at a server it was received
	Sent  time.Duration // what opens the call was written, with its first message if that goes with it; at a client
	// At a server its handler began and ended. At a client that is what the server says of it: see Far.
	Handling, Handled time.Duration
	Over              time.Duration // the call has ended

	Waited time.Duration // until the first frame could be written, and for windows; at a client
	// Of Waited, at a client: for the policy's limit, for a place among the server's streams, and for room in the windows of flow control; what is left it looked for the way there.
	Limit, Slot, Window time.Duration
	Far                 bool          // the next two are known
	Queued              time.Duration // at its server, until its handler began
	Worked              time.Duration // there, from then on
	Admission           time.Duration // of Queued, at a server: for the policy's admission; what is left it waited for a goroutine
	Code                uint32        // of gRPC
	Ended               Ended
	Cause               string // of a cancellation, if who cancelled has said it; at a client
	Request             int64  // bytes of messages as they were sent; negative: not known
	Response            int64

	Bodies *Bodies // nil: nobody has looked at them
	Note   bool    // it is none: somebody else traces the call, and this is what was seen of the bodies of the one with this ID, at its client
}

// Bodies is what was seen of the bodies of a call.
type Bodies struct {
	Request, Response []values.Blob
	Told              []values.Told // of the calls that its handler made
}
