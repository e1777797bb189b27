// Package wire defines the frames that carry calls between two Stile peers.
//
// It is pure bytes: it knows no connection, no stream state and no gRPC type.
// Everything it decodes may come from a hostile peer; every decoder bounds what
// it allocates by the length of its input and returns an error that wraps
// [ErrMalformed] instead of panicking.
//
// docs/PROTOCOL.md draws the frames.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Protocol versions this package can speak, lowest and highest. Peers agree on
// the highest version both know, before the first frame.
const (
	VersionMin = 1
	VersionMax = 1
)

const (
	// HeaderSize is the encoded size of a [Header] in bytes.
	HeaderSize = 16
	// MaxPayload is the largest payload of one frame in bytes. Longer messages
	// and heads are split over frames.
	MaxPayload = 64<<10 - HeaderSize
)

// ErrMalformed is wrapped by every decoding error of this package.
var ErrMalformed = errors.New("wire: malformed")

// Type says what a frame is for.
type Type uint8

const (
	// TypeStream carries a part of one call; its flags say which.
	TypeStream Type = 1
	// TypePart carries a piece of a head too long for one frame. The payloads of
	// the parts are put before the payload of the stream's next TypeStream frame.
	TypePart Type = 2
	// TypeReset ends a call at once, in both directions. Its payload is a
	// [Reset].
	TypeReset Type = 3
	// TypeWindow lets the peer send more message bytes on a stream. Its payload
	// is a 4-byte number of bytes.
	TypeWindow Type = 4
	// TypeGoAway announces, from a server, that the client shall make no new calls;
	// from a client, that none will come.
	TypeGoAway Type = 5
)

// Flags of a TypeStream frame: the sections its payload holds. Call, Header and
// Trailer sections are each preceded by a 4-byte length and come in this order;
// the rest of the payload is message bytes.
type Flags uint8

const (
	// FlagCall marks a [Call] section: the first frame of a stream, client to server.
	FlagCall Flags = 1 << iota
	// FlagHeader marks a metadata section: the response header.
	FlagHeader
	// FlagTrailer marks a [Trailer] section: status and trailer. It ends the stream.
	FlagTrailer
	// FlagHalfClose says the client sends nothing more.
	FlagHalfClose
)

// Header is what stands before every frame's payload.
type Header struct {
	Len    uint32 // payload bytes, at most MaxPayload
	Type   Type
	Flags  Flags
	Stream uint64 // id of the call, chosen by the client; 0 where there is none
}

// PutHeader encodes h into the first HeaderSize bytes of b.
func PutHeader(b []byte, h Header) {
	_ = b[HeaderSize-1]
	binary.LittleEndian.PutUint32(b, h.Len)
	b[4] = byte(h.Type)
	b[5] = byte(h.Flags)
	b[6], b[7] = 0, 0
	binary.LittleEndian.PutUint64(b[8:], h.Stream)
}

// ParseHeader decodes and checks the first HeaderSize bytes of b. Unknown types
// and flags, and a length over [MaxPayload], are errors.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < HeaderSize {
		return Header{}, fmt.Errorf("%w: header of %d bytes, need %d", ErrMalformed, len(b), HeaderSize)
	}
	h := Header{
		Len:    binary.LittleEndian.Uint32(b),
		Type:   Type(b[4]),
		Flags:  Flags(b[5]),
		Stream: binary.LittleEndian.Uint64(b[8:]),
	}
	switch {
	case h.Len > MaxPayload:
		return h, fmt.Errorf("%w: payload of %d bytes, at most %d", ErrMalformed, h.Len, MaxPayload)
	case h.Type < TypeStream || h.Type > TypeGoAway:
		return h, fmt.Errorf("%w: unknown frame type %d", ErrMalformed, h.Type)
	case h.Flags >= FlagHalfClose<<1 || (h.Flags != 0 && h.Type != TypeStream):
		return h, fmt.Errorf("%w: flags %#x on frame type %d", ErrMalformed, uint8(h.Flags), h.Type)
	case b[6] != 0 || b[7] != 0:
		return h, fmt.Errorf("%w: reserved header bytes are set", ErrMalformed)
	}
	return h, nil
}
