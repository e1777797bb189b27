package redo

import (
	"encoding/binary"
	"errors"
)

// Record is a message that a stream has acknowledged, or the deletion of one.
type Record struct {
	Stream  string
	Created int64  // when the stream was created, in nanoseconds since 1970: streams of one name are told apart
	Seq     uint64 // in the stream; 0: not known yet
	Deleted bool   // the message Seq, of Subject; Data is what tells it from others that may have had Seq
	Subject string
	Header  []byte // as NATS has it on the wire
	Data    []byte
}

// Kinds of records, their first byte.
const (
	kindMessage = 1
	kindDeleted = 2
)

// size is at most how many bytes append adds.
func (r *Record) size() int {
	return 1 + 7*binary.MaxVarintLen64 + len(r.Stream) + len(r.Subject) + len(r.Header) + len(r.Data)
}

func (r *Record) append(b []byte) []byte {
	kind := byte(kindMessage)
	if r.Deleted {
		kind = kindDeleted
	}
	b = append(b, kind)
	b = binary.AppendVarint(b, r.Created)
	b = binary.AppendUvarint(b, r.Seq)
	b = append(binary.AppendUvarint(b, uint64(len(r.Stream))), r.Stream...)
	b = append(binary.AppendUvarint(b, uint64(len(r.Subject))), r.Subject...)
	b = append(binary.AppendUvarint(b, uint64(len(r.Header))), r.Header...)
	return append(binary.AppendUvarint(b, uint64(len(r.Data))), r.Data...)
}

var errRecord = errors.New("redo: a record is not one of ours")

// decoder reads records of which the checksum was right. It does not trust them all the same.
type decoder struct {
	rest []byte
	bad  bool
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 {
		d.bad = true
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) bytes() []byte {
	n := d.uvarint()
	if n > uint64(len(d.rest)) {
		d.bad = true
		return nil
	}
	b := d.rest[:n:n]
	d.rest = d.rest[n:]
	return b
}

// next reads a record, whose bytes are those of the decoder.
func (d *decoder) next() (Record, error) {
	kind := d.rest[0]
	d.rest = d.rest[1:]
	created, n := binary.Varint(d.rest)
	if n <= 0 || kind != kindMessage && kind != kindDeleted {
		return Record{}, errRecord
	}
	d.rest = d.rest[n:]
	r := Record{Created: created, Deleted: kind == kindDeleted, Seq: d.uvarint(), Stream: string(d.bytes()), Subject: string(d.bytes()), Header: d.bytes(), Data: d.bytes()}
	if d.bad {
		return Record{}, errRecord
	}
	return r, nil
}
