package near

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

type fieldProto = descriptorpb.FieldDescriptorProto

func descriptor(m proto.Message) protoreflect.MessageDescriptor { return m.ProtoReflect().Descriptor() }

func keyer(t testing.TB, of proto.Message, fields ...string) *Keyer {
	t.Helper()
	k, err := NewKeyer(descriptor(of), fields)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func keyOf(t testing.TB, k *Keyer, m proto.Message) []byte {
	t.Helper()
	key, err := k.Append([]byte("before"), m)
	if err != nil {
		t.Fatal(err)
	}
	key, found := bytes.CutPrefix(key, []byte("before"))
	if !found {
		t.Fatal("what was there is gone")
	}
	return key
}

func TestNewKeyerErrors(t *testing.T) {
	for _, tt := range []struct{ field, want string }{
		{"nmae", `"nmae"`},
		{"", `no field ""`},
		{"options.", `no field ""`},
		{"options.nothing", `google.protobuf.FieldOptions has no field "nothing"`},
		{"name.length", `"name" is not a message`},
		{"options.uninterpreted_option.name", `"uninterpreted_option" is repeated`},
		{"options.targets", ""},
		{"options.editionDefaults", ""},
		{"options.edition_defaults", ""},
		{"jsonName", ""},
	} {
		_, err := NewKeyer(descriptor(&fieldProto{}), []string{"name", tt.field})
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%q: %v", tt.field, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%q: %v, want %s", tt.field, err, tt.want)
		}
	}
}

