package stile

import (
	"context"
	"go/ast"
	"net"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/tap"
)

// later names constructors that the oldest grpc-go this builds with does not
// have. All are of a kind that needs no proof: they tune HTTP/2.
var later = []string{
	"StaticConnWindowSize", "StaticStreamWindowSize",
	"WithLocalDNSResolution", "WithStaticConnWindowSize", "WithStaticStreamWindowSize",
}

// composed names constructors of packages that this module does not link. Their
// source must be made of nothing but constructors that are decided here.
var composed = []string{"opentelemetry.ServerOption", "opentelemetry.DialOption", "orca.CallMetricsServerOption"}

// xdsOnly names options that grpc.NewServer ignores: they embed EmptyServerOption.
var xdsOnly = []string{"xds.BootstrapContentsForTesting", "xds.ClientPoolForTesting", "xds.ServingModeCallback"}

// serverProof builds one option with a value that is no default; seen tells
// whether the settings show it. seen is nil for options that tune or shut.
type serverProof struct {
	opt  grpc.ServerOption
	seen func(serverSettings) bool
}

type dialProof struct {
	opt  grpc.DialOption
	seen func(clientSettings) bool
}

func serverProofs() map[string]serverProof {
	probe, desc := &statsProbe{}, func(any, grpc.ServerStream) error { return nil }
	unary := func(context.Context, any, *grpc.UnaryServerInfo, grpc.UnaryHandler) (any, error) { return "unary", nil }
	stream := func(any, grpc.ServerStream, *grpc.StreamServerInfo, grpc.StreamHandler) error { return errWalk }
	hasUnary := func(s serverSettings) bool {
		got, _ := s.unaryInt(context.Background(), nil, nil, nil)
		return got == "unary"
	}
	hasStream := func(s serverSettings) bool { return s.streamInt(nil, nil, nil, nil) == errWalk }
	hasCodec := func(s serverSettings) bool { return s.codec != nil }
	gzip, gunzip := grpc.NewGZIPCompressor(), grpc.NewGZIPDecompressor() //nolint:staticcheck // deprecated, and honoured
	return map[string]serverProof{
		"UnaryInterceptor":       {grpc.UnaryInterceptor(unary), hasUnary},
		"ChainUnaryInterceptor":  {grpc.ChainUnaryInterceptor(unary), hasUnary},
		"StreamInterceptor":      {grpc.StreamInterceptor(stream), hasStream},
		"ChainStreamInterceptor": {grpc.ChainStreamInterceptor(stream), hasStream},
		"StatsHandler":           {grpc.StatsHandler(probe), func(s serverSettings) bool { return s.stats[0] == probe }},
		"CustomCodec":            {grpc.CustomCodec(codecProbe{"x"}), hasCodec}, //nolint:staticcheck // deprecated, and honoured
		"ForceServerCodec":       {grpc.ForceServerCodec(codecProbe{"x"}), hasCodec},
		"ForceServerCodecV2":     {grpc.ForceServerCodecV2(encoding.GetCodecV2(proto.Name)), hasCodec},
		"RPCCompressor":          {grpc.RPCCompressor(gzip), func(s serverSettings) bool { return s.cp == gzip }},       //nolint:staticcheck // deprecated, and honoured
		"RPCDecompressor":        {grpc.RPCDecompressor(gunzip), func(s serverSettings) bool { return s.dc == gunzip }}, //nolint:staticcheck // deprecated, and honoured
		"MaxMsgSize":             {grpc.MaxMsgSize(7), func(s serverSettings) bool { return s.maxRecv == 7 }},           //nolint:staticcheck // deprecated, and honoured
		"MaxRecvMsgSize":         {grpc.MaxRecvMsgSize(7), func(s serverSettings) bool { return s.maxRecv == 7 }},
		"MaxSendMsgSize":         {grpc.MaxSendMsgSize(7), func(s serverSettings) bool { return s.maxSend == 7 }},
		"MaxConcurrentStreams":   {grpc.MaxConcurrentStreams(7), func(s serverSettings) bool { return s.maxStreams == 7 }},
		"MaxHeaderListSize":      {grpc.MaxHeaderListSize(7), func(s serverSettings) bool { return s.maxHeaderList == 7 }},
		"UnknownServiceHandler": {grpc.UnknownServiceHandler(desc), func(s serverSettings) bool {
			return s.unknown.Handler != nil && s.unknown.ClientStreams && s.unknown.ServerStreams
		}},
		"WaitForHandlers": {grpc.WaitForHandlers(true), func(s serverSettings) bool { return s.waitForHandlers }},

		"Creds": {opt: grpc.Creds(credentials.NewTLS(nil))},
		"InTapHandle": {opt: grpc.InTapHandle(func(ctx context.Context, _ *tap.Info) (context.Context, error) {
			return ctx, nil
		})},

		"ConnectionTimeout":          {opt: grpc.ConnectionTimeout(time.Second)},
		"HeaderTableSize":            {opt: grpc.HeaderTableSize(7)},
		"InitialConnWindowSize":      {opt: grpc.InitialConnWindowSize(1 << 20)},
		"InitialWindowSize":          {opt: grpc.InitialWindowSize(1 << 20)},
		"KeepaliveEnforcementPolicy": {opt: grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Minute})},
		"KeepaliveParams":            {opt: grpc.KeepaliveParams(keepalive.ServerParameters{Time: time.Minute})},
		"NumStreamWorkers":           {opt: grpc.NumStreamWorkers(2)},
		"ReadBufferSize":             {opt: grpc.ReadBufferSize(7)},
		"SharedWriteBuffer":          {opt: grpc.SharedWriteBuffer(true)},
		"WriteBufferSize":            {opt: grpc.WriteBufferSize(7)},
		"experimental.BufferPool":    {opt: experimental.BufferPool(mem.NopBufferPool{})},
	}
}

