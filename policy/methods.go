package policy

import (
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
)

// Method is what a .proto says of a method.
type Method struct {
	Idempotency Idempotency
	Streams     bool // one side or both
	Request     protoreflect.MessageDescriptor
}

// Methods are those of some .proto files, by "/service/method".
type Methods map[string]*Method

// MethodsOf returns the methods of all services in files. Use
// [protoregistry.GlobalFiles] for those linked into the program.
func MethodsOf(files *protoregistry.Files) Methods {
	found := Methods{}
	files.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			s := f.Services().Get(i)
			for j := range s.Methods().Len() {
				m := s.Methods().Get(j)
				found["/"+string(s.FullName())+"/"+string(m.Name())] = methodOf(m)
			}
		}
		return true
	})
	return found
}

// serviceOf returns "/service/" of "/service/method", and "" of neither.
func serviceOf(method string) string { return method[:strings.LastIndexByte(method, '/')+1] }

// services returns the services that have one of the methods, as "/service/".
func (ms Methods) services() map[string]bool {
	found := map[string]bool{}
	for name := range ms {
		found[serviceOf(name)] = true
	}
	return found
}

func methodOf(m protoreflect.MethodDescriptor) *Method {
	known := &Method{Streams: m.IsStreamingClient() || m.IsStreamingServer(), Request: m.Input()}
	if o, ok := m.Options().(*descriptorpb.MethodOptions); ok && proto.Size(o) > 0 {
		switch o.GetIdempotencyLevel() {
		case descriptorpb.MethodOptions_NO_SIDE_EFFECTS:
			known.Idempotency = NoSideEffects
		case descriptorpb.MethodOptions_IDEMPOTENT:
			known.Idempotency = Idempotent
		}
	}
	return known
}

// field tells whether the request has a field at path, such as item.id.
func (m *Method) field(path []string) bool {
	msg := m.Request
	for i, name := range path {
		if msg == nil {
			return false
		}
		f := msg.Fields().ByName(protoreflect.Name(name))
		if f == nil {
			f = msg.Fields().ByJSONName(name)
		}
		if f == nil || i < len(path)-1 && (f.IsList() || f.IsMap()) {
			return false
		}
		msg = f.Message()
	}
	return true
}