func TestKeys(t *testing.T) {
	text := func(s string) *fieldProto {
		m := &fieldProto{}
		if err := prototext.Unmarshal([]byte(s), m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	for _, tt := range []struct {
		fields string
		a, b   string
		same   bool
	}{
		{"name", `name: "a" number: 1`, `name: "a" number: 2`, true},
		{"name", `name: "a"`, `name: "b"`, false},
		{"name", `name: ""`, ``, false},
		{"name json_name", `name: "ab" json_name: "c"`, `name: "a" json_name: "bc"`, false},
		{"name jsonName", `name: "a"`, `json_name: "a"`, false},
		{"number", `number: 1`, `number: -1`, false},
		{"type", `type: TYPE_BOOL`, `type: TYPE_BYTES`, false},
		{"options.lazy", `options: {}`, ``, false},
		{"options.lazy", `options: {lazy: false}`, `options: {}`, false},
		{"options.lazy", `options: {lazy: true packed: true}`, `options: {lazy: true}`, true},
		{"options.targets", `options: {targets: [1, 2]}`, `options: {targets: [2, 1]}`, false},
		{"options.targets", `options: {targets: [1, 2]}`, `options: {targets: 1 targets: 2 lazy: true}`, true},
		{"options", `options: {lazy: true}`, `name: "a" options: {lazy: true}`, true},
		{"options", `options: {lazy: true}`, `options: {lazy: false}`, false},
		{"options", `options: {}`, ``, false},
		{"", `name: "a" number: 1`, `number: 1 name: "a"`, true},
		{"", `name: "a" number: 1`, `name: "a"`, false},
	} {
		k := keyer(t, &fieldProto{}, strings.Fields(tt.fields)...)
		if a, b := keyOf(t, k, text(tt.a)), keyOf(t, k, text(tt.b)); bytes.Equal(a, b) != tt.same {
			t.Errorf("%s of %s and %s: %x and %x, want the same: %v", tt.fields, tt.a, tt.b, a, b, tt.same)
		}
	}
}

// TestKinds has each kind of scalar without presence make different keys.
func TestKinds(t *testing.T) {
	for _, tt := range [][]proto.Message{
		{wrapperspb.Bool(false), wrapperspb.Bool(true)},
		{wrapperspb.Int32(0), wrapperspb.Int32(-1), wrapperspb.Int32(math.MinInt32), wrapperspb.Int32(math.MaxInt32)},
		{wrapperspb.Int64(0), wrapperspb.Int64(math.MinInt64), wrapperspb.Int64(1)},
		{wrapperspb.UInt32(0), wrapperspb.UInt32(math.MaxUint32)},
		{wrapperspb.UInt64(0), wrapperspb.UInt64(math.MaxUint64)},
		{wrapperspb.Float(0), wrapperspb.Float(-0.5), wrapperspb.Float(math.SmallestNonzeroFloat32)},
		{wrapperspb.Double(0), wrapperspb.Double(math.Inf(1)), wrapperspb.Double(math.NaN())},
		{wrapperspb.String(""), wrapperspb.String("a"), wrapperspb.String(strings.Repeat("a", 300))},
		{wrapperspb.Bytes(nil), wrapperspb.Bytes([]byte{0}), wrapperspb.Bytes([]byte{0, 0})},
	} {
		k, seen := keyer(t, tt[0], "value"), map[string]bool{}
		for _, m := range tt {
			key := string(keyOf(t, k, m))
			if seen[key] {
				t.Errorf("%v: key %x is there already", m, key)
			}
			seen[key] = true
			if again := keyOf(t, k, proto.Clone(m)); string(again) != key {
				t.Errorf("%v: key %x, then %x", m, key, again)
			}
		}
	}
}

func TestMapsAreSorted(t *testing.T) {
	m := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	for _, r := range "abcdefghijklmnop" {
		m.Fields[string(r)] = structpb.NewStringValue(string(r))
	}
	for _, k := range []*Keyer{keyer(t, m), keyer(t, m, "fields")} {
		want := keyOf(t, k, m)
		for range 50 {
			if got := keyOf(t, k, proto.Clone(m)); !bytes.Equal(got, want) {
				t.Fatalf("key %x, then %x", want, got)
			}
		}
		less := proto.Clone(m).(*structpb.Struct)
		delete(less.Fields, "c")
		if bytes.Equal(keyOf(t, k, less), want) {
			t.Error("the same key with an entry less")
		}
	}
}

func TestUnknownFields(t *testing.T) {
	a, b := &durationpb.Duration{Seconds: 1}, &durationpb.Duration{Seconds: 1}
	b.ProtoReflect().SetUnknown([]byte{0x78, 1}) // field 15
	if k := keyer(t, a); bytes.Equal(keyOf(t, k, a), keyOf(t, k, b)) {
		t.Error("unknown fields do not count in a whole request")
	}
	if k := keyer(t, a, "seconds"); !bytes.Equal(keyOf(t, k, a), keyOf(t, k, b)) {
		t.Error("unknown fields count beside named ones")
	}
}

// TestOtherDescriptor has requests of the same type by name, made otherwise.
func TestOtherDescriptor(t *testing.T) {
	generated := &durationpb.Duration{Seconds: 1, Nanos: 2}
	file, err := protodesc.NewFile(protodesc.ToFileDescriptorProto(durationpb.File_google_protobuf_duration_proto), nil)
	if err != nil {
		t.Fatal(err)
	}
	dynamic := dynamicpb.NewMessage(file.Messages().Get(0))
	wire, err := proto.Marshal(generated)
	if err == nil {
		err = proto.Unmarshal(wire, dynamic)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []*Keyer{keyer(t, generated), keyer(t, generated, "nanos", "seconds")} {
		for range 2 {
			if a, b := keyOf(t, k, generated), keyOf(t, k, dynamic); !bytes.Equal(a, b) {
				t.Errorf("keys %x and %x", a, b)
			}
		}
		for _, wrong := range []proto.Message{nil, wrapperspb.String("")} {
			if _, err := k.Append(nil, wrong); err == nil {
				t.Errorf("no error for %v", wrong)
			}
		}
		keyOf(t, k, (*durationpb.Duration)(nil))
	}
}

func TestKeyAllocates(t *testing.T) {
	m := &fieldProto{Name: proto.String("sku"), Number: proto.Int32(5), Options: &descriptorpb.FieldOptions{Lazy: proto.Bool(true)}}
	for _, tt := range []struct {
		of     proto.Message
		fields []string
	}{
		{m, nil},
		{m, []string{"name"}},
		{m, []string{"name", "number", "json_name", "options.lazy"}},
		{wrapperspb.String("sku"), []string{"value"}},
		{wrapperspb.Bytes([]byte("sku")), []string{"value"}},
	} {
		k, dst := keyer(t, tt.of, tt.fields...), make([]byte, 0, 1000)
		if n := testing.AllocsPerRun(1000, func() { _, _ = k.Append(dst, tt.of) }); n != 0 {
			t.Errorf("%v: %v allocations", tt.fields, n)
		}
	}
}

var fuzzFields = []string{"name", "number", "type", "options.deprecated", "options.targets", "options.features", "options.edition_defaults", "json_name"}

// projection copies the fields of m that count into a new message.
func projection(t *testing.T, m proto.Message, fields []string) proto.Message {
	out := m.ProtoReflect().New()
	for _, field := range fields {
		path, err := resolve(out.Descriptor(), field)
		if err != nil {
			t.Fatal(err)
		}
		from, to := m.ProtoReflect(), out
		for i, fd := range path {
			if !from.Has(fd) {
				break
			}
			if i == len(path)-1 {
				to.Set(fd, from.Get(fd))
				break
			}
			from, to = from.Get(fd).Message(), to.Mutable(fd).Message()
		}
	}
	return out.Interface()
}

func FuzzKey(f *testing.F) {
	seed := func(a, b *fieldProto) {
		x, _ := proto.Marshal(a)
		y, _ := proto.Marshal(b)
		f.Add(x, y)
	}
	options := &descriptorpb.FieldOptions{Deprecated: proto.Bool(true), Targets: []descriptorpb.FieldOptions_OptionTargetType{1, 2}}
	seed(&fieldProto{Name: proto.String("ab")}, &fieldProto{JsonName: proto.String("ab")})
	seed(&fieldProto{Options: options}, &fieldProto{Options: options, Number: proto.Int32(0)})
	f.Add([]byte("\x0a\x01a\xf8\x3f\x01"), []byte("\xf8\x3f\x01\x0a\x01a"))
	f.Fuzz(func(t *testing.T, x, y []byte) {
		for _, known := range []bool{false, true} {
			read := proto.UnmarshalOptions{DiscardUnknown: known, AllowPartial: true}
			a, b := &fieldProto{}, &fieldProto{}
			if read.Unmarshal(x, a) != nil || read.Unmarshal(y, b) != nil {
				return
			}
			for _, m := range []*fieldProto{a, b} {
				if m.Options != nil {
					m.Options.UninterpretedOption = nil // has a float, and 0 == -0
				}
			}
			for _, fields := range [][]string{nil, fuzzFields} {
				k, want := keyer(t, a, fields...), proto.Equal(a, b)
				if fields != nil {
					want = proto.Equal(projection(t, a, fields), projection(t, b, fields))
				}
				ka, errA := k.Append(nil, a)
				kb, errB := k.Append(nil, b)
				if errA != nil || errB != nil {
					t.Fatal(errA, errB)
				}
				same := bytes.Equal(ka, kb)
				if same && !want || known && want && !same {
					t.Errorf("fields %v of %v and %v: keys %x and %x", fields, a, b, ka, kb)
				}
				if again := keyOf(t, k, proto.Clone(a)); !bytes.Equal(again, ka) {
					t.Errorf("%v: key %x, then %x", a, ka, again)
				}
			}
		}
	})
}

func BenchmarkKey(b *testing.B) {
	m := &fieldProto{Name: proto.String("sku-12345678"), Number: proto.Int32(5), Options: &descriptorpb.FieldOptions{Lazy: proto.Bool(true), Targets: []descriptorpb.FieldOptions_OptionTargetType{1}}}
	for _, fields := range []string{"", "name", "name number options.lazy", "options", "options.targets"} {
		name := fields
		if name == "" {
			name = "whole"
		}
		b.Run(name, func(b *testing.B) {
			k, dst := keyer(b, m, strings.Fields(fields)...), make([]byte, 0, 1000)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := k.Append(dst, m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
