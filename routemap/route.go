package routemap

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/stile-ipc/stile/telemetry"
)

// NodeKind is what is at an end of a route.
type NodeKind string

// The kinds of nodes.
const (
	Process  NodeKind = "process"
	Service  NodeKind = "service"
	Queue    NodeKind = "queue"
	Memory   NodeKind = "shm"
	External NodeKind = "external" // only its callers tell of it
	Group    NodeKind = "group"    // of those who handle a queue's messages; only findings have it
)

// Node names an end of a route.
type Node struct {
	Kind NodeKind `json:"kind"`
	Name string   `json:"name"`
}

// String is the node's name, with its kind if that is not a service.
func (n Node) String() string {
	if n.Kind == Service || n.Kind == "" {
		return n.Name
	}
	return string(n.Kind) + " " + n.Name
}

// The transports of routes. An empty one is not known.
const (
	SHM           = "shm"
	UnixStream    = "unix-stream"
	UnixDgram     = "unix-dgram"
	UnixSeqpacket = "unix-seqpacket"
	TCPLoopback   = "tcp-loopback"
	TCP           = "tcp"
	Pipe          = "pipe"
	Broker        = "broker"
	InProc        = "inproc"
)

// Mode is whether who calls waits.
type Mode string

// The modes of routes.
const (
	Sync   Mode = "sync"
	Async  Mode = "async"
	Stream Mode = "stream"
)

// Key names a route.
type Key struct {
	From      Node   `json:"from"`
	To        Node   `json:"to"`
	Transport string `json:"transport,omitempty"`
	Operation string `json:"operation"` // *: all of them, as what the host shows does not tell
	Mode      Mode   `json:"mode"`
}

