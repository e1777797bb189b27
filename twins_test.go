package stile

import (
	"context"
	"log/slog"
	"math"
	"net"
	"reflect"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/credentials/local"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
)

// traceUnary appends its name to the trace in the request.
func traceUnary(name string) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		return next(ctx, req.(string)+name)
	}
}

func traceStream(trace *string, name string) grpc.StreamServerInterceptor {
	return func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		*trace += name
		return next(srv, ss)
	}
}

// serverTwins are all twins, with values that are no defaults.
func serverTwins(trace *string, probe *statsProbe) []grpc.ServerOption {
	return []grpc.ServerOption{
		ChainUnaryInterceptor(traceUnary("a"), traceUnary("b")), ChainUnaryInterceptor(traceUnary("c")),
		ChainStreamInterceptor(traceStream(trace, "a"), traceStream(trace, "b")), ChainStreamInterceptor(traceStream(trace, "c")),
		StatsHandler(probe), MaxRecvMsgSize(7), MaxSendMsgSize(8), MaxConcurrentStreams(9),
		UnknownServiceHandler(func(any, grpc.ServerStream) error { return errWalk }),
	}
}

func checkServerTwins(t *testing.T, s serverSettings, trace *string, probe *statsProbe) {
	t.Helper()
	last := func(_ context.Context, req any) (any, error) { return req, nil }
	if got, err := s.unaryInt(t.Context(), "", nil, last); got != "abc" || err != nil {
		t.Errorf("unary interceptors ran as %q, %v", got, err)
	}
	*trace = ""
	if err := s.streamInt(nil, nil, nil, func(any, grpc.ServerStream) error { return errWalk }); err != errWalk || *trace != "abc" {
		t.Errorf("stream interceptors ran as %q, %v", *trace, err)
	}
	if len(s.stats) != 1 || s.stats[0] != probe || s.maxRecv != 7 || s.maxSend != 8 || s.maxStreams != 9 {
		t.Errorf("settings: %+v", s)
	}
	u := s.unknown
	if u == nil || u.Handler(nil, nil) != errWalk || !u.ClientStreams || !u.ServerStreams {
		t.Errorf("unknown-service handler: %+v", u)
	}
	if len(s.shut) > 0 {
		t.Errorf("shut: %q", s.shut)
	}
}

// The three ways a twin can go must end in the same settings.
func TestServerTwins(t *testing.T) {
	var trace string
	probe := &statsProbe{}
	twins := serverTwins(&trace, probe)
	plain, _, explicit, only := splitServerOptions(twins)
	if !only || len(plain) != len(twins) {
		t.Errorf("only twins: %v, %d options", only, len(plain))
	}
	t.Run("explicit", func(t *testing.T) { checkServerTwins(t, explicit, &trace, probe) })
	t.Run("split", func(t *testing.T) { checkServerTwins(t, readServer(newTestServer(t, plain...)), &trace, probe) })
	t.Run("grpc", func(t *testing.T) { checkServerTwins(t, readServer(newTestServer(t, twins...)), &trace, probe) })
}

func TestServerTwinDefaults(t *testing.T) {
	_, _, explicit, only := splitServerOptions([]grpc.ServerOption{MaxConcurrentStreams(0), StatsHandler(nil), ChainUnaryInterceptor()})
	if want := defaultServerSettings(); !only || !reflect.DeepEqual(explicit, want) || explicit.maxStreams != math.MaxUint32 {
		t.Errorf("%+v, want %+v", explicit, want)
	}
}

func TestSplitKeepsOrder(t *testing.T) {
	var trace string
	opts := []grpc.ServerOption{
		grpc.ChainStreamInterceptor(traceStream(&trace, "1")), Dir("d"), ChainStreamInterceptor(traceStream(&trace, "2")),
		grpc.EmptyServerOption{}, grpc.ChainStreamInterceptor(traceStream(&trace, "3")),
	}
	plain, own, _, only := splitServerOptions(opts)
	if only || len(plain) != 3 || own.dir != "d" {
		t.Errorf("only %v, %d plain, %+v", only, len(plain), own)
	}
	s := readServer(newTestServer(t, plain...))
	if err := s.streamInt(nil, nil, nil, func(any, grpc.ServerStream) error { return nil }); err != nil || trace != "123" {
		t.Errorf("ran as %q, %v", trace, err)
	}
}

func TestOwnOptions(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	server := []grpc.ServerOption{Dir("d"), AllowUIDs(1, 2), AllowUIDs(3), Logger(log), NoSharedMemory()}
	plain, so, _, only := splitServerOptions(server)
	if len(plain) > 0 || !only || so.dir != "d" || !slices.Equal(so.allowUIDs, []int{1, 2, 3}) || so.logger != log || !so.noSharedMemory {
		t.Errorf("server: %+v, %v", so, only)
	}
	if s := readServer(newTestServer(t, server...)); !reflect.DeepEqual(s, defaultServerSettings()) {
		t.Errorf("grpc-go does not ignore Stile's own options: %+v", s)
	}
	client := []grpc.DialOption{WithDir("d"), WithAllowUIDs(1, 2), WithAllowUIDs(3), WithLogger(log), WithoutSharedMemory()}
	rest, do, _, only := splitDialOptions(client)
	if len(rest) > 0 || !only || do.dir != "d" || !slices.Equal(do.allowUIDs, []int{1, 2, 3}) || do.logger != log || !do.noSharedMemory || do.pastDialer {
		t.Errorf("client: %+v, %v", do, only)
	}
	if c := readClient(newTestClient(t, append(client, insecureOption())...)); len(c.shut) > 0 {
		t.Errorf("client: %q", c.shut)
	}
}

