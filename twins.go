package stile

import (
	"context"
	"log/slog"
	"net"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/stats"

	"github.com/stile-ipc/stile/policy"
	"github.com/stile-ipc/stile/telemetry"
)

// A twin is a grpc-go option that Stile can also read without reflection. It
// embeds the option it stands for, so grpc.NewServer and grpc.NewClient take it
// too. Where all options are twins, or Stile's own, the local door needs to know
// nothing of grpc-go's layout.

// serverTwin is a grpc.ServerOption with a plain copy of what it sets.
type serverTwin struct {
	grpc.ServerOption
	set func(*serverSettings)
}

// dialTwin is a grpc.DialOption with a plain copy of what it sets.
type dialTwin struct {
	grpc.DialOption
	set func(*clientSettings, *ownDialOptions)
}

// ownServerOption is an option that grpc-go ignores.
type ownServerOption struct {
	grpc.EmptyServerOption
	set func(*ownServerOptions)
}

// ownDialOption is an option that grpc-go ignores.
type ownDialOption struct {
	grpc.EmptyDialOption
	set func(*ownDialOptions)
}

// ownServerOptions is what Stile's own server options ask for.
type ownServerOptions struct {
	policy         *policy.Policy      // nil: none
	recorder       *telemetry.Recorder // nil: calls are not counted
	nonBlocking    []string
	dir            string // "": the default folder of rendezvous files
	allowUIDs      []int  // besides the process's own
	logger         *slog.Logger
	noSharedMemory bool
}

// ownDialOptions is what Stile's own dial options ask for.
type ownDialOptions struct {
	policy         *policy.Policy      // nil: none
	recorder       *telemetry.Recorder // nil: calls are not counted
	dir            string
	allowUIDs      []int // besides the process's own
	logger         *slog.Logger
	noSharedMemory bool
	pastDialer     bool // local calls may bypass the custom dialer
}

// ChainUnaryInterceptor is [grpc.ChainUnaryInterceptor] for the listener and
// the local door.
func ChainUnaryInterceptor(interceptors ...grpc.UnaryServerInterceptor) grpc.ServerOption {
	own := slices.Clone(interceptors)
	return serverTwin{grpc.ChainUnaryInterceptor(own...), func(s *serverSettings) {
		for _, next := range own {
			s.unaryInt = chainUnary(s.unaryInt, next)
		}
	}}
}

// ChainStreamInterceptor is [grpc.ChainStreamInterceptor] for the listener and
// the local door.
func ChainStreamInterceptor(interceptors ...grpc.StreamServerInterceptor) grpc.ServerOption {
	own := slices.Clone(interceptors)
	return serverTwin{grpc.ChainStreamInterceptor(own...), func(s *serverSettings) {
		for _, next := range own {
			s.streamInt = chainStream(s.streamInt, next)
		}
	}}
}

// StatsHandler is [grpc.StatsHandler] for the listener and the local door.
func StatsHandler(h stats.Handler) grpc.ServerOption {
	return serverTwin{grpc.StatsHandler(h), func(s *serverSettings) {
		if h != nil {
			s.stats = append(s.stats, h)
		}
	}}
}

// MaxRecvMsgSize is [grpc.MaxRecvMsgSize], in bytes, for the listener and the
// local door.
func MaxRecvMsgSize(n int) grpc.ServerOption {
	return serverTwin{grpc.MaxRecvMsgSize(n), func(s *serverSettings) { s.maxRecv = n }}
}

// MaxSendMsgSize is [grpc.MaxSendMsgSize], in bytes, for the listener and the
// local door.
func MaxSendMsgSize(n int) grpc.ServerOption {
	return serverTwin{grpc.MaxSendMsgSize(n), func(s *serverSettings) { s.maxSend = n }}
}

