package stile

import (
	"fmt"
	"math"
	"os"
	"reflect"
	"strings"
	"sync"
	"unsafe"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/credentials/local"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/stats"
)

// This file is the only one that looks into grpc-go's unexported fields. It
// does so for structs whose every field is in the tables of opaque_layouts.go,
// and only by copying a value out of a field of exactly the expected type. For
// anything else it reports why the local door must stay shut.

// Limits that grpc-go sets where the user sets none: server.go and
// clientconn.go, defaultServerMaxReceiveMessageSize and its neighbours.
const (
	defaultMaxRecv = 4 << 20
	defaultMaxSend = math.MaxInt32
)

// serverSettings is what the local door must honour of a *grpc.Server.
type serverSettings struct {
	unaryInt  grpc.UnaryServerInterceptor // the whole chain; nil: none
	streamInt grpc.StreamServerInterceptor
	stats     []stats.Handler

	maxRecv, maxSend int    // bytes
	maxStreams       uint32 // per connection; math.MaxUint32: no limit
	maxHeaderList    uint32 // bytes; 0: grpc-go's default

	unknown *grpc.StreamDesc // unknown-service handler
	codec   messageCodec     // forced codec; nil: by content-subtype

	cp grpc.Compressor   //nolint:staticcheck // deprecated, and honoured
	dc grpc.Decompressor //nolint:staticcheck // deprecated, and honoured

	waitForHandlers bool

	shut          []string // why the local door stays shut, for people; empty: it may open
	layoutUnknown bool     // shut says so; the other fields are defaults
}

// serviceTable holds the services of a *grpc.Server by full service name.
type serviceTable map[string]*serviceEntry

// serviceEntry is one registered service. From grpc-go 1.84 on, unary methods
// are in streams too, as descriptors with neither ClientStreams nor
// ServerStreams whose handler runs the server's unary interceptor itself.
type serviceEntry struct {
	impl     any
	unary    map[string]*grpc.MethodDesc
	streams  map[string]*grpc.StreamDesc
	metadata any
}

// clientSettings is what a local call must honour of a *grpc.ClientConn and
// does not see in an interceptor's arguments.
type clientSettings struct {
	stats  []stats.Handler
	perRPC []credentials.PerRPCCredentials
	creds  credentials.TransportCredentials // nil: none, or in a bundle

	cp grpc.Compressor   //nolint:staticcheck // deprecated, and honoured
	dc grpc.Decompressor //nolint:staticcheck // deprecated, and honoured

	authority string // as grpc-go computed it; what :authority carries
	userAgent string // as sent: the user's prefix and grpc-go's own

	resolvers            []resolver.Builder
	defaultScheme        string
	defaultServiceConfig *grpc.ServiceConfig //nolint:staticcheck // the type of the parsed default
	policy               string              // load-balancing policy the default service config names; "": none
	disableServiceConfig bool
	disableRetry         bool
	maxCallAttempts      int
	maxHeaderList        uint32 // bytes; 0: grpc-go's default
	block                bool

	lastUnary  grpc.UnaryClientInterceptor // of the chain: Stile's own, if it is taken
	lastStream grpc.StreamClientInterceptor

	shut          []string
	layoutUnknown bool
	customDialer  bool // shut holds shutDialer
}

const (
	shutBinaryLogEnv = "GRPC_BINARY_LOG_FILTER asks for binary logging, which is not done for local calls"
	shutBinaryLog    = "a binary logger is set, which is not served for local calls"
	shutDialer       = "a custom dialer decides where the bytes go (stile.WithContextDialer allows local calls past it)"
)

func defaultServerSettings() serverSettings {
	return serverSettings{
		maxRecv: defaultMaxRecv, maxSend: defaultMaxSend, maxStreams: math.MaxUint32,
		shut: shutByEnvironment(),
	}
}

func defaultClientSettings() clientSettings {
	return clientSettings{
		userAgent:       "grpc-go/" + grpc.Version,
		defaultScheme:   resolver.GetDefaultScheme(),
		maxCallAttempts: 5, // dialoptions.go, defaultMaxCallAttempts
		shut:            shutByEnvironment(),
	}
}

func shutByEnvironment() []string {
	if os.Getenv("GRPC_BINARY_LOG_FILTER") != "" {
		return []string{shutBinaryLogEnv}
	}
	return nil
}

