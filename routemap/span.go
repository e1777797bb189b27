package routemap

import "hash/fnv"

// Kind is what a span is of a call, or of a message.
type Kind uint8

// The kinds of OpenTelemetry. Unknown is for formats that do not say.
const (
	Unknown Kind = iota
	Internal
	Server
	Client
	Producer
	Consumer
)

// Span is a piece of work, as all formats have it in common.
type Span struct {
	Trace   string
	ID      uint64
	Parent  uint64 // 0: none
	Links   []Link // to what it follows, and does not hold up
	Follows bool   // its parent does not wait for it
	Kind    Kind
	Service string
	Host    string // times of one host are of one clock; "": not said
	Name    string
	Start   int64 // ns since 1970
	End     int64 // ns since 1970; not before Start

	Operation   string // what was called, if that is said apart from the name
	Peer        string // name of the other side, as this one knows it
	PeerKind    NodeKind
	Transport   string // as in routes; "": not said
	Destination string // of a message
	Class       string // of its error; "": there is none
	Request     int64  // bytes; negative: not said
	Response    int64
	Print       uint64 // the same for calls that ask for the same; 0: not said
	Resent      bool   // it was tried before

	Bodies *Bodies // nil: nobody has looked
	Note   bool    // it is none, but says what was seen of the one with this ID

	Counted bool // a hub tells of it, as one of many calls that it has counted

	Weight uint32     // of a root: how many calls it stands for; 0: one
	Waits  *SpanWaits // nil: it is not said
	Call   *SpanCall  // nil: it is not said
}

// SpanWaits is where a call waited, ns.
type SpanWaits struct {
	ClientQueue int64 `json:"clientQueue"`
	Far         bool  `json:"-"` // what follows is known
	Transport   int64 `json:"transport"`
	ServerQueue int64 `json:"serverQueue"`
	Handler     int64 `json:"handler"`
}

// SpanCall is what Stile has noted of a call that it has traced, beside what every span says. Times are ns after the span's start; 0: it did not happen, or is not known.
type SpanCall struct {
	Sent     int64 `json:"sent,omitempty"`     // what opens it was written, by its client
	Handling int64 `json:"handling,omitempty"` // its handler began, at its server
	Handled  int64 `json:"handled,omitempty"`  // its answer was encoded, there
	Over     int64 `json:"over,omitempty"`     // nothing more happened at this side

	// For which limit it waited, ns.
	Limit     int64 `json:"limit,omitempty"`     // of the policy, at its client
	Slot      int64 `json:"slot,omitempty"`      // a place among the server's streams
	Window    int64 `json:"window,omitempty"`    // room in the windows of flow control
	Admission int64 `json:"admission,omitempty"` // of the policy, at its server

	Try   uint32  `json:"try,omitempty"`   // attempts that were made before
	End   CallEnd `json:"end,omitempty"`   // why it has ended
	Cause string  `json:"cause,omitempty"` // of a cancellation, if who cancelled has said it
}

// CallEnd is why a call has ended, if not by its server's answer.
type CallEnd uint8

// Why calls end.
const (
	Answered  CallEnd = iota
	Cancelled         // by who made it
	Expired           // its deadline has passed
	Lost              // no answer came: of the connection, or it was not sent
)

var callEnds = [...]string{"answered", "cancelled", "deadline", "lost"}

// MarshalText names it.
func (e CallEnd) MarshalText() ([]byte, error) {
	return []byte(callEnds[min(int(e), len(callEnds)-1)]), nil
}

// Link is a reference to a span, perhaps of another trace.
type Link struct {
	Trace string
	ID    uint64
}

// Classes of errors that are counted apart.
const (
	ClassTimeout = "timeout"
	ClassCancel  = "cancelled"
	ClassError   = "error"
)

// SpanID is the number of an ID as formats write it: hex, or any text.
func SpanID(text string) uint64 {
	if text == "" {
		return 0
	}
	if len(text) <= 16 {
		n, ok := uint64(0), true
		for i := range len(text) {
			d := digit(text[i])
			if ok = ok && d < 16; !ok {
				break
			}
			n = n<<4 | uint64(d)
		}
		if ok {
			return n
		}
	}
	h := fnv.New64a()
	h.Write([]byte(text))
	return max(h.Sum64(), 1)
}

func digit(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 16
}