// MaxConcurrentStreams is [grpc.MaxConcurrentStreams], per connection, for the
// listener and the local door.
func MaxConcurrentStreams(n uint32) grpc.ServerOption {
	return serverTwin{grpc.MaxConcurrentStreams(n), func(s *serverSettings) {
		s.maxStreams = n
		if n == 0 { // grpc-go: no limit
			s.maxStreams = defaultServerSettings().maxStreams
		}
	}}
}

// UnknownServiceHandler is [grpc.UnknownServiceHandler] for the listener and
// the local door.
func UnknownServiceHandler(h grpc.StreamHandler) grpc.ServerOption {
	desc := &grpc.StreamDesc{StreamName: "unknown_service_handler", Handler: h, ClientStreams: true, ServerStreams: true}
	return serverTwin{grpc.UnknownServiceHandler(h), func(s *serverSettings) { s.unknown = desc }}
}

// Dir sets the folder of the rendezvous files by which clients on this host
// find the local door. Containers that shall meet mount the same folder.
func Dir(path string) grpc.ServerOption {
	return ownServerOption{set: func(o *ownServerOptions) { o.dir = path }}
}

// AllowUIDs lets processes of these users through the local door, besides those
// of the server's own user. It adds to earlier ones.
func AllowUIDs(uids ...int) grpc.ServerOption {
	own := slices.Clone(uids)
	return ownServerOption{set: func(o *ownServerOptions) { o.allowUIDs = append(o.allowUIDs, own...) }}
}

// Logger sets where the server says, once each, what people should know.
// The default is [slog.Default].
func Logger(l *slog.Logger) grpc.ServerOption {
	return ownServerOption{set: func(o *ownServerOptions) { o.logger = l }}
}

// NoSharedMemory makes the local door a unix socket.
func NoSharedMemory() grpc.ServerOption {
	return ownServerOption{set: func(o *ownServerOptions) { o.noSharedMemory = true }}
}

// WithTransportCredentials is [grpc.WithTransportCredentials]. Credentials other
// than those of the packages insecure and local keep calls off the local door.
func WithTransportCredentials(creds credentials.TransportCredentials) grpc.DialOption {
	return dialTwin{grpc.WithTransportCredentials(creds), func(s *clientSettings, _ *ownDialOptions) {
		s.creds = creds
	}}
}

// WithStatsHandler is [grpc.WithStatsHandler] for remote and local calls.
func WithStatsHandler(h stats.Handler) grpc.DialOption {
	return dialTwin{grpc.WithStatsHandler(h), func(s *clientSettings, _ *ownDialOptions) {
		if h != nil {
			s.stats = append(s.stats, h)
		}
	}}
}

// WithPerRPCCredentials is [grpc.WithPerRPCCredentials] for remote and local
// calls.
func WithPerRPCCredentials(creds credentials.PerRPCCredentials) grpc.DialOption {
	return dialTwin{grpc.WithPerRPCCredentials(creds), func(s *clientSettings, _ *ownDialOptions) {
		s.perRPC = append(s.perRPC, creds)
	}}
}

// WithAuthority is [grpc.WithAuthority] for remote and local calls.
func WithAuthority(authority string) grpc.DialOption {
	return dialTwin{grpc.WithAuthority(authority), func(s *clientSettings, _ *ownDialOptions) {
		s.authority = authority
	}}
}

// WithResolvers is [grpc.WithResolvers]; the same resolvers find local servers.
func WithResolvers(rs ...resolver.Builder) grpc.DialOption {
	own := slices.Clone(rs)
	return dialTwin{grpc.WithResolvers(own...), func(s *clientSettings, _ *ownDialOptions) {
		s.resolvers = append(s.resolvers, own...)
	}}
}

// WithContextDialer is [grpc.WithContextDialer] for remote calls only. With
// grpc-go's own option a dialer decides where all bytes go, and so there are no
// local calls; with this one there are, and they bypass it.
func WithContextDialer(dial func(context.Context, string) (net.Conn, error)) grpc.DialOption {
	return dialTwin{grpc.WithContextDialer(dial), func(_ *clientSettings, o *ownDialOptions) {
		o.pastDialer = true
	}}
}

