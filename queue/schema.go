package queue

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// A message says of which version its publisher's type was, in a parameter of its content-type: what cannot be read can then be told from
// what is damaged.
const (
	contentType = "application/protobuf"
	schemaParam = "; schema="
)

// schemaHash tells versions of a message type apart: 16 hexadecimal digits of what it and all types in it are. Comments and files do not count.
func schemaHash(d protoreflect.MessageDescriptor) string {
	all := map[protoreflect.FullName]proto.Message{}
	collect(d, all)
	names := make([]protoreflect.FullName, 0, len(all))
	for n := range all {
		names = append(names, n)
	}
	slices.Sort(names)
	h := sha256.New()
	for _, n := range names {
		text, err := proto.MarshalOptions{Deterministic: true}.Marshal(all[n])
		if err != nil { // a descriptor always can be
			panic(err)
		}
		h.Write([]byte(n))
		h.Write(text)
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

func collect(d protoreflect.MessageDescriptor, all map[protoreflect.FullName]proto.Message) {
	if all[d.FullName()] != nil {
		return
	}
	all[d.FullName()] = protodesc.ToDescriptorProto(d)
	fields := d.Fields()
	for i := range fields.Len() {
		if m := fields.Get(i).Message(); m != nil {
			collect(m, all)
		}
		if e := fields.Get(i).Enum(); e != nil {
			all[e.FullName()] = protodesc.ToEnumDescriptorProto(e)
		}
	}
}

// isProtobuf reads a content-type, and the schema's hash if it has one.
func isProtobuf(s string) (hash string, ok bool) {
	kind, hash, _ := strings.Cut(s, schemaParam)
	return hash, kind == contentType
}
