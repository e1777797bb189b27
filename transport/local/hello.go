package local

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The handshake, on a fresh stream connection. Numbers are little-endian. Each
// message is a head of 8 bytes, magic and length, and that many bytes of body.
//
//	client                                              server
//	  |                           SO_PEERCRED: allowed uid? |
//	  | SO_PEERCRED: allowed uid?                           |
//	  | hello ------------------------------------------->  |
//	  |                          version? key? shut? memory |
//	  |  <------------------- answer [+ memfd, 2 eventfds]  |
//	  | maps the memory                                     |
//	  | ack --------------------------------------------->  |
//	  | frames <-------------------------------> frames     |
//
//	        0      1      2      3      4      5      6      7
//	      +------+------+------+------+------+------+------+------+
//	head  | 'S'    'T'    'L'   kind  |        body length        |
//	      +------+------+------+------+------+------+------+------+
//	                            kind: 'H' hello, 'A' answer, 'K' ack
//
//	hello | min version | max version |           flags           |
//	      |            pid            |  key bytes  | key ...
//	      | identity of the client's process, 16 bytes ...
//	        flags: 1 wants shared memory, 2 only looks (ends after the ack),
//	        4 reads times in trailers, 8 chooses the traces of its calls
//
//	answer| status |  0  | version    |           flags           |
//	      | min version | max version | reason len. | settings l. |
//	      | reason ...                | settings ...
//	        flags: 1 shared memory, whose files come with the head;
//	        min and max are what the server speaks
//
//	ack   | status |  0  | reason len.| reason ...
//	        status: 1 shared memory, 2 the socket, because of reason
//
// These bodies may grow at their end: what follows the known fields is ignored,
// and so are unknown flags. So the layout above holds for every version, and
// peers of different ages can always tell each other which versions they speak.
// The pid is for people; what is checked comes from the kernel. After an answer
// whose status is not statusOK, and on any error, the side that noticed hangs up.
const (
	magicHello  = "STLH"
	magicAnswer = "STLA"
	magicAck    = "STLK"

	headSize      = 8
	helloSize     = 14
	answerSize    = 16
	ackSize       = 4
	maxHelloBody  = 1 << 10
	maxAnswerBody = 8 << 10
	maxAckBody    = 1 << 10
)

const (
	flagSHM    = 1 << 0
	flagProbe  = 1 << 1
	flagTimes  = 1 << 2
	flagTraces = 1 << 3
)

// Status of an answer.
const (
	statusOK        = 1
	statusUID       = 2
	statusVersion   = 3
	statusWrongKey  = 4
	statusShut      = 5
	statusMalformed = 6
)

// Status of an ack.
const (
	ackSHM    = 1
	ackSocket = 2
)

type hello struct {
	min, max uint16
	flags    uint32
	pid      uint32
	key      Key
	process  [16]byte // zero: it is not said
}

type answer struct {
	status   uint8
	version  uint16
	flags    uint32
	min, max uint16
	reason   string
	settings []byte
}

type ack struct {
	status uint8
	reason string
}

// message begins a message; seal fills in its length.
func message(magic string, room int) []byte {
	b := make([]byte, headSize, headSize+room)
	copy(b, magic)
	return b
}

func seal(b []byte) []byte {
	binary.LittleEndian.PutUint32(b[4:], uint32(len(b)-headSize))
	return b
}

func (h hello) encode() []byte {
	b := message(magicHello, helloSize+len(h.key)+len(h.process))
	b = binary.LittleEndian.AppendUint16(b, h.min)
	b = binary.LittleEndian.AppendUint16(b, h.max)
	b = binary.LittleEndian.AppendUint32(b, h.flags)
	b = binary.LittleEndian.AppendUint32(b, h.pid)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(h.key)))
	b = append(b, h.key...)
	return seal(append(b, h.process[:]...))
}

func decodeHello(b []byte) (hello, error) {
	if len(b) < helloSize {
		return hello{}, fmt.Errorf("%w: hello of %d bytes, need %d", ErrHandshake, len(b), helloSize)
	}
	h := hello{
		min:   binary.LittleEndian.Uint16(b),
		max:   binary.LittleEndian.Uint16(b[2:]),
		flags: binary.LittleEndian.Uint32(b[4:]),
		pid:   binary.LittleEndian.Uint32(b[8:]),
	}
	n := int(binary.LittleEndian.Uint16(b[12:]))
	switch {
	case n > maxKey || n > len(b)-helloSize:
		return hello{}, fmt.Errorf("%w: key of %d bytes in a hello of %d", ErrHandshake, n, len(b))
	case h.min > h.max:
		return hello{}, fmt.Errorf("%w: versions %d to %d", ErrHandshake, h.min, h.max)
	}
	h.key = Key(b[helloSize : helloSize+n])
	if rest := b[helloSize+n:]; len(rest) >= len(h.process) { // earlier clients do not say it
		copy(h.process[:], rest)
	}
	return h, nil
}