func dialProofs() map[string]dialProof {
	probe, creds := &statsProbe{}, credsProbe{}
	gzip, gunzip := grpc.NewGZIPCompressor(), grpc.NewGZIPDecompressor() //nolint:staticcheck // deprecated, and honoured
	dial := func(context.Context, string) (net.Conn, error) { return nil, errWalk }
	builder := manual.NewBuilderWithScheme("walk")
	return map[string]dialProof{
		"WithAuthority":            {grpc.WithAuthority("walk"), func(s clientSettings) bool { return s.authority == "walk" }},
		"WithCompressor":           {grpc.WithCompressor(gzip), func(s clientSettings) bool { return s.cp == gzip }},       //nolint:staticcheck // deprecated, and honoured
		"WithDecompressor":         {grpc.WithDecompressor(gunzip), func(s clientSettings) bool { return s.dc == gunzip }}, //nolint:staticcheck // deprecated, and honoured
		"WithDefaultServiceConfig": {grpc.WithDefaultServiceConfig(`{}`), func(s clientSettings) bool { return s.defaultServiceConfig != nil }},
		"WithDisableRetry":         {grpc.WithDisableRetry(), func(s clientSettings) bool { return s.disableRetry }},
		"WithDisableServiceConfig": {grpc.WithDisableServiceConfig(), func(s clientSettings) bool { return s.disableServiceConfig }},
		"WithInsecure":             {grpc.WithInsecure(), func(s clientSettings) bool { return plainCreds(s.creds) && s.creds != nil }}, //nolint:staticcheck // deprecated, and honoured
		"WithMaxCallAttempts":      {grpc.WithMaxCallAttempts(3), func(s clientSettings) bool { return s.maxCallAttempts == 3 }},
		"WithMaxHeaderListSize":    {grpc.WithMaxHeaderListSize(7), func(s clientSettings) bool { return s.maxHeaderList == 7 }},
		"WithPerRPCCredentials":    {grpc.WithPerRPCCredentials(creds), func(s clientSettings) bool { return s.perRPC[0] == creds }},
		"WithResolvers":            {grpc.WithResolvers(builder), func(s clientSettings) bool { return s.resolvers[0] == resolver.Builder(builder) }},
		"WithStatsHandler":         {grpc.WithStatsHandler(probe), func(s clientSettings) bool { return s.stats[0] == probe }},
		"WithUserAgent":            {grpc.WithUserAgent("walk"), func(s clientSettings) bool { return strings.HasPrefix(s.userAgent, "walk grpc-go/") }},

		"WithTransportCredentials": {opt: grpc.WithTransportCredentials(credentials.NewTLS(nil))},
		"WithCredentialsBundle":    {opt: grpc.WithCredentialsBundle(checkingBundle{insecure.NewBundle()})},
		"WithContextDialer":        {opt: grpc.WithContextDialer(dial)},
		"WithDialer":               {opt: grpc.WithDialer(func(string, time.Duration) (net.Conn, error) { return nil, errWalk })}, //nolint:staticcheck // deprecated, and decided

		"FailOnNonTempDialError":      {opt: grpc.FailOnNonTempDialError(true)},                       //nolint:staticcheck // deprecated, and decided
		"WithBackoffConfig":           {opt: grpc.WithBackoffConfig(grpc.BackoffConfig{MaxDelay: 1})}, //nolint:staticcheck // deprecated, and decided
		"WithBackoffMaxDelay":         {opt: grpc.WithBackoffMaxDelay(1)},                             //nolint:staticcheck // deprecated, and decided
		"WithBlock":                   {opt: grpc.WithBlock()},                                        //nolint:staticcheck // deprecated, and decided
		"WithReturnConnectionError":   {opt: grpc.WithReturnConnectionError()},                        //nolint:staticcheck // deprecated, and decided
		"WithTimeout":                 {opt: grpc.WithTimeout(1)},                                     //nolint:staticcheck // deprecated, and decided
		"WithChannelzParentID":        {opt: grpc.WithChannelzParentID(nil)},
		"WithConnectParams":           {opt: grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: 1})},
		"WithDisableHealthCheck":      {opt: grpc.WithDisableHealthCheck()},
		"WithIdleTimeout":             {opt: grpc.WithIdleTimeout(time.Hour)},
		"WithInitialConnWindowSize":   {opt: grpc.WithInitialConnWindowSize(1 << 20)},
		"WithInitialWindowSize":       {opt: grpc.WithInitialWindowSize(1 << 20)},
		"WithKeepaliveParams":         {opt: grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: time.Hour})},
		"WithNoProxy":                 {opt: grpc.WithNoProxy()},
		"WithReadBufferSize":          {opt: grpc.WithReadBufferSize(7)},
		"WithSharedWriteBuffer":       {opt: grpc.WithSharedWriteBuffer(true)},
		"WithWriteBufferSize":         {opt: grpc.WithWriteBufferSize(7)},
		"experimental.WithBufferPool": {opt: experimental.WithBufferPool(mem.NopBufferPool{})},
	}
}

