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

	Weight uint32     // of a root: how many calls it stands for; 0: one
	Waits  *SpanWaits // nil: it is not said
}

// SpanWaits is where a call waited, ns.
type SpanWaits struct {
	ClientQueue int64 `json:"clientQueue"`
	Far         bool  `json:"-"` // what follows is known
	Transport   int64 `json:"transport"`
	ServerQueue int64 `json:"serverQueue"`
	Handler     int64 `json:"handler"`
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
