package stile

import (
	"context"
	"errors"
	"io"
	"math"
	"net"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/credentials/local"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/stats"
)

// statsProbe is a stats handler told apart by its address.
type statsProbe struct{ _ int }

func (*statsProbe) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (*statsProbe) HandleRPC(context.Context, stats.RPCStats)                         {}
func (*statsProbe) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (*statsProbe) HandleConn(context.Context, stats.ConnStats)                       {}

// codecProbe is a codec of every generation but the second.
type codecProbe struct{ name string }

func (codecProbe) Marshal(any) ([]byte, error)    { return []byte("probe"), nil }
func (codecProbe) Unmarshal([]byte, any) error    { return nil }
func (c codecProbe) Name() string                 { return c.name }
func (c codecProbe) String() string               { return c.name }
func (codecProbe) Do(w io.Writer, p []byte) error { _, err := w.Write(p); return err }
func (codecProbe) Type() string                   { return "probe" }

// checkingCreds say that they are insecure, and check the peer nevertheless.
type checkingCreds struct {
	credentials.TransportCredentials
}

func (checkingCreds) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("who are you?")
}

type checkingBundle struct{ credentials.Bundle }

func newTestServer(t *testing.T, opts ...grpc.ServerOption) *grpc.Server {
	t.Helper()
	s := grpc.NewServer(opts...)
	t.Cleanup(s.Stop)
	return s
}