// callProofs are the dial options that reach Stile's own interceptor, which is
// the last one, as what it sees of a call.
func callProofs() map[string]struct {
	opt  grpc.DialOption
	seen func(context.Context, *callInfo) bool
} {
	type proof = struct {
		opt  grpc.DialOption
		seen func(context.Context, *callInfo) bool
	}
	marked := func(ctx context.Context, _ *callInfo) bool {
		md, _ := metadata.FromOutgoingContext(ctx)
		return slices.Equal(md.Get("walk"), []string{"1"})
	}
	mark := func(ctx context.Context) context.Context { return metadata.AppendToOutgoingContext(ctx, "walk", "1") }
	unary := func(ctx context.Context, m string, req, reply any, cc *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		return next(mark(ctx), m, req, reply, cc, opts...)
	}
	stream := func(ctx context.Context, d *grpc.StreamDesc, cc *grpc.ClientConn, m string, next grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		return next(mark(ctx), d, cc, m, opts...)
	}
	size := func(_ context.Context, c *callInfo) bool { return c.maxRecv != nil && *c.maxRecv == 7 }
	return map[string]proof{
		"WithCodec": {grpc.WithCodec(codecProbe{"x"}), func(_ context.Context, c *callInfo) bool {
			return c.codec == messageCodec(codecBridge{codecProbe{"x"}})
		}}, //nolint:staticcheck // deprecated, and honoured
		"WithDefaultCallOptions":     {grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(7)), size},
		"WithMaxMsgSize":             {grpc.WithMaxMsgSize(7), size}, //nolint:staticcheck // deprecated, and honoured
		"WithUnaryInterceptor":       {grpc.WithUnaryInterceptor(unary), marked},
		"WithChainUnaryInterceptor":  {grpc.WithChainUnaryInterceptor(unary), marked},
		"WithStreamInterceptor":      {grpc.WithStreamInterceptor(stream), marked},
		"WithChainStreamInterceptor": {grpc.WithChainStreamInterceptor(stream), marked},
	}
}

type credsProbe struct{}

func (credsProbe) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return nil, nil
}
func (credsProbe) RequireTransportSecurity() bool { return false }

type walkError struct{}

func (walkError) Error() string { return "walk" }

var errWalk error = walkError{}

// ruleFor finds the decision and fails where there is none: a new grpc-go has a
// new option, which must be read, decided in opaque_decisions.go and proven here.
func ruleFor(t *testing.T, rules []optionRule, name string) optionRule {
	t.Helper()
	i := slices.IndexFunc(rules, func(r optionRule) bool { return r.name == name })
	if i < 0 {
		t.Fatalf("grpc-go v%s has an option that nothing is decided on: %s", grpc.Version, name)
	}
	if rules[i].why == "" || rules[i].decision.String() == "undecided" {
		t.Fatalf("no reason or decision for %s", name)
	}
	return rules[i]
}

// unproven handles what cannot be built here; it tells whether name is such.
func unproven(t *testing.T, rules []optionRule, name string) bool {
	t.Helper()
	rule := ruleFor(t, rules, name)
	switch {
	case slices.Contains(composed, name):
		if rule.decision != honoured {
			t.Errorf("%s is %v", name, rule.decision)
		}
		parts := partsOf(t, name)
		if len(parts) == 0 {
			t.Errorf("%s is made of nothing known", name)
		}
		for _, part := range parts {
			if r := ruleFor(t, rules, part); r.decision != honoured {
				t.Errorf("%s is made of %s, which is %v", name, part, r.decision)
			}
		}
		return true
	case slices.Contains(later, name), slices.Contains(xdsOnly, name):
		if rule.decision != tunes {
			t.Errorf("%s is %v and not proven", name, rule.decision)
		}
		return true
	}
	return false
}

