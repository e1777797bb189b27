package stile

import (
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/stile-ipc/stile/telemetry"
)

// method is one callable method of a server.
type method struct {
	impl   any
	unary  *grpc.MethodDesc // or
	stream *grpc.StreamDesc
	// wrapped: grpc-go (1.84 on) has made a stream of a unary method, whose handler
	// runs the unary interceptor. It has no stream interceptor.
	wrapped     bool
	nonBlocking bool // may run on the goroutine that receives
}

// methodTable finds methods by full name, "/package.Service/Method".
type methodTable struct {
	methods  map[string]*method
	services map[string]bool
}

func newMethodTable(table serviceTable) methodTable {
	t := methodTable{methods: map[string]*method{}, services: map[string]bool{}}
	for name, e := range table {
		t.services[name] = true
		for m, desc := range e.unary {
			t.methods["/"+name+"/"+m] = &method{impl: e.impl, unary: desc}
		}
		for m, desc := range e.streams {
			wrapped := e.unary == nil && !desc.ClientStreams && !desc.ServerStreams
			t.methods["/"+name+"/"+m] = &method{impl: e.impl, stream: desc, wrapped: wrapped}
		}
	}
	return t
}

// add enters a service as grpc.Server.RegisterService does.
func (t serviceTable) add(desc *grpc.ServiceDesc, impl any) {
	e := &serviceEntry{impl: impl, unary: map[string]*grpc.MethodDesc{}, streams: map[string]*grpc.StreamDesc{}, metadata: desc.Metadata}
	for i := range desc.Methods {
		e.unary[desc.Methods[i].MethodName] = &desc.Methods[i]
	}
	for i := range desc.Streams {
		e.streams[desc.Streams[i].StreamName] = &desc.Streams[i]
	}
	t[desc.ServiceName] = e
}

// unknown is the status for a method that is not in the table.
func (t *methodTable) unknown(name string) *status.Status {
	rest, ok := strings.CutPrefix(name, "/")
	i := strings.LastIndex(rest, "/")
	switch {
	case !ok || i < 0:
		return status.Newf(codes.Unimplemented, "malformed method name: %q", name)
	case t.services[rest[:i]]:
		return status.Newf(codes.Unimplemented, "unknown method %v for service %v", rest[i+1:], rest[:i])
	}
	return status.Newf(codes.Unimplemented, "unknown service %v", rest[:i])
}

// serve runs one call to its status, on a worker.
func (s *serverStream) serve() {
	d := s.cc.conn.door
	defer d.handlers.Done()
	defer s.cc.conn.handled()
	defer s.close()
	s.cc.start()
	s.ctx = s.cc
	if s.rec.arrived != 0 {
		s.rec.begun = telemetry.Now()
	}
	s.trace()
	s.tagStats()
	m := d.method(s.cc.call.Method)
	if m == nil {
		_ = s.writeStatus(d.methods.unknown(s.cc.call.Method))
		return
	}
	s.endStats(s.process(m))
	s.record()
}

// method returns what serves calls of a name; nil: nothing does.
func (d *door) method(name string) *method {
	m := d.methods.methods[name]
	if m == nil && d.set.unknown != nil && d.wellFormed(name) {
		m = &method{stream: d.set.unknown}
	}
	return m
}

// desc says what a method streams.
func (m *method) desc() *grpc.StreamDesc {
	if m.stream == nil {
		return unaryDesc
	}
	return m.stream
}

// wellFormed reports whether a method name has both its slashes: an unknown
// service handler sees no other.
func (d *door) wellFormed(name string) bool {
	return strings.HasPrefix(name, "/") && strings.LastIndex(name, "/") > 0
}

// process runs a method behind its interceptors and writes the status.
func (s *serverStream) process(m *method) error {
	s.desc = m.desc()
	s.beginStats()
	if st := s.setCodec(); st != nil {
		_ = s.writeStatus(st)
		return st.Err()
	}
	var reply any
	var err error
	s.reusable = m.unary != nil
	if full := s.cc.conn.door.full; full != nil {
		err = full(s.ctx, s.cc.call.Method)
	}
	switch {
	case err != nil: // the request is not decoded
	case m.unary != nil:
		reply, err = m.unary.Handler(m.impl, s.ctx, s.RecvMsg, s.cc.conn.door.set.unaryInt)
	default:
		err = s.runStream(m)
	}
	if err != nil {
		st, ok := status.FromError(err)
		if !ok {
			st = status.FromContextError(err)
		}
		_ = s.writeStatus(st)
		return st.Err()
	}
	if m.unary != nil {
		return s.writeReply(reply)
	}
	_ = s.writeStatus(statusOK)
	return nil
}

func (s *serverStream) runStream(m *method) error {
	intercept := s.cc.conn.door.set.streamInt
	if intercept == nil || m.wrapped {
		return s.desc.Handler(m.impl, s)
	}
	info := &grpc.StreamServerInfo{FullMethod: s.cc.call.Method, IsClientStream: s.desc.ClientStreams, IsServerStream: s.desc.ServerStreams}
	return intercept(m.impl, s, info, s.desc.Handler)
}

// setCodec chooses codec and compressors for what the client announced.
func (s *serverStream) setCodec() *status.Status {
	set := &s.cc.conn.door.set
	codec := set.codec
	if codec == nil {
		if s.cc.call.ContentSubtype != "" {
			codec = codecFor(s.cc.call.ContentSubtype)
		}
		if codec == nil { // grpc-go: an unknown subtype is taken for proto
			codec = usualCodec()
		}
	}
	s.pack = packer{codec: codec, lender: s.cc.conn.lend}
	s.unpack = unpacker{codec: codec, limit: set.maxRecv, server: true}
	name := s.cc.call.Encoding
	s.unpack.setEncoding(name, set.dc)
	compressed := name != "" && name != encoding.Identity
	if compressed && s.unpack.dc == nil && s.unpack.comp == nil {
		return status.Newf(codes.Unimplemented, "grpc: Decompressor is not installed for grpc-encoding %q", name)
	}
	switch {
	case set.cp != nil:
		s.pack.cp, s.encoding = set.cp, set.cp.Type()
	case compressed:
		if s.pack.comp = encoding.GetCompressor(name); s.pack.comp != nil {
			s.encoding = name
		}
	}
	return nil
}

// incomingMD is the metadata that a grpc-go server would show for this call.
func (c *callContext) incomingMD() metadata.MD {
	md := make(metadata.MD, len(c.call.MD)+4)
	for k, v := range c.call.MD {
		if !reserved(k) && k != "host" { // :authority is said
			md[k] = v
		}
	}
	md["content-type"] = []string{contentType(c.call.ContentSubtype)}
	if c.call.Authority != "" {
		md[":authority"] = []string{c.call.Authority}
	}
	if c.call.UserAgent != "" {
		md["user-agent"] = []string{c.call.UserAgent}
	}
	if c.call.AcceptEncoding != "" {
		md["grpc-accept-encoding"] = []string{c.call.AcceptEncoding}
	}
	return md
}

var statusOK = status.New(codes.OK, "")
