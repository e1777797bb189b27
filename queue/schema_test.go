package queue

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// TestSchemaHash: it is another one when anything of the type is, at any depth, and the same for the same type in another file.
func TestSchemaHash(t *testing.T) {
	hash := func(file string, change func(*descriptorpb.FileDescriptorProto)) string {
		t.Helper()
		f := &descriptorpb.FileDescriptorProto{
			Name: &file, Package: proto.String("a"), Syntax: proto.String("proto3"),
			MessageType: []*descriptorpb.DescriptorProto{
				{Name: proto.String("Outer"), Field: []*descriptorpb.FieldDescriptorProto{{Name: proto.String("inner"), Number: proto.Int32(1), Type: descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(), TypeName: proto.String(".a.Inner")}}},
				{Name: proto.String("Inner"), Field: []*descriptorpb.FieldDescriptorProto{
					{Name: proto.String("kind"), Number: proto.Int32(1), Type: descriptorpb.FieldDescriptorProto_TYPE_ENUM.Enum(), TypeName: proto.String(".a.Kind")},
					{Name: proto.String("outer"), Number: proto.Int32(2), Type: descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(), TypeName: proto.String(".a.Outer")},
				}},
				{Name: proto.String("Other")},
			},
			EnumType: []*descriptorpb.EnumDescriptorProto{{Name: proto.String("Kind"), Value: []*descriptorpb.EnumValueDescriptorProto{{Name: proto.String("NONE"), Number: proto.Int32(0)}}}},
		}
		change(f)
		d, err := protodesc.NewFile(f, nil)
		if err != nil {
			t.Fatal(err)
		}
		return schemaHash(d.Messages().ByName(protoreflect.Name("Outer")))
	}
	nothing := func(*descriptorpb.FileDescriptorProto) {}
	first := hash("one.proto", nothing)
	if len(first) != 16 || hash("two.proto", nothing) != first {
		t.Errorf("%q, and %q in another file", first, hash("two.proto", nothing))
	}
	for name, change := range map[string]func(*descriptorpb.FileDescriptorProto){
		"number": func(f *descriptorpb.FileDescriptorProto) { f.MessageType[1].Field[0].Number = proto.Int32(3) },
		"enum": func(f *descriptorpb.FileDescriptorProto) {
			f.EnumType[0].Value = append(f.EnumType[0].Value, &descriptorpb.EnumValueDescriptorProto{Name: proto.String("ONE"), Number: proto.Int32(1)})
		},
	} {
		if hash("one.proto", change) == first {
			t.Errorf("%s: the same", name)
		}
	}
	if hash("one.proto", func(f *descriptorpb.FileDescriptorProto) { f.MessageType[2].Name = proto.String("Another") }) != first {
		t.Error("a type that is not in it counts")
	}
}

// TestUnreadableTells: the error of a message that cannot be read names both versions of its type.
func TestUnreadableTells(t *testing.T) {
	q := open(t, t.TempDir())
	top := topic(t, q, "orders")
	theirs := addressOf("orders", top.schema, schemaHash((&structpb.Struct{}).ProtoReflect().Descriptor()))
	msg, err := theirs.envelope("", false, []byte{0xff}, publishing{}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := q.store(t.Context(), msg, false); err != nil {
		t.Fatal(err)
	}
	publish(t, top, "good")
	got := make(chan string, 1)
	sub := subscribe(t, top, "g", func(_ context.Context, m *Msg[text]) error { got <- m.Value.GetValue(); return nil })
	if v := next(t, got); v != "good" {
		t.Error(v)
	}
	until(t, func() bool { st, err := sub.Stats(t.Context()); return err == nil && st.Dead == 1 })
	l, err := top.DeadLetters("g").List(t.Context(), 1, nil)
	if err != nil || l[0].Reason != "unreadable" || !strings.Contains(l[0].Error, strings.TrimPrefix(theirs.content, contentType+schemaParam)) || !strings.Contains(l[0].Error, schemaHash(wrapperspb.String("").ProtoReflect().Descriptor())) {
		t.Errorf("%+v %v", l, err)
	}
}

// TestPolicyVersion: a message says under which policy it was published.
func TestPolicyVersion(t *testing.T) {
	version := "2026-11-28.1"
	q, err := Open(t.Context(), Config{Dir: t.TempDir(), Logger: quiet(), PolicyVersion: func() string { return version }})
	if err != nil {
		t.Fatal(err)
	}
	defer shut(t, q)
	top := topic(t, q, "orders")
	for _, version = range []string{"2026-11-28.1", "", "a\nb"} {
		publish(t, top, "x")
	}
	ms, err := q.Peek(t.Context(), "orders", 1, 3)
	if err != nil || len(ms) != 3 || ms[0].Header.Get(headerPolicy) != "2026-11-28.1" || ms[1].Header[headerPolicy] != nil || ms[2].Header.Get(headerPolicy) != "a b" {
		t.Errorf("%+v %v", ms, err)
	}
}
