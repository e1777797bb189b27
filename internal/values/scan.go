// Package values tells, from protobuf messages as they are on the wire, what calls carry on: large pieces that go from route to route, and whether a call
// was made with what another one had answered. It knows no types, and trusts nothing that it reads.
package values

import (
	"crypto/sha256"
	"encoding/binary"
	"hash/maphash"
	"math"
	"slices"
	"strconv"
	"unicode"
	"unicode/utf8"
)

// Bounds of what is looked at, whatever a message has.
const (
	// MinBlob is the size of a piece that is told of, in bytes.
	MinBlob = 1 << 10
	// MaxBlobs is how many pieces of a body are told of.
	MaxBlobs = 16

	maxWork   = 256 << 10 // bytes that are hashed, and fields that are read, of a body
	maxDepth  = 16        // of messages in messages
	maxValues = 2048      // of a body
	wholeBlob = 64 << 10  // longer ones are known by their length, beginning and end
	maxText   = 1 << 10   // longer ones have no words, and no packed numbers
	minWord   = 4         // bytes
	highTag   = 2048 << 3 // of fields that hardly any message has: it may be packed numbers instead
)

// Blob is a piece of a body that is told of: the body, or a field of it, in which no other field is as long as [MinBlob].
type Blob struct {
	Hash [16]byte
	Size int
}

// Body is what a message has.
type Body struct {
	Blobs []Blob // up to MaxBlobs, those with the least hashes, so that of many the same are told of on every route
	Whole bool   // all of it was looked at, and it is a protobuf message

	values []uint64 // hashes of what it says, in this process; sorted
}

// seed makes hashes of values, which never leave the process.
var seed = maphash.MakeSeed()

// Scan looks at a message, of which it keeps nothing; the message may change meanwhile. The hashes of blobs are the same in all processes for a trace, and others for
// each trace.
func Scan(trace [16]byte, body []byte) *Body { return scan(scanner{trace: trace}, body) }

// Read is Scan for who does not want blobs.
func Read(body []byte) *Body { return scan(scanner{blind: true}, body) }

// Blobs is Scan for who wants nothing but blobs.
func Blobs(trace [16]byte, body []byte) *Body {
	if len(body) < MinBlob {
		return &Body{}
	}
	return scan(scanner{trace: trace, mute: true}, body)
}

func scan(s scanner, body []byte) *Body {
	s.left, s.body = maxWork, &Body{}
	is, _ := s.valid(body)
	s.body.Whole = is && s.fields(body, 0)
	if len(body) >= MinBlob && s.blobs == 0 {
		s.blob(body)
	}
	s.body.Whole = s.body.Whole && s.left >= 0
	slices.Sort(s.body.values)
	s.body.values = slices.Clip(slices.Compact(s.body.values))
	return s.body
}

type scanner struct {
	trace [16]byte
	left  int  // work
	blobs int  // found
	blind bool // for them
	mute  bool // no values are wanted
	body  *Body
}

// spend reports whether there is room for so much work. It stays false once it is.
func (s *scanner) spend(n int) bool {
	if s.left >= 0 {
		s.left -= n
	}
	return s.left >= 0
}

// field is one of a message: a number, or bytes if it has them.
type field struct {
	number uint64
	bytes  []byte
	long   bool // bytes are what it has
}

// next cuts the first field off; ok is false where there is none. Groups are none: no language writes them any more.
func next(b []byte) (f field, rest []byte, ok bool) {
	tag, n := binary.Uvarint(b)
	if n <= 0 || tag>>3 == 0 || tag > math.MaxUint32 {
		return f, nil, false
	}
	b = b[n:]
	switch tag & 7 {
	case 0:
		f.number, n = binary.Uvarint(b)
		return f, b[max(n, 0):], n > 0
	case 1:
		if len(b) < 8 {
			return f, nil, false
		}
		f.number = binary.LittleEndian.Uint64(b)
		return f, b[8:], true
	case 2:
		size, n := binary.Uvarint(b)
		if n <= 0 || size > uint64(len(b)-n) {
			return f, nil, false
		}
		f.bytes, f.long = b[n:n+int(size)], true
		return f, b[n+int(size):], true
	case 5:
		if len(b) < 4 {
			return f, nil, false
		}
		f.number = uint64(binary.LittleEndian.Uint32(b))
		return f, b[4:], true
	}
	return f, nil, false
}

// valid reports whether bytes can be a message, and whether it is one that looks like it.
func (s *scanner) valid(b []byte) (is, likely bool) {
	for likely = true; len(b) > 0; {
		tag, _ := binary.Uvarint(b)
		if _, b, is = next(b); !is || !s.spend(1) {
			return false, false
		}
		likely = likely && tag < highTag
	}
	return true, likely
}

