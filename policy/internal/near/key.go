package near

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"sync/atomic"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// whole marshals messages so that equal ones give equal bytes. Fields that must be
// there are the call's affair.
var whole = proto.MarshalOptions{Deterministic: true, AllowPartial: true}

// Keyer makes keys of the requests of one method. It is safe for concurrent use.
type Keyer struct {
	name   protoreflect.FullName
	fields []string
	last   atomic.Pointer[plan] // for the descriptor that was seen last
}

// plan is what a Keyer reads of messages that have one descriptor.
type plan struct {
	message protoreflect.MessageDescriptor
	paths   [][]protoreflect.FieldDescriptor
}

// NewKeyer returns a Keyer for messages of the type request. Each field is a path
// of names, as in .proto files or in JSON, such as "sku" or "item.id"; only its last
// may be repeated or a map. Without fields the whole request counts.
func NewKeyer(request protoreflect.MessageDescriptor, fields []string) (*Keyer, error) {
	k := &Keyer{name: request.FullName(), fields: append([]string(nil), fields...)}
	p, err := k.plan(request)
	if err != nil {
		return nil, err
	}
	k.last.Store(p)
	return k, nil
}

func (k *Keyer) plan(md protoreflect.MessageDescriptor) (*plan, error) {
	p := &plan{message: md}
	for _, field := range k.fields {
		path, err := resolve(md, field)
		if err != nil {
			return nil, err
		}
		p.paths = append(p.paths, path)
	}
	return p, nil
}

func resolve(md protoreflect.MessageDescriptor, field string) ([]protoreflect.FieldDescriptor, error) {
	var path []protoreflect.FieldDescriptor
	names := strings.Split(field, ".")
	for i, name := range names {
		fd := md.Fields().ByName(protoreflect.Name(name))
		if fd == nil {
			fd = md.Fields().ByJSONName(name)
		}
		if fd == nil {
			return nil, fmt.Errorf("near: key field %q: %s has no field %q", field, md.FullName(), name)
		}
		path = append(path, fd)
		if i == len(names)-1 {
			break
		}
		if fd.IsList() || fd.IsMap() {
			return nil, fmt.Errorf("near: key field %q: %q is repeated and may only be last", field, name)
		}
		if md = fd.Message(); md == nil {
			return nil, fmt.Errorf("near: key field %q: %q is not a message", field, name)
		}
	}
	return path, nil
}

// Append appends the key of req to dst and returns it, extended as far as it got if
// there is an error. Requests have the same key if what counts of them is the same:
// numbers by their bits, fields that have presence also by whether they are there,
// and in a whole message unknown fields, as they came. Keys of different Keyers may
// be the same.
func (k *Keyer) Append(dst []byte, req proto.Message) ([]byte, error) {
	if req == nil {
		return dst, fmt.Errorf("near: no request, want a %s", k.name)
	}
	m := req.ProtoReflect()
	p := k.last.Load()
	if md := m.Descriptor(); md != p.message {
		if md.FullName() != k.name {
			return dst, fmt.Errorf("near: the request is a %s, want a %s", md.FullName(), k.name)
		}
		var err error
		if p, err = k.plan(md); err != nil {
			return dst, err
		}
		k.last.Store(p)
	}
	if len(p.paths) == 0 {
		dst, err := whole.MarshalAppend(dst, req)
		if err != nil {
			return dst, fmt.Errorf("near: key of a %s: %w", k.name, err)
		}
		return dst, nil
	}
	for _, path := range p.paths {
		var err error
		if dst, err = appendPath(dst, m, path); err != nil {
			return dst, fmt.Errorf("near: key of a %s: %w", k.name, err)
		}
	}
	return dst, nil
}

// appendPath appends the value at the end of path. Each message on the way that may
// be absent takes a byte; an absent one ends the path. So who knows the types can
// read the value back, and no two make the same bytes.
func appendPath(dst []byte, m protoreflect.Message, path []protoreflect.FieldDescriptor) ([]byte, error) {
	for i, fd := range path {
		if fd.HasPresence() || fd.Cardinality() == protoreflect.Repeated {
			if !m.Has(fd) {
				return append(dst, 0), nil
			}
			dst = append(dst, 1)
		}
		if i == len(path)-1 {
			return appendField(dst, m, fd)
		}
		m = m.Get(fd).Message()
	}
	return dst, nil
}

func appendField(dst []byte, m protoreflect.Message, fd protoreflect.FieldDescriptor) ([]byte, error) {
	v := m.Get(fd)
	switch {
	case fd.IsList() || fd.IsMap():
		only := m.New() // shares the list or map with m and only reads it
		only.Set(fd, v)
		return appendMessage(dst, only)
	case fd.Message() != nil:
		return appendMessage(dst, v.Message())
	}
	switch fd.Kind() {
	case protoreflect.StringKind:
		s := v.String()
		return append(binary.AppendUvarint(dst, uint64(len(s))), s...), nil
	case protoreflect.BytesKind:
		b := v.Bytes()
		return append(binary.AppendUvarint(dst, uint64(len(b))), b...), nil
	}
	return binary.LittleEndian.AppendUint64(dst, bits(fd.Kind(), v)), nil
}

// bits returns the value of a number, boolean or enum as 64 bits.
func bits(kind protoreflect.Kind, v protoreflect.Value) uint64 {
	switch kind {
	case protoreflect.BoolKind:
		if v.Bool() {
			return 1
		}
		return 0
	case protoreflect.EnumKind:
		return uint64(v.Enum())
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		return math.Float64bits(v.Float())
	case protoreflect.Uint32Kind, protoreflect.Uint64Kind, protoreflect.Fixed32Kind, protoreflect.Fixed64Kind:
		return v.Uint()
	}
	return uint64(v.Int())
}

// appendMessage appends the length of m, in 8 bytes, and m.
func appendMessage(dst []byte, m protoreflect.Message) ([]byte, error) {
	at := len(dst)
	dst, err := whole.MarshalAppend(append(dst, make([]byte, 8)...), m.Interface())
	if err != nil {
		return dst, err
	}
	binary.LittleEndian.PutUint64(dst[at:], uint64(len(dst)-at-8))
	return dst, nil
}
