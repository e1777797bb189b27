package stile

// decision is what becomes of a grpc-go option at the local door.
type decision uint8

const (
	honoured decision = iota + 1 // holds for local calls as for remote ones
	tunes                        // tunes or concerns HTTP/2 connections only; local calls have none
	shuts                        // keeps the local door shut
)

func (d decision) String() string {
	switch d {
	case honoured:
		return "honoured"
	case tunes:
		return "HTTP/2 only"
	case shuts:
		return "local door stays shut"
	}
	return "undecided"
}

// optionRule decides on one option constructor of grpc-go, named as it is
// written in code outside of that package, without "grpc.".
type optionRule struct {
	name     string
	decision decision
	why      string
}

// serverOptionRules decides on every exported constructor of a
// grpc.ServerOption in grpc-go v1.70 to v1.85.
var serverOptionRules = []optionRule{
	{"ChainStreamInterceptor", honoured, "runs around every streaming call"},
	{"ChainUnaryInterceptor", honoured, "runs around every unary call"},
	{"ConnectionTimeout", tunes, "bounds the HTTP/2 handshake"},
	{"Creds", shuts, "credentials may authenticate callers; those of the packages insecure and local do not and leave it open"},
	{"CustomCodec", honoured, "codes every message"},
	{"ForceServerCodec", honoured, "codes every message"},
	{"ForceServerCodecV2", honoured, "codes every message"},
	{"HeaderTableSize", tunes, "sizes HPACK's table; local headers are not compressed"},
	{"InTapHandle", shuts, "refuses calls before they are made, on HTTP/2's terms"},
	{"InitialConnWindowSize", tunes, "sizes HTTP/2's window"},
	{"InitialWindowSize", tunes, "sizes HTTP/2's window"},
	{"KeepaliveEnforcementPolicy", tunes, "judges HTTP/2 pings; a dead peer is seen without them"},
	{"KeepaliveParams", tunes, "pings and ages HTTP/2 connections; a dead peer is seen without pings"},
	{"MaxConcurrentStreams", honoured, "limits the calls on one connection"},
	{"MaxHeaderListSize", honoured, "limits request metadata"},
	{"MaxMsgSize", honoured, "limits received messages"},
	{"MaxRecvMsgSize", honoured, "limits received messages"},
	{"MaxSendMsgSize", honoured, "limits sent messages"},
	{"NumStreamWorkers", tunes, "sizes grpc-go's pool of goroutines"},
	{"RPCCompressor", honoured, "compresses every response"},
	{"RPCDecompressor", honoured, "decompresses requests of its encoding"},
	{"ReadBufferSize", tunes, "sizes a socket's buffer"},
	{"SharedWriteBuffer", tunes, "shares a socket's buffer"},
	{"StaticConnWindowSize", tunes, "sizes HTTP/2's window"},
	{"StaticStreamWindowSize", tunes, "sizes HTTP/2's window"},
	{"StatsHandler", honoured, "is told of every call and message"},
	{"StreamInterceptor", honoured, "runs around every streaming call"},
	{"UnaryInterceptor", honoured, "runs around every unary call"},
	{"UnknownServiceHandler", honoured, "serves what is not registered"},
	{"WaitForHandlers", honoured, "Stop waits for handlers"},
	{"WriteBufferSize", tunes, "sizes a socket's buffer"},

	{"experimental.BufferPool", tunes, "sets where grpc-go's buffers come from; local messages do not use them"},
	{"opentelemetry.ServerOption", honoured, "is made of interceptors and a stats handler"},
	{"orca.CallMetricsServerOption", honoured, "is made of interceptors"},
	{"xds.BootstrapContentsForTesting", tunes, "is for xds.NewGRPCServer; grpc.NewServer ignores it"},
	{"xds.ClientPoolForTesting", tunes, "is for xds.NewGRPCServer; grpc.NewServer ignores it"},
	{"xds.ServingModeCallback", tunes, "is for xds.NewGRPCServer; grpc.NewServer ignores it"},
}