// readServer copies what the local door needs out of s. It never panics: what
// it cannot read with certainty ends in shut.
func readServer(s *grpc.Server) (out serverSettings) {
	defer func() {
		if p := recover(); p != nil {
			out = unknownServer(fmt.Sprintf("reading the server failed: %v", p))
		}
	}()
	if s == nil {
		return unknownServer("the server is nil")
	}
	if why := serverLayout(); why != "" {
		return unknownServer(why)
	}
	r := reader{root: "Server.opts", v: structOf(s).FieldByName("opts")}
	out = defaultServerSettings()
	out.unaryInt = get[grpc.UnaryServerInterceptor](&r, "unaryInt")
	out.streamInt = get[grpc.StreamServerInterceptor](&r, "streamInt")
	out.stats = get[[]stats.Handler](&r, "statsHandlers")
	out.maxRecv = get[int](&r, "maxReceiveMessageSize")
	out.maxSend = get[int](&r, "maxSendMessageSize")
	out.maxStreams = get[uint32](&r, "maxConcurrentStreams")
	if p := get[*uint32](&r, "maxHeaderListSize"); p != nil {
		out.maxHeaderList = *p
	}
	out.unknown = get[*grpc.StreamDesc](&r, "unknownStreamDesc")
	out.codec = codecField(&r, "codec")
	out.cp = get[grpc.Compressor](&r, "cp")   //nolint:staticcheck // deprecated, and honoured
	out.dc = get[grpc.Decompressor](&r, "dc") //nolint:staticcheck // deprecated, and honoured
	out.waitForHandlers = get[bool](&r, "waitForHandlers")
	if creds := get[credentials.TransportCredentials](&r, "creds"); !plainCreds(creds) {
		out.shut = append(out.shut, shutCreds(creds, "callers"))
	}
	if !isNil(&r, "inTapHandle") {
		out.shut = append(out.shut, "a tap handle (grpc.InTapHandle) sees calls before they are made")
	}
	if !isNil(&r, "binaryLogger") {
		out.shut = append(out.shut, shutBinaryLog)
	}
	if r.v.FieldByName("streamWrapper").IsValid() && !isNil(&r, "streamWrapper") {
		out.shut = append(out.shut, "xDS server filters are installed")
	}
	if r.failed != "" {
		return unknownServer(r.failed)
	}
	return out
}

// readServices copies the service table of s. Like grpc-go it must be called
// when registration is over, before or after Serve.
func readServices(s *grpc.Server) (table serviceTable, err error) {
	defer func() {
		if p := recover(); p != nil {
			table, err = nil, fmt.Errorf("stile: reading the services failed: %v", p)
		}
	}()
	if s == nil {
		return nil, fmt.Errorf("stile: reading the services: the server is nil")
	}
	if why := serverLayout(); why != "" {
		return nil, fmt.Errorf("stile: reading the services: %s", why)
	}
	v := structOf(s)
	mu := (*sync.Mutex)(addr(v.FieldByName("mu")))
	mu.Lock()
	defer mu.Unlock()
	services := exported(v.FieldByName("services"))
	table = make(serviceTable, services.Len())
	for it := services.MapRange(); it.Next(); {
		r := reader{root: "serviceInfo", v: it.Value().Elem()}
		e := &serviceEntry{
			impl:     get[any](&r, "serviceImpl"),
			streams:  get[map[string]*grpc.StreamDesc](&r, "streams"),
			metadata: get[any](&r, "mdata"),
		}
		if r.v.FieldByName("methods").IsValid() {
			e.unary = get[map[string]*grpc.MethodDesc](&r, "methods")
		}
		if r.failed != "" {
			return nil, fmt.Errorf("stile: reading the services: %s", r.failed)
		}
		table[it.Key().String()] = e
	}
	return table, nil
}

// quitting returns a channel that closes when s is stopped, nil if it cannot be had.
func quitting(s *grpc.Server) <-chan struct{} {
	if serverLayout() != "" {
		return nil
	}
	f := structOf(s).FieldByName("quit")
	if e, ok := exported(f).Interface().(interface{ Done() <-chan struct{} }); ok && !f.IsNil() {
		return e.Done()
	}
	return nil
}

// readClient copies what local calls need out of cc. It never panics.
func readClient(cc *grpc.ClientConn) (out clientSettings) {
	defer func() {
		if p := recover(); p != nil {
			out = unknownClient(fmt.Sprintf("reading the client connection failed: %v", p))
		}
	}()
	if cc == nil {
		return unknownClient("the client connection is nil")
	}
	if why := clientLayout(); why != "" {
		return unknownClient(why)
	}
	v := structOf(cc)
	r := reader{root: "ClientConn.dopts", v: v.FieldByName("dopts")}
	out = defaultClientSettings()
	compressor := "compressorV0" // 1.71 on
	if !r.v.FieldByName(compressor).IsValid() {
		compressor = "cp"
	}
	out.cp = get[grpc.Compressor](&r, compressor) //nolint:staticcheck // deprecated, and honoured
	out.dc = get[grpc.Decompressor](&r, "dc")     //nolint:staticcheck // deprecated, and honoured
	out.resolvers = get[[]resolver.Builder](&r, "resolvers")
	if scheme := get[string](&r, "defaultScheme"); scheme != "" {
		out.defaultScheme = scheme
	}
	out.defaultServiceConfig = get[*grpc.ServiceConfig](&r, "defaultServiceConfig") //nolint:staticcheck // see above
	if js := get[*string](&r, "defaultServiceConfigRawJSON"); js != nil {
		out.policy = policyOf(*js)
	}
	out.disableServiceConfig = get[bool](&r, "disableServiceConfig")
	out.disableRetry = get[bool](&r, "disableRetry")
	out.maxCallAttempts = get[int](&r, "maxCallAttempts")
	out.block = get[bool](&r, "block")
	if chain := get[[]grpc.UnaryClientInterceptor](&r, "chainUnaryInts"); len(chain) > 0 {
		out.lastUnary = chain[len(chain)-1]
	}
	if chain := get[[]grpc.StreamClientInterceptor](&r, "chainStreamInts"); len(chain) > 0 {
		out.lastStream = chain[len(chain)-1]
	}
	if !isNil(&r, "binaryLogger") {
		out.shut = append(out.shut, shutBinaryLog)
	}
	c := reader{root: "ClientConn.dopts.copts", v: r.v.FieldByName("copts")}
	out.readConnect(&c)
	cr := reader{root: "ClientConn", v: v}
	out.authority = get[string](&cr, "authority")
	for _, failed := range []string{r.failed, c.failed, cr.failed} {
		if failed != "" {
			return unknownClient(failed)
		}
	}
	return out
}

