package stile

import (
	"reflect"
	"sync"

	"google.golang.org/grpc"
)

// layout is every field, by name, that a struct of grpc-go is known to have had
// in v1.70 to v1.85, with its type as package reflect prints it. A version that
// added or dropped a field is named behind it.
type layout map[string]string

// layoutServer and its neighbours: server.go.
var layoutServer = layout{
	"opts":                         "grpc.serverOptions",
	"statsHandler":                 "stats.Handler", // 1.77
	"mu":                           "sync.Mutex",
	"lis":                          "map[net.Listener]bool",
	"conns":                        "map[string]map[transport.ServerTransport]bool",
	"serve":                        "bool",
	"drain":                        "bool",
	"cv":                           "*sync.Cond",
	"services":                     "map[string]*grpc.serviceInfo",
	"events":                       "grpc.traceEventLog",
	"quit":                         "*grpcsync.Event",
	"done":                         "*grpcsync.Event",
	"channelzRemoveOnce":           "sync.Once",
	"serveWG":                      "sync.WaitGroup",
	"handlersWG":                   "sync.WaitGroup",
	"channelz":                     "*channelz.Server",
	"serverWorkerChannel":          "chan func()",
	"serverWorkerChannelClose":     "func()",
	"strictPathCheckingLogEmitted": "atomic.Bool", // 1.79.3 to 1.81
}

var layoutServerOptions = layout{
	"creds":                 "credentials.TransportCredentials",
	"codec":                 "grpc.baseCodec",
	"cp":                    "grpc.Compressor",
	"dc":                    "grpc.Decompressor",
	"unaryInt":              "grpc.UnaryServerInterceptor",
	"streamInt":             "grpc.StreamServerInterceptor",
	"chainUnaryInts":        "[]grpc.UnaryServerInterceptor",
	"chainStreamInts":       "[]grpc.StreamServerInterceptor",
	"binaryLogger":          "binarylog.Logger",
	"inTapHandle":           "tap.ServerInHandle",
	"statsHandlers":         "[]stats.Handler",
	"maxConcurrentStreams":  "uint32",
	"maxReceiveMessageSize": "int",
	"maxSendMessageSize":    "int",
	"unknownStreamDesc":     "*grpc.StreamDesc",
	"keepaliveParams":       "keepalive.ServerParameters",
	"keepalivePolicy":       "keepalive.EnforcementPolicy",
	"initialWindowSize":     "int32",
	"initialConnWindowSize": "int32",
	"writeBufferSize":       "int",
	"readBufferSize":        "int",
	"sharedWriteBuffer":     "bool",
	"connectionTimeout":     "time.Duration",
	"maxHeaderListSize":     "*uint32",
	"headerTableSize":       "*uint32",
	"numServerWorkers":      "uint32",
	"bufferPool":            "mem.BufferPool",
	"waitForHandlers":       "bool",
	"staticWindowSize":      "bool",                                               // 1.74.2
	"streamWrapper":         "func(grpc.ServerStream) (grpc.ServerStream, error)", // 1.84
}

var layoutServiceInfo = layout{
	"serviceImpl": "interface {}",
	"methods":     "map[string]*grpc.MethodDesc", // to 1.83
	"streams":     "map[string]*grpc.StreamDesc",
	"mdata":       "interface {}",
}

// layoutClientConn: clientconn.go.
var layoutClientConn = layout{
	"ctx":                 "context.Context",
	"cancel":              "context.CancelFunc",
	"target":              "string",
	"parsedTarget":        "resolver.Target",
	"authority":           "string",
	"dopts":               "grpc.dialOptions",
	"channelz":            "*channelz.Channel",
	"resolverBuilder":     "resolver.Builder",
	"idlenessMgr":         "*idle.Manager",
	"metricsRecorderList": "*stats.MetricsRecorderList",
	"statsHandler":        "stats.Handler", // 1.77
	"csMgr":               "*grpc.connectivityStateManager",
	"pickerWrapper":       "*grpc.pickerWrapper",
	"safeConfigSelector":  "resolver.SafeConfigSelector",
	"retryThrottler":      "atomic.Value",
	"mu":                  "sync.RWMutex",
	"resolverWrapper":     "*grpc.ccResolverWrapper",
	"balancerWrapper":     "*grpc.ccBalancerWrapper",
	"sc":                  "*grpc.ServiceConfig",
	"conns":               "map[*grpc.addrConn]struct {}",
	"mkp":                 "keepalive.ClientParameters", // 1.70
	"keepaliveParams":     "keepalive.ClientParameters", // 1.71
	"firstResolveEvent":   "*grpcsync.Event",
	"lceMu":               "sync.Mutex",
	"lastConnectionError": "error",
}