// dialOptionRules decides on every exported constructor of a grpc.DialOption in
// grpc-go v1.70 to v1.85.
var dialOptionRules = []optionRule{
	{"FailOnNonTempDialError", tunes, "concerns a blocking grpc.Dial; NewClient ignores it"},
	{"WithAuthority", honoured, "is what :authority carries"},
	{"WithBackoffConfig", tunes, "spaces attempts to connect by HTTP/2"},
	{"WithBackoffMaxDelay", tunes, "spaces attempts to connect by HTTP/2"},
	{"WithBlock", tunes, "concerns a blocking grpc.Dial; NewClient ignores it"},
	{"WithChainStreamInterceptor", honoured, "runs around every streaming call"},
	{"WithChainUnaryInterceptor", honoured, "runs around every unary call"},
	{"WithChannelzParentID", tunes, "files the HTTP/2 connection in channelz"},
	{"WithCodec", honoured, "is a default call option"},
	{"WithCompressor", honoured, "compresses every request"},
	{"WithConnectParams", tunes, "spaces attempts to connect by HTTP/2"},
	{"WithContextDialer", shuts, "a dialer decides where the bytes go; stile.WithContextDialer lets local calls past it"},
	{"WithCredentialsBundle", shuts, "a bundle authenticates the server; the one of package insecure does not and leaves it open"},
	{"WithDecompressor", honoured, "decompresses responses of its encoding"},
	{"WithDefaultCallOptions", honoured, "reach every call"},
	{"WithDefaultServiceConfig", honoured, "sets timeouts, sizes and retries by method"},
	{"WithDialer", shuts, "a dialer decides where the bytes go; stile.WithContextDialer lets local calls past it"},
	{"WithDisableHealthCheck", tunes, "concerns the choice among HTTP/2 connections"},
	{"WithDisableRetry", honoured, "no call is retried"},
	{"WithDisableServiceConfig", honoured, "the resolver's service config is not used"},
	{"WithIdleTimeout", tunes, "closes HTTP/2 connections that have no calls"},
	{"WithInitialConnWindowSize", tunes, "sizes HTTP/2's window"},
	{"WithInitialWindowSize", tunes, "sizes HTTP/2's window"},
	{"WithInsecure", honoured, "asks for no security"},
	{"WithKeepaliveParams", tunes, "pings HTTP/2 connections; a dead peer is seen without pings"},
	{"WithLocalDNSResolution", tunes, "concerns proxies"},
	{"WithMaxCallAttempts", honoured, "bounds retries"},
	{"WithMaxHeaderListSize", honoured, "limits response metadata"},
	{"WithMaxMsgSize", honoured, "is a default call option"},
	{"WithNoProxy", tunes, "concerns proxies"},
	{"WithPerRPCCredentials", honoured, "adds its metadata to every call"},
	{"WithReadBufferSize", tunes, "sizes a socket's buffer"},
	{"WithResolvers", honoured, "find the server"},
	{"WithReturnConnectionError", tunes, "concerns a blocking grpc.Dial; NewClient ignores it"},
	{"WithSharedWriteBuffer", tunes, "shares a socket's buffer"},
	{"WithStaticConnWindowSize", tunes, "sizes HTTP/2's window"},
	{"WithStaticStreamWindowSize", tunes, "sizes HTTP/2's window"},
	{"WithStatsHandler", honoured, "is told of every call and message"},
	{"WithStreamInterceptor", honoured, "runs around every streaming call"},
	{"WithTimeout", tunes, "concerns a blocking grpc.Dial; NewClient ignores it"},
	{"WithTransportCredentials", shuts, "credentials may authenticate the server; those of the packages insecure and local do not and leave it open"},
	{"WithUnaryInterceptor", honoured, "runs around every unary call"},
	{"WithUserAgent", honoured, "is what user-agent carries"},
	{"WithWriteBufferSize", tunes, "sizes a socket's buffer"},

	{"experimental.WithBufferPool", tunes, "sets where grpc-go's buffers come from; local messages do not use them"},
	{"opentelemetry.DialOption", honoured, "is made of interceptors and a stats handler"},
}