// readConnect reads the part that grpc-go hands to its transport.
func (out *clientSettings) readConnect(c *reader) {
	out.stats = get[[]stats.Handler](c, "StatsHandlers")
	out.perRPC = get[[]credentials.PerRPCCredentials](c, "PerRPCCredentials")
	if ua := get[string](c, "UserAgent"); ua != "" {
		out.userAgent = ua
	}
	if p := get[*uint32](c, "MaxHeaderListSize"); p != nil {
		out.maxHeaderList = *p
	}
	out.creds = get[credentials.TransportCredentials](c, "TransportCredentials")
	if !plainCreds(out.creds) {
		out.shut = append(out.shut, shutCreds(out.creds, "the server"))
	}
	if bundle := get[credentials.Bundle](c, "CredsBundle"); !plainBundle(bundle) {
		out.shut = append(out.shut, fmt.Sprintf("a credentials bundle (%T) authenticates the server", bundle))
	}
	if !isNil(c, "Dialer") {
		out.shut = append(out.shut, shutDialer)
		out.customDialer = true
	}
}

func unknownServer(why string) serverSettings {
	s := defaultServerSettings()
	s.shut = append(s.shut, unknownLayout(why))
	s.layoutUnknown = true
	return s
}

func unknownClient(why string) clientSettings {
	s := defaultClientSettings()
	s.shut = append(s.shut, unknownLayout(why))
	s.layoutUnknown = true
	return s
}

func unknownLayout(why string) string {
	return "grpc-go v" + strings.TrimPrefix(grpc.Version, "v") + " is not laid out as known: " + why
}

// plainCreds tells credentials that identify nobody. Their type is compared,
// not only what they say of themselves: credentials that wrap these and check
// the peer are others.
func plainCreds(c credentials.TransportCredentials) bool {
	if c == nil {
		return true
	}
	switch t := reflect.TypeOf(c); c.Info().SecurityProtocol {
	case "insecure":
		return t == reflect.TypeOf(insecure.NewCredentials())
	case "local":
		return t == reflect.TypeOf(local.NewCredentials())
	}
	return false
}

func plainBundle(b credentials.Bundle) bool {
	return b == nil || reflect.TypeOf(b) == reflect.TypeOf(insecure.NewBundle())
}

func shutCreds(c credentials.TransportCredentials, whom string) string {
	return fmt.Sprintf("transport credentials %q (%T) authenticate %s", c.Info().SecurityProtocol, c, whom)
}

// reader copies fields out of one struct; the first failure sticks.
type reader struct {
	root   string
	v      reflect.Value // addressable
	failed string
}

func (r *reader) field(name string) (reflect.Value, bool) {
	f := r.v.FieldByName(name)
	if !f.IsValid() {
		r.fail(name, "is missing")
		return f, false
	}
	return f, true
}

func (r *reader) fail(name, why string) {
	if r.failed == "" {
		r.failed = "field " + r.root + "." + name + " " + why
	}
}

// get copies the field of exactly type T.
func get[T any](r *reader, name string) (out T) {
	f, ok := r.field(name)
	if !ok {
		return out
	}
	if f.Type() != reflect.TypeFor[T]() {
		r.fail(name, "has type "+f.Type().String())
		return out
	}
	return *(*T)(addr(f))
}

// isNil tells whether a field of any nilable type is nil.
func isNil(r *reader, name string) bool {
	f, ok := r.field(name)
	return ok && f.IsNil()
}

// codecField reads a field of grpc-go's unexported codec interface.
func codecField(r *reader, name string) messageCodec {
	f, ok := r.field(name)
	if !ok || f.IsNil() {
		return nil
	}
	c, ok := exported(f).Interface().(messageCodec)
	if !ok {
		r.fail(name, "has type "+f.Type().String())
	}
	return c
}

// structOf returns the struct behind p.
func structOf[T any](p *T) reflect.Value { return reflect.ValueOf(p).Elem() }

// addr returns the address of an addressable field.
func addr(f reflect.Value) unsafe.Pointer { return unsafe.Pointer(f.UnsafeAddr()) }

// exported returns the same field without reflect's mark of an unexported one.
func exported(f reflect.Value) reflect.Value { return reflect.NewAt(f.Type(), addr(f)).Elem() }