// partsOf names the grpc constructors called in the body of pkg.Func.
func partsOf(t *testing.T, name string) []string {
	t.Helper()
	pkg, fn, _ := strings.Cut(name, ".")
	var out []string
	for _, p := range grpcPackages(t) {
		if p.name != pkg {
			continue
		}
		for _, f := range p.files {
			for _, d := range f.Decls {
				if d, ok := d.(*ast.FuncDecl); ok && d.Name.Name == fn && d.Recv == nil {
					ast.Inspect(d.Body, func(n ast.Node) bool {
						if call, ok := n.(*ast.CallExpr); ok {
							if sel, ok := call.Fun.(*ast.SelectorExpr); ok && isGrpcType(sel, sel.Sel.Name, false) {
								out = append(out, sel.Sel.Name)
							}
						}
						return true
					})
				}
			}
		}
	}
	return out
}

func TestEveryServerOption(t *testing.T) {
	proofs := serverProofs()
	for _, name := range constructors(t, "ServerOption") {
		t.Run(name, func(t *testing.T) {
			if unproven(t, serverOptionRules, name) {
				return
			}
			rule := ruleFor(t, serverOptionRules, name)
			p, ok := proofs[name]
			if !ok {
				t.Fatalf("%s is %v and not proven", name, rule.decision)
			}
			s := readServer(newTestServer(t, p.opt))
			checkDecision(t, rule, s.shut, p.seen != nil, func() bool { return p.seen(s) })
			if want := defaultServerSettings(); rule.decision == tunes && !reflect.DeepEqual(s, want) {
				t.Errorf("%s shows in %+v", name, s)
			}
		})
	}
}

func TestEveryDialOption(t *testing.T) {
	proofs, calls := dialProofs(), callProofs()
	for _, name := range constructors(t, "DialOption") {
		t.Run(name, func(t *testing.T) {
			if unproven(t, dialOptionRules, name) {
				return
			}
			rule := ruleFor(t, dialOptionRules, name)
			if p, ok := calls[name]; ok {
				checkDecision(t, rule, nil, true, func() bool { return seenByInterceptor(t, name, p.opt, p.seen) })
				return
			}
			p, ok := proofs[name]
			if !ok {
				t.Fatalf("%s is %v and not proven", name, rule.decision)
			}
			opts := []grpc.DialOption{insecureOption(), p.opt}
			if name == "WithCredentialsBundle" {
				opts = opts[1:]
			}
			s := readClient(newTestClient(t, opts...))
			checkDecision(t, rule, s.shut, p.seen != nil, func() bool { return p.seen(s) })
		})
	}
}

func checkDecision(t *testing.T, rule optionRule, shut []string, hasProof bool, seen func() bool) {
	t.Helper()
	switch rule.decision {
	case honoured:
		if !hasProof || !seen() {
			t.Errorf("%s is not seen", rule.name)
		}
		if len(shut) > 0 {
			t.Errorf("%s shuts the door: %q", rule.name, shut)
		}
	case tunes:
		if hasProof || len(shut) > 0 {
			t.Errorf("%s only tunes, but shut is %q", rule.name, shut)
		}
	case shuts:
		if len(shut) == 0 {
			t.Errorf("%s leaves the door open", rule.name)
		}
	}
}

// seenByInterceptor makes a call on a connection whose last interceptors stand
// for Stile's, as they are appended, and which never reaches a transport.
func seenByInterceptor(t *testing.T, name string, opt grpc.DialOption, seen func(context.Context, *callInfo) bool) bool {
	t.Helper()
	var ok bool
	look := func(ctx context.Context, opts []grpc.CallOption) {
		var info callInfo
		if err := readCallOptions(opts, &info); err != nil {
			t.Error(err)
		}
		ok = seen(ctx, &info)
	}
	cc := newTestClient(t, insecureOption(), opt,
		grpc.WithChainUnaryInterceptor(func(ctx context.Context, _ string, _, _ any, _ *grpc.ClientConn, _ grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			look(ctx, opts)
			return errWalk
		}),
		grpc.WithChainStreamInterceptor(func(ctx context.Context, _ *grpc.StreamDesc, _ *grpc.ClientConn, _ string, _ grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			look(ctx, opts)
			return nil, errWalk
		}))
	var err error
	if strings.Contains(name, "Stream") {
		_, err = cc.NewStream(t.Context(), &grpc.StreamDesc{}, "/walk/walk")
	} else {
		err = cc.Invoke(t.Context(), "/walk/walk", nil, nil)
	}
	return ok && err == errWalk
}
