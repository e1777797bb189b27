// Package packed reads what is written as varints and texts, one after the other, and was damaged or made by strangers: nothing is larger than what is read.
package packed

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"math"
)

// ErrDamaged: it is not as it was written.
var ErrDamaged = errors.New("it is damaged")

// AppendString appends a text.
func AppendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// AppendFloat appends a number.
func AppendFloat(b []byte, f float64) []byte {
	return binary.LittleEndian.AppendUint64(b, math.Float64bits(f))
}

// AppendID appends a text that is short if it is hex, of lower case, as IDs are.
func AppendID(b []byte, id string) []byte {
	if raw, err := hex.DecodeString(id); err == nil && hex.EncodeToString(raw) == id {
		return append(binary.AppendUvarint(b, uint64(len(raw))<<1|1), raw...)
	}
	return append(binary.AppendUvarint(b, uint64(len(id))<<1), id...)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Seal appends a checksum.
func Seal(b []byte) []byte {
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// Open returns what Seal was given.
func Open(b []byte) ([]byte, error) {
	n := len(b) - 4
	if n < 0 || binary.LittleEndian.Uint32(b[n:]) != crc32.Checksum(b[:n], castagnoli) {
		return nil, ErrDamaged
	}
	return b[:n], nil
}

// Reader reads values in the order in which they were appended. After the first that is not there it reads zeros.
type Reader struct {
	all []byte
	at  int
	bad bool
}

// NewReader returns one of bytes, which may not change while it is used.
func NewReader(b []byte) Reader { return Reader{all: b} }

// Fail says that what was read makes no sense.
func (r *Reader) Fail() { r.at, r.bad = len(r.all), true }

// Uint reads what binary.AppendUvarint has written.
func (r *Reader) Uint() uint64 {
	if r.at < len(r.all) && r.all[r.at] < 0x80 {
		r.at++
		return uint64(r.all[r.at-1])
	}
	return r.long()
}

func (r *Reader) long() uint64 {
	v, n := binary.Uvarint(r.all[r.at:])
	if n <= 0 {
		r.Fail()
		return 0
	}
	r.at += n
	return v
}

// Int reads what binary.AppendVarint has written.
func (r *Reader) Int() int64 {
	u := r.Uint()
	return int64(u>>1) ^ -int64(u&1)
}

// Below reads a number that is less than n.
func (r *Reader) Below(n int) int {
	u := r.Uint()
	if u >= uint64(max(n, 0)) {
		r.Fail()
		return 0
	}
	return int(u)
}

// Count reads how many follow, of so many bytes each at least: there are no more than bytes for them.
func (r *Reader) Count(least int) int {
	u := r.Uint()
	if u > uint64(r.Len()/least) {
		r.Fail()
		return 0
	}
	return int(u)
}

// Bytes reads n bytes, which are those that the Reader was given.
func (r *Reader) Bytes(n int) []byte {
	if n < 0 || n > r.Len() {
		r.Fail()
		return nil
	}
	r.at += n
	return r.all[r.at-n : r.at : r.at]
}

// String reads what AppendString has written.
func (r *Reader) String() string { return string(r.Bytes(r.Count(1))) }

// ID reads what AppendID has written.
func (r *Reader) ID() string {
	u := r.Uint()
	b := r.Bytes(int(min(u>>1, math.MaxInt32)))
	if u&1 == 1 {
		return hex.EncodeToString(b)
	}
	return string(b)
}

// SkipID reads past what AppendID has written.
func (r *Reader) SkipID() { r.Bytes(int(min(r.Uint()>>1, math.MaxInt32))) }

// Uint64 reads eight bytes, the lowest first.
func (r *Reader) Uint64() uint64 {
	if b := r.Bytes(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// Float reads what AppendFloat has written.
func (r *Reader) Float() float64 { return math.Float64frombits(r.Uint64()) }

// Len is how many bytes are left.
func (r *Reader) Len() int { return len(r.all) - r.at }

// Err is [ErrDamaged] if something was not there, or made no sense.
func (r *Reader) Err() error {
	if r.bad {
		return ErrDamaged
	}
	return nil
}

// End is Err, or [ErrDamaged] if something is left.
func (r *Reader) End() error {
	if r.Len() > 0 {
		return ErrDamaged
	}
	return r.Err()
}