// ID names the route to programs: 16 hex digits, always the same for a key.
func (k Key) ID() string {
	var text []byte
	for _, field := range []string{string(k.From.Kind), k.From.Name, string(k.To.Kind), k.To.Name, k.Transport, k.Operation, string(k.Mode)} {
		text = append(binary.AppendUvarint(text, uint64(len(field))), field...)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}

// String is FROM → TO OPERATION.
func (k Key) String() string { return fmt.Sprintf("%s → %s %s", k.From, k.To, k.Operation) }

// Evidence is a span that shows something.
type Evidence struct {
	Trace string  `json:"trace"`
	Span  SpanHex `json:"span,omitempty"`
}

// SpanHex is a span's ID, in hex for people.
type SpanHex uint64

// MarshalText writes 16 digits.
func (s SpanHex) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%016x", uint64(s)), nil }

// UnmarshalText reads what MarshalText has written.
func (s *SpanHex) UnmarshalText(text []byte) error { *s = SpanHex(SpanID(string(text))); return nil }

// maxEvidence is how many traces are kept to show something.
const maxEvidence = 5

// maxSamples is how many durations of a route are kept as they are, to compare two maps.
const maxSamples = 512

// Stats is what is known of a route in a window. Stats of several windows can be merged.
type Stats struct {
	Calls     uint64              `json:"calls"`
	Paired    uint64              `json:"paired"` // calls of which both sides tell
	Errors    map[string]uint64   `json:"errors,omitempty"`
	Retries   uint64              `json:"retries,omitempty"`
	Client    telemetry.Histogram `json:"client"`             // ns, as who calls sees it
	Server    telemetry.Histogram `json:"server"`             // ns, as who is called sees it
	Failures  telemetry.Histogram `json:"failures"`           // ns, of calls that failed: those of Client, or of Server if who calls does not tell
	Gap       telemetry.Histogram `json:"gap"`                // ns, the difference: transport, queues, codec. Of messages: from sent to received
	Queue     telemetry.Histogram `json:"queue"`              // ns at the server until the handler began; counted by it
	Waits     Waits               `json:"waits,omitzero"`     // as counted
	Carried   Carried             `json:"carried,omitzero"`   // as counted
	Switches  uint64              `json:"switches,omitempty"` // context switches of the processes at both ends, by the route's share of their calls
	Wakes     uint64              `json:"wakes,omitempty"`    // times that Stile woke a peer, as the connections counted
	Spin      int64               `json:"spin,omitempty"`     // ns that Stile waited without sleep, at both ends, likewise
	RunQueue  int64               `json:"runQueue,omitempty"` // ns that threads of the processes were ready to run and did not, by the route's share of their calls
	Sources   Sources             `json:"sources"`
	Request   telemetry.Histogram `json:"request"`           // bytes
	Response  telemetry.Histogram `json:"response"`          // bytes
	Critical  int64               `json:"critical"`          // ns on critical paths that belong to neither side
	Through   int64               `json:"through"`           // ns on critical paths that were spent behind it: on the route, in who is called, and further
	Alone     int64               `json:"alone"`             // ns that callers waited for it and for nothing else
	Callers   int64               `json:"callers"`           // ns that those who called it took in all
	Repeats   uint64              `json:"repeats,omitempty"` // calls that asked for what the trace had asked for before
	Known     uint64              `json:"known,omitempty"`   // calls of which it is known what they asked for
	Roots     uint64              `json:"roots"`             // traces that have it
	Traced    uint64              `json:"traced"`            // calls of which traces tell
	Looked    uint64              `json:"looked,omitempty"`  // traces that have it, and of which somebody looked at its bodies
	Busy      uint64              `json:"busy,omitempty"`    // of them, those that have it ten times or more
	Evidence  []Evidence          `json:"evidence,omitempty"`
	Samples   []int64             `json:"samples,omitempty"`  // client durations, or the server's, ns: any of them as likely as any other
	Left      telemetry.Histogram `json:"deadlineLeft"`       // ns until the deadline when calls arrived, of those that have one; as the server counts
	Decisions Decisions           `json:"decisions,omitzero"` // as counted
	Open      Open                `json:"open,omitzero"`      // as seen
	sampled   uint64
}

// histograms are all that it has, in the order in which they are stored.
func (s *Stats) histograms() []*telemetry.Histogram {
	return []*telemetry.Histogram{&s.Client, &s.Server, &s.Failures, &s.Gap, &s.Queue, &s.Request, &s.Response}
}

func (s *Stats) fail(class string) { s.failN(class, 1) }

func (s *Stats) failN(class string, n uint64) {
	if class == "" {
		return
	}
	if s.Errors == nil {
		s.Errors = map[string]uint64{}
	}
	if _, known := s.Errors[class]; !known && len(s.Errors) >= maxClasses {
		class = other
	}
	s.Errors[class] += n
}

// ServerAlone reports whether calls are known by their server alone, which does not know where they waited before.
func (s *Stats) ServerAlone() bool { return s.Client.Count() == 0 }

// Failed is how many calls ended with an error.
func (s *Stats) Failed() uint64 {
	n := uint64(0)
	for _, c := range s.Errors {
		n += c
	}
	return n
}

func (s *Stats) sample(r *rand.Rand, ns int64) {
	s.sampled++
	if len(s.Samples) < maxSamples {
		s.Samples = append(s.Samples, ns)
	} else if i := r.Uint64N(s.sampled); i < maxSamples {
		s.Samples[i] = ns
	}
}

func (s *Stats) show(trace string, span uint64) {
	if len(s.Evidence) < maxEvidence {
		s.Evidence = append(s.Evidence, Evidence{trace, SpanHex(span)})
	}
}

// Duration is how long the calls took, as who calls sees it, or who is called if that is all there is.
func (s *Stats) Duration() *telemetry.Histogram {
	if s.Client.Count() > 0 || s.Server.Count() == 0 {
		return &s.Client
	}
	return &s.Server
}

// Route is a route and what is known of it.
type Route struct {
	Key
	*Stats
}

// MarshalJSON writes the key's fields and the stats'.
func (r Route) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		ID string `json:"id"`
		Key
		Stats
		Failed       uint64 `json:"failed"`
		Inconsistent bool   `json:"inconsistent,omitempty"`
	}{r.ID(), r.Key, *r.Stats, r.Failed(), r.Inconsistent()})
}

// operation is what a span says was called, without what differs from call to call.
func operation(s *Span) string {
	if s.Operation != "" {
		return s.Operation
	}
	return General(s.Name)
}

// General takes out of a name what differs from call to call: a query, and parts of a path that are numbers or IDs.
func General(name string) string {
	if i := strings.IndexByte(name, '?'); i > 0 {
		name = name[:i]
	}
	if !strings.Contains(name, "/") {
		return name
	}
	parts := strings.Split(name, "/")
	for i, p := range parts[1:] {
		if isID(p) {
			parts[i+1] = "{id}"
		}
	}
	return strings.Join(parts, "/")
}

// isID tells whether a part of a path is a number, or a long one of hex digits.
func isID(s string) bool {
	digits, hex := 0, 0
	for i := range len(s) {
		switch c := s[i]; {
		case '0' <= c && c <= '9':
			digits++
		case digit(c) < 16, c == '-':
			hex++
		default:
			return false
		}
	}
	return digits > 0 && hex == 0 || digits > 0 && digits+hex >= 16
}