func (a answer) encode() []byte {
	reason := clip(a.reason)
	b := message(magicAnswer, answerSize+len(reason)+len(a.settings))
	b = append(b, a.status, 0)
	b = binary.LittleEndian.AppendUint16(b, a.version)
	b = binary.LittleEndian.AppendUint32(b, a.flags)
	b = binary.LittleEndian.AppendUint16(b, a.min)
	b = binary.LittleEndian.AppendUint16(b, a.max)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(reason)))
	b = binary.LittleEndian.AppendUint16(b, uint16(len(a.settings)))
	b = append(b, reason...)
	return seal(append(b, a.settings...))
}

func decodeAnswer(b []byte) (answer, error) {
	if len(b) < answerSize {
		return answer{}, fmt.Errorf("%w: answer of %d bytes, need %d", ErrHandshake, len(b), answerSize)
	}
	a := answer{
		status:  b[0],
		version: binary.LittleEndian.Uint16(b[2:]),
		flags:   binary.LittleEndian.Uint32(b[4:]),
		min:     binary.LittleEndian.Uint16(b[8:]),
		max:     binary.LittleEndian.Uint16(b[10:]),
	}
	nr := int(binary.LittleEndian.Uint16(b[12:]))
	ns := int(binary.LittleEndian.Uint16(b[14:]))
	b = b[answerSize:]
	if nr > maxReason || ns > MaxSettings || nr+ns > len(b) {
		return answer{}, fmt.Errorf("%w: %d bytes of reason and %d of settings in %d", ErrHandshake, nr, ns, len(b))
	}
	a.reason = printable(b[:nr])
	if ns > 0 {
		a.settings = append([]byte(nil), b[nr:nr+ns]...)
	}
	return a, nil
}

func (k ack) encode() []byte {
	reason := clip(k.reason)
	b := message(magicAck, ackSize+len(reason))
	b = append(b, k.status, 0)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(reason)))
	return seal(append(b, reason...))
}

func decodeAck(b []byte) (ack, error) {
	if len(b) < ackSize {
		return ack{}, fmt.Errorf("%w: ack of %d bytes, need %d", ErrHandshake, len(b), ackSize)
	}
	n := int(binary.LittleEndian.Uint16(b[2:]))
	if n > maxReason || n > len(b)-ackSize {
		return ack{}, fmt.Errorf("%w: reason of %d bytes in an ack of %d", ErrHandshake, n, len(b))
	}
	k := ack{status: b[0], reason: printable(b[ackSize : ackSize+n])}
	if k.status != ackSHM && k.status != ackSocket {
		return ack{}, fmt.Errorf("%w: ack status %d", ErrHandshake, k.status)
	}
	return k, nil
}

// readMessage reads one message and not a byte more: frames may follow. A peer
// that hung up before the first byte gives io.EOF itself.
func readMessage(r io.Reader, magic string, limit uint32) ([]byte, error) {
	var head [headSize]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, err
		}
		return nil, fmt.Errorf("%w: %w", ErrHandshake, err)
	}
	if string(head[:4]) != magic {
		return nil, fmt.Errorf("%w: starts with %q, want %q", ErrHandshake, head[:4], magic)
	}
	n := binary.LittleEndian.Uint32(head[4:])
	if n > limit {
		return nil, fmt.Errorf("%w: %s message of %d bytes, at most %d", ErrHandshake, magic, n, limit)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("%w: %w", ErrHandshake, err)
	}
	return body, nil
}

// common is the highest version both ranges hold.
func common(aMin, aMax, bMin, bMax uint16) (uint16, bool) {
	v := min(aMax, bMax)
	return v, v >= max(aMin, bMin)
}

// clip shortens a reason to what a message may carry, at a rune's edge.
func clip(s string) string {
	if len(s) <= maxReason {
		return s
	}
	n := maxReason
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// printable makes a peer's words safe for logs and terminals.
func printable(b []byte) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, string(b))
}