// fields looks at those of a message; false: not at all of them.
func (s *scanner) fields(b []byte, depth int) bool {
	for len(b) > 0 {
		f, rest, ok := next(b)
		if !ok || !s.spend(1) {
			return false
		}
		if b = rest; !f.long {
			s.number(f.number)
		} else if !s.piece(f.bytes, depth+1) {
			return false
		}
	}
	return true
}

// piece looks at bytes, which may be a text, a message, packed numbers, or just bytes: nothing tells, so they are taken for all that they can be.
func (s *scanner) piece(b []byte, depth int) bool {
	had := s.blobs
	nested, likely := s.valid(b)
	if nested && (depth > maxDepth || !s.fields(b, depth)) {
		s.left = -1
		return false
	}
	if len(b) >= MinBlob && s.blobs == had {
		s.blob(b)
	}
	switch {
	case s.mute:
	case len(b) > maxText && !nested:
		s.bytes(b)
	case len(b) > 0 && len(b) <= maxText:
		s.bytes(b)
		if isText(b) {
			s.words(string(b))
		} else if !likely {
			s.packed(b)
		}
	}
	return s.left >= 0
}

// packed are numbers, one after the other.
func (s *scanner) packed(b []byte) {
	for len(b) > 0 {
		v, n := binary.Uvarint(b)
		if n <= 0 || !s.spend(1) {
			return
		}
		s.number(v)
		b = b[n:]
	}
}

func isText(b []byte) bool {
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		if r == utf8.RuneError && n == 1 || unicode.IsControl(r) && r != '\n' && r != '\t' && r != '\r' {
			return false
		}
		b = b[n:]
	}
	return true
}

// words are those of a text that have a digit, as IDs in paths and addresses do. One that is a number counts as that, too.
func (s *scanner) words(text string) {
	for begin := 0; begin < len(text); {
		end := begin
		digits := 0
		for end < len(text) && isWord(text[end]) {
			if '0' <= text[end] && text[end] <= '9' {
				digits++
			}
			end++
		}
		word := text[begin:end]
		if digits > 0 && digits == len(word) {
			if v, err := strconv.ParseUint(word, 10, 64); err == nil {
				s.number(v)
			}
		}
		if digits > 0 && len(word) >= minWord && len(word) < len(text) && s.spend(len(word)) {
			s.value(maphash.String(seed, word))
		}
		begin = end + 1
	}
}

func isWord(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '-' || c == '_' || c >= utf8.RuneSelf
}

// number is a value, but for 0 and 1, which say too little.
func (s *scanner) number(v uint64) {
	if v > 1 && !s.mute {
		s.value(maphash.Comparable(seed, v))
	}
}

func (s *scanner) bytes(b []byte) {
	if len(b) <= wholeBlob {
		if s.spend(len(b)) {
			s.value(maphash.Bytes(seed, b))
		}
		return
	}
	if s.spend(wholeBlob) {
		first, last := ends(b)
		s.value(maphash.Comparable(seed, [3]uint64{maphash.Bytes(seed, first), maphash.Bytes(seed, last), uint64(len(b))}))
	}
}

func (s *scanner) value(hash uint64) {
	if len(s.body.values) >= maxValues {
		s.left = -1
		return
	}
	s.body.values = append(s.body.values, hash)
}

// blob keeps a piece, if it has one of the least hashes.
func (s *scanner) blob(b []byte) {
	s.blobs++
	if s.blind || !s.spend(min(len(b), wholeBlob)) {
		return
	}
	one := Blob{Size: len(b)}
	h := sha256.New()
	h.Write(s.trace[:])
	if len(b) <= wholeBlob {
		h.Write(b)
	} else {
		first, last := ends(b)
		h.Write(first)
		h.Write(last)
		h.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(b))))
	}
	copy(one.Hash[:], h.Sum(nil))
	at, has := slices.BinarySearchFunc(s.body.Blobs, one, func(a, b Blob) int { return slices.Compare(a.Hash[:], b.Hash[:]) })
	if has || at == MaxBlobs {
		return
	}
	if len(s.body.Blobs) == MaxBlobs {
		s.body.Blobs = s.body.Blobs[:MaxBlobs-1]
	}
	s.body.Blobs = slices.Insert(s.body.Blobs, at, one)
}

func ends(b []byte) (first, last []byte) { return b[:wholeBlob/2], b[len(b)-wholeBlob/2:] }