func newTestClient(t *testing.T, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	cc, err := grpc.NewClient("passthrough:///stile.test:1", opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return cc
}

func wantShut(t *testing.T, shut []string, words string) {
	t.Helper()
	for _, why := range shut {
		if strings.Contains(why, words) {
			return
		}
	}
	t.Errorf("shut for %q, want a reason with %q", shut, words)
}

func TestDefaultsAreOpen(t *testing.T) {
	s := readServer(newTestServer(t))
	if want := defaultServerSettings(); !reflect.DeepEqual(s, want) {
		t.Errorf("server: %+v, want %+v", s, want)
	}
	c := readClient(newTestClient(t, insecureOption()))
	if len(c.shut) > 0 || c.layoutUnknown {
		t.Errorf("client is shut: %q", c.shut)
	}
	if c.authority != "stile.test:1" || c.userAgent != "grpc-go/"+grpc.Version || c.maxCallAttempts != 5 {
		t.Errorf("client: authority %q, user agent %q, %d attempts", c.authority, c.userAgent, c.maxCallAttempts)
	}
	if len(c.stats)+len(c.perRPC)+len(c.resolvers) > 0 || c.cp != nil || c.dc != nil || c.block {
		t.Errorf("client: %+v", c)
	}
}

func insecureOption() grpc.DialOption {
	return grpc.WithTransportCredentials(insecure.NewCredentials())
}

func TestLocalCredentialsAreOpen(t *testing.T) {
	if s := readServer(newTestServer(t, grpc.Creds(local.NewCredentials()))); len(s.shut) > 0 {
		t.Errorf("server with local credentials: %q", s.shut)
	}
	if s := readServer(newTestServer(t, grpc.Creds(insecure.NewCredentials()))); len(s.shut) > 0 {
		t.Errorf("server with insecure credentials: %q", s.shut)
	}
	if c := readClient(newTestClient(t, grpc.WithTransportCredentials(local.NewCredentials()))); len(c.shut) > 0 {
		t.Errorf("client with local credentials: %q", c.shut)
	}
	if c := readClient(newTestClient(t, grpc.WithCredentialsBundle(insecure.NewBundle()))); len(c.shut) > 0 {
		t.Errorf("client with the insecure bundle: %q", c.shut)
	}
}

// Credentials that look insecure and are not must shut the door.
func TestDisguisedCredentialsShut(t *testing.T) {
	creds := checkingCreds{insecure.NewCredentials()}
	wantShut(t, readServer(newTestServer(t, grpc.Creds(creds))).shut, "checkingCreds")
	wantShut(t, readClient(newTestClient(t, grpc.WithTransportCredentials(creds))).shut, "checkingCreds")
	wantShut(t, readClient(newTestClient(t, grpc.WithCredentialsBundle(checkingBundle{insecure.NewBundle()}))).shut, "checkingBundle")
}

func TestBinaryLogShuts(t *testing.T) {
	s := newTestServer(t)
	opts := structOf(s).FieldByName("opts")
	*(*error)(addr(opts.FieldByName("binaryLogger"))) = errors.New("stands for a logger")
	wantShut(t, readServer(s).shut, shutBinaryLog)

	cc := newTestClient(t, insecureOption())
	dopts := structOf(cc).FieldByName("dopts")
	*(*error)(addr(dopts.FieldByName("binaryLogger"))) = errors.New("stands for a logger")
	wantShut(t, readClient(cc).shut, shutBinaryLog)

	t.Setenv("GRPC_BINARY_LOG_FILTER", "*")
	wantShut(t, readServer(newTestServer(t)).shut, "GRPC_BINARY_LOG_FILTER")
	wantShut(t, readClient(newTestClient(t, insecureOption())).shut, "GRPC_BINARY_LOG_FILTER")
}

// The filters of xDS came with grpc-go 1.84 and have no public constructor.
func TestStreamWrapperShuts(t *testing.T) {
	s := newTestServer(t)
	f := structOf(s).FieldByName("opts").FieldByName("streamWrapper")
	if !f.IsValid() {
		t.Logf("grpc-go v%s has no stream wrapper", grpc.Version)
		return
	}
	exported(f).Set(reflect.ValueOf(func(ss grpc.ServerStream) (grpc.ServerStream, error) { return ss, nil }))
	wantShut(t, readServer(s).shut, "xDS")
}

func TestUnknownLayoutShuts(t *testing.T) {
	oldServer, oldClient := serverLayout, clientLayout
	t.Cleanup(func() { serverLayout, clientLayout = oldServer, oldClient })
	serverLayout = func() string { return "field Server.guard (grpc.Guard)" }
	clientLayout = func() string { return "field ClientConn.guard (grpc.Guard)" }

	s := readServer(newTestServer(t, grpc.MaxRecvMsgSize(7)))
	wantShut(t, s.shut, "grpc-go v"+grpc.Version)
	wantShut(t, s.shut, "Server.guard (grpc.Guard)")
	if !s.layoutUnknown || s.maxRecv != defaultMaxRecv {
		t.Errorf("settings of an unknown layout were read: %+v", s)
	}
	c := readClient(newTestClient(t, insecureOption()))
	wantShut(t, c.shut, "ClientConn.guard (grpc.Guard)")
	if _, err := readServices(newTestServer(t)); err == nil || !strings.Contains(err.Error(), "Server.guard") {
		t.Errorf("readServices: %v", err)
	}
}

func TestNilAndPanicShut(t *testing.T) {
	wantShut(t, readServer(nil).shut, "nil")
	wantShut(t, readClient(nil).shut, "nil")
	if _, err := readServices(nil); err == nil {
		t.Error("readServices(nil) did not fail")
	}
	oldServer, oldClient := serverLayout, clientLayout
	t.Cleanup(func() { serverLayout, clientLayout = oldServer, oldClient })
	serverLayout = func() string { panic("server") }
	clientLayout = func() string { panic("client") }
	wantShut(t, readServer(newTestServer(t)).shut, "failed: server")
	wantShut(t, readClient(newTestClient(t, insecureOption())).shut, "failed: client")
	if _, err := readServices(newTestServer(t)); err == nil {
		t.Error("readServices did not fail")
	}
}

func TestUnknownFields(t *testing.T) {
	known := layout{"size": "int", "name": "string"}
	for _, c := range []struct {
		typ  reflect.Type
		want string
	}{
		{reflect.TypeFor[struct{ size int }](), ""},
		{reflect.TypeFor[struct {
			size int
			name string
		}](), ""},
		{reflect.TypeFor[struct{ size int64 }](), "field X.size (int64)"},
		{reflect.TypeFor[struct {
			size  int
			guard func()
		}](), "field X.guard (func())"},
		{reflect.TypeFor[struct{ codecProbe }](), "field X.codecProbe (stile.codecProbe)"},
		{reflect.TypeFor[func()](), "X is a func"},
	} {
		if got := known.unknownField("X", c.typ); got != c.want {
			t.Errorf("%v: %q, want %q", c.typ, got, c.want)
		}
	}
}

func TestReaderFailsOnMissingOrMistypedField(t *testing.T) {
	v := struct {
		size  int64
		codec any
	}{codec: 1}
	for name, read := range map[string]func(*reader){
		"X.gone is missing":     func(r *reader) { isNil(r, "gone") },
		"X.lost is missing":     func(r *reader) { get[int](r, "lost") },
		"X.size has type int64": func(r *reader) { get[int](r, "size") },
		"X.codec has type":      func(r *reader) { codecField(r, "codec") },
	} {
		r := reader{root: "X", v: structOf(&v)}
		read(&r)
		if !strings.Contains(r.failed, name) {
			t.Errorf("failed is %q, want %q", r.failed, name)
		}
	}
}

func TestReadServices(t *testing.T) {
	s := newTestServer(t)
	impl := &codecProbe{"impl"}
	desc := &grpc.ServiceDesc{
		ServiceName: "stile.test.Probe",
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "One", Handler: func(srv any, ctx context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			return srv, nil
		}}},
		Streams:  []grpc.StreamDesc{{StreamName: "Many", Handler: func(any, grpc.ServerStream) error { return nil }, ServerStreams: true}},
		Metadata: "probe.proto",
	}
	s.RegisterService(desc, impl)
	table, err := readServices(s)
	if err != nil {
		t.Fatal(err)
	}
	e := table["stile.test.Probe"]
	if len(table) != 1 || e == nil || e.impl != any(impl) || e.metadata != "probe.proto" {
		t.Fatalf("services: %+v", table)
	}
	if d := e.streams["Many"]; d == nil || !d.ServerStreams || d.Handler == nil {
		t.Errorf("stream: %+v", d)
	}
	if d := e.unary["One"]; d != nil {
		if got, err := d.Handler(impl, t.Context(), nil, nil); got != any(impl) || err != nil {
			t.Errorf("unary handler: %v, %v", got, err)
		}
	} else if w := e.streams["One"]; w == nil || w.ClientStreams || w.ServerStreams || w.Handler == nil {
		t.Errorf("the unary method is nowhere: %+v", e)
	}
	if len(e.unary)+len(e.streams) != 2 {
		t.Errorf("%d unary, %d streams", len(e.unary), len(e.streams))
	}
	s.Stop()
}

func TestSettingsOfCodecs(t *testing.T) {
	check := func(o grpc.ServerOption) {
		t.Helper()
		s := readServer(newTestServer(t, o))
		if s.codec == nil || len(s.shut) > 0 {
			t.Fatalf("codec %v, shut %q", s.codec, s.shut)
		}
		if b, err := s.codec.Marshal(nil); err != nil || string(b.Materialize()) != "probe" {
			t.Errorf("Marshal: %q, %v", b.Materialize(), err)
		}
	}
	check(grpc.CustomCodec(codecProbe{"x"})) //nolint:staticcheck // deprecated, and honoured
	check(grpc.ForceServerCodec(codecProbe{"x"}))

	v2 := encoding.GetCodecV2(proto.Name)
	if s := readServer(newTestServer(t, grpc.ForceServerCodecV2(v2))); s.codec != messageCodec(v2) {
		t.Errorf("codec of the second generation: %v", s.codec)
	}
}

func TestNoStreamLimit(t *testing.T) {
	if s := readServer(newTestServer(t, grpc.MaxConcurrentStreams(0))); s.maxStreams != math.MaxUint32 {
		t.Errorf("maxStreams %d", s.maxStreams)
	}
}