// WithDir is [Dir] for clients.
func WithDir(path string) grpc.DialOption {
	return ownDialOption{set: func(o *ownDialOptions) { o.dir = path }}
}

// WithAllowUIDs lets calls go to local doors of servers of these users, besides
// those of the client's own user. It adds to earlier ones.
func WithAllowUIDs(uids ...int) grpc.DialOption {
	own := slices.Clone(uids)
	return ownDialOption{set: func(o *ownDialOptions) { o.allowUIDs = append(o.allowUIDs, own...) }}
}

// Policy makes the server's calls obey p, at the listener and at the local door, before all
// other interceptors but the one of [grpc.UnaryInterceptor] or [grpc.StreamInterceptor]. At the door a call for which
// x-stile.admission has no room is refused before that one, too.
func Policy(p *policy.Policy) grpc.ServerOption {
	return ownServerOption{set: func(o *ownServerOptions) { o.policy = p }}
}

// WithPolicy makes the connection's calls obey p, whichever way they go, inside of all other
// interceptors. Retries are then p's alone: those of a service config are disabled.
func WithPolicy(p *policy.Policy) grpc.DialOption {
	return ownDialOption{set: func(o *ownDialOptions) { o.policy = p }}
}

// WithLogger is [Logger] for clients.
func WithLogger(l *slog.Logger) grpc.DialOption {
	return ownDialOption{set: func(o *ownDialOptions) { o.logger = l }}
}

// WithoutSharedMemory makes local calls use a unix socket.
func WithoutSharedMemory() grpc.DialOption {
	return ownDialOption{set: func(o *ownDialOptions) { o.noSharedMemory = true }}
}

// splitServerOptions sorts opts. plain is for grpc.NewServer, in the same order;
// explicit holds grpc-go's defaults and what the twins set, and is all there is
// to know if onlyTwins is true.
func splitServerOptions(opts []grpc.ServerOption) (plain []grpc.ServerOption, own ownServerOptions, explicit serverSettings, onlyTwins bool) {
	explicit, onlyTwins = defaultServerSettings(), true
	for _, o := range opts {
		switch o := o.(type) {
		case serverTwin:
			o.set(&explicit)
			plain = append(plain, o.ServerOption)
		case ownServerOption:
			o.set(&own)
		case grpc.EmptyServerOption:
		default:
			plain = append(plain, o)
			onlyTwins = false
		}
	}
	if p := own.policy; p != nil {
		unary, stream := policy.UnaryServerInterceptor(p), policy.StreamServerInterceptor(p)
		plain = append([]grpc.ServerOption{grpc.ChainUnaryInterceptor(unary), grpc.ChainStreamInterceptor(stream)}, plain...)
		explicit.unaryInt, explicit.streamInt = chainUnary(unary, explicit.unaryInt), chainStream(stream, explicit.streamInt)
	}
	return plain, own, explicit, onlyTwins
}

// splitDialOptions sorts opts as splitServerOptions does.
func splitDialOptions(opts []grpc.DialOption) (plain []grpc.DialOption, own ownDialOptions, explicit clientSettings, onlyTwins bool) {
	explicit, onlyTwins = defaultClientSettings(), true
	for _, o := range opts {
		switch o := o.(type) {
		case dialTwin:
			o.set(&explicit, &own)
			plain = append(plain, o.DialOption)
		case ownDialOption:
			o.set(&own)
		case grpc.EmptyDialOption:
		default:
			plain = append(plain, o)
			onlyTwins = false
		}
	}
	if !plainCreds(explicit.creds) {
		explicit.shut = append(explicit.shut, shutCreds(explicit.creds, "the server"))
	}
	if own.policy != nil {
		plain = append(plain, grpc.WithDisableRetry())
		explicit.disableRetry = true
	}
	return plain, own, explicit, onlyTwins
}