// layoutDialOptions: dialoptions.go.
var layoutDialOptions = layout{
	"unaryInt":                    "grpc.UnaryClientInterceptor",
	"streamInt":                   "grpc.StreamClientInterceptor",
	"chainUnaryInts":              "[]grpc.UnaryClientInterceptor",
	"chainStreamInts":             "[]grpc.StreamClientInterceptor",
	"cp":                          "grpc.Compressor", // 1.70
	"compressorV0":                "grpc.Compressor", // 1.71
	"dc":                          "grpc.Decompressor",
	"bs":                          "backoff.Strategy",
	"block":                       "bool",
	"returnLastError":             "bool",
	"timeout":                     "time.Duration",
	"authority":                   "string",
	"binaryLogger":                "binarylog.Logger",
	"copts":                       "transport.ConnectOptions",
	"callOptions":                 "[]grpc.CallOption",
	"channelzParent":              "channelz.Identifier",
	"disableServiceConfig":        "bool",
	"disableRetry":                "bool",
	"disableHealthCheck":          "bool",
	"minConnectTimeout":           "func() time.Duration",
	"defaultServiceConfig":        "*grpc.ServiceConfig",
	"defaultServiceConfigRawJSON": "*string",
	"resolvers":                   "[]resolver.Builder",
	"idleTimeout":                 "time.Duration",
	"defaultScheme":               "string",
	"maxCallAttempts":             "int",
	"enableLocalDNSResolution":    "bool", // 1.71
	"useProxy":                    "bool", // 1.71
}

// layoutConnectOptions: internal/transport/transport.go.
var layoutConnectOptions = layout{
	"UserAgent":              "string",
	"Dialer":                 "func(context.Context, string) (net.Conn, error)",
	"FailOnNonTempDialError": "bool",
	"PerRPCCredentials":      "[]credentials.PerRPCCredentials",
	"TransportCredentials":   "credentials.TransportCredentials",
	"CredsBundle":            "credentials.Bundle",
	"KeepaliveParams":        "keepalive.ClientParameters",
	"StatsHandlers":          "[]stats.Handler",
	"InitialWindowSize":      "int32",
	"InitialConnWindowSize":  "int32",
	"WriteBufferSize":        "int",
	"ReadBufferSize":         "int",
	"SharedWriteBuffer":      "bool",
	"ChannelzParent":         "*channelz.SubChannel",
	"MaxHeaderListSize":      "*uint32",
	"UseProxy":               "bool", // 1.70
	"BufferPool":             "mem.BufferPool",
	"StaticWindowSize":       "bool", // 1.74.2
}

// unknownField returns words on the first field of t that the layout does not
// have, or "".
func (l layout) unknownField(path string, t reflect.Type) string {
	if t.Kind() != reflect.Struct {
		return path + " is a " + t.Kind().String()
	}
	for i := range t.NumField() {
		f := t.Field(i)
		if l[f.Name] != f.Type.String() || f.Anonymous {
			return "field " + path + "." + f.Name + " (" + f.Type.String() + ")"
		}
	}
	return ""
}

// serverLayout returns why the layout of a server is not known, or "".
var serverLayout = sync.OnceValue(func() string {
	server := reflect.TypeFor[grpc.Server]()
	if why := layoutServer.unknownField("Server", server); why != "" {
		return why
	}
	opts, ok := server.FieldByName("opts")
	if !ok {
		return "field Server.opts is missing"
	}
	if why := layoutServerOptions.unknownField("Server.opts", opts.Type); why != "" {
		return why
	}
	services, ok := server.FieldByName("services")
	if !ok {
		return "field Server.services is missing"
	}
	return layoutServiceInfo.unknownField("serviceInfo", services.Type.Elem().Elem())
})

// clientLayout returns why the layout of a client connection is not known, or "".
var clientLayout = sync.OnceValue(func() string {
	conn := reflect.TypeFor[grpc.ClientConn]()
	if why := layoutClientConn.unknownField("ClientConn", conn); why != "" {
		return why
	}
	dopts, ok := conn.FieldByName("dopts")
	if !ok {
		return "field ClientConn.dopts is missing"
	}
	if why := layoutDialOptions.unknownField("ClientConn.dopts", dopts.Type); why != "" {
		return why
	}
	copts, ok := dopts.Type.FieldByName("copts")
	if !ok {
		return "field ClientConn.dopts.copts is missing"
	}
	return layoutConnectOptions.unknownField("ClientConn.dopts.copts", copts.Type)
})