func TestDialTwins(t *testing.T) {
	probe, builder := &statsProbe{}, manual.NewBuilderWithScheme("twin")
	twins := []grpc.DialOption{
		WithTransportCredentials(local.NewCredentials()), WithStatsHandler(probe), WithStatsHandler(nil),
		WithPerRPCCredentials(credsProbe{}), WithAuthority("twin"), WithResolvers(builder),
	}
	plain, own, explicit, only := splitDialOptions(twins)
	if !only || own.pastDialer || len(plain) != len(twins) {
		t.Errorf("only twins: %v, %d options, %+v", only, len(plain), own)
	}
	for name, s := range map[string]clientSettings{
		"explicit": explicit,
		"split":    readClient(newTestClient(t, plain...)),
		"grpc":     readClient(newTestClient(t, twins...)),
	} {
		if len(s.shut) > 0 || len(s.stats) != 1 || s.stats[0] != probe || len(s.perRPC) != 1 || s.authority != "twin" ||
			len(s.resolvers) != 1 || s.resolvers[0] != resolver.Builder(builder) || s.creds.Info().SecurityProtocol != "local" {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

func TestTwinCredentialsShut(t *testing.T) {
	_, _, explicit, only := splitDialOptions([]grpc.DialOption{WithTransportCredentials(credentials.NewTLS(nil))})
	if !only {
		t.Error("a twin is not counted as one")
	}
	wantShut(t, explicit.shut, "tls")
}

func TestDialerTwinOpens(t *testing.T) {
	dial := func(context.Context, string) (net.Conn, error) { return nil, errWalk }
	settle := func(opt grpc.DialOption) clientSettings {
		plain, own, explicit, only := splitDialOptions([]grpc.DialOption{insecureOption(), opt})
		cc := newTestClient(t, plain...)
		return settleClient(cc, readClient(cc), explicit, own, only)
	}
	wantShut(t, settle(grpc.WithContextDialer(dial)).shut, "dialer")
	if s := settle(WithContextDialer(dial)); len(s.shut) > 0 || !s.customDialer {
		t.Errorf("shut: %q", s.shut)
	}
}

func TestSettleOnUnknownLayout(t *testing.T) {
	oldServer, oldClient := serverLayout, clientLayout
	t.Cleanup(func() { serverLayout, clientLayout = oldServer, oldClient })
	serverLayout = func() string { return "field Server.guard" }
	clientLayout = func() string { return "field ClientConn.guard" }

	for _, c := range []struct {
		opts []grpc.ServerOption
		open bool
	}{
		{nil, true},
		{[]grpc.ServerOption{MaxRecvMsgSize(7), Dir("d")}, true},
		{[]grpc.ServerOption{MaxRecvMsgSize(7), grpc.ReadBufferSize(1)}, false},
	} {
		plain, _, explicit, only := splitServerOptions(c.opts)
		s := settleServer(readServer(newTestServer(t, plain...)), explicit, only)
		if open := len(s.shut) == 0; open != c.open {
			t.Errorf("%d options: shut %q", len(c.opts), s.shut)
		}
	}
	creds := insecure.NewCredentials()
	for _, c := range []struct {
		opts []grpc.DialOption
		open bool
	}{
		{[]grpc.DialOption{WithTransportCredentials(creds)}, true},
		{[]grpc.DialOption{grpc.WithTransportCredentials(creds)}, false},
	} {
		plain, own, explicit, only := splitDialOptions(c.opts)
		cc := newTestClient(t, plain...)
		s := settleClient(cc, readClient(cc), explicit, own, only)
		if open := len(s.shut) == 0; open != c.open {
			t.Errorf("%d options: shut %q", len(c.opts), s.shut)
		}
		if c.open && s.authority != "stile.test:1" {
			t.Errorf("authority %q", s.authority)
		}
	}
	t.Setenv("GRPC_BINARY_LOG_FILTER", "*")
	_, _, explicit, only := splitServerOptions(nil)
	wantShut(t, settleServer(readServer(newTestServer(t)), explicit, only).shut, "GRPC_BINARY_LOG_FILTER")
}

// targetAuthority must say what grpc-go itself computes.
func TestTargetAuthority(t *testing.T) {
	builder := manual.NewBuilderWithScheme("twin")
	for _, target := range []string{
		"stile.test:1", "dns:///stile.test:1", "passthrough:///a b/ü:1", "unix:///run/a.sock", "unix:a.sock", "unix-abstract:a",
		"dns:///[::1]:1", "twin:///x%20y", "passthrough:///x@y,z", "dns:///:80",
	} {
		cc, err := grpc.NewClient(target, insecureOption(), grpc.WithResolvers(builder))
		if err != nil {
			t.Fatal(err)
		}
		want := readClient(cc).authority
		if got := targetAuthority(cc.CanonicalTarget(), []resolver.Builder{builder}); got != want || want == "" {
			t.Errorf("%s: %q, want %q", strings.TrimSpace(target), got, want)
		}
		cc.Close()
	}
}
