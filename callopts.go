package stile

import (
	"reflect"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// messageCodec turns messages into bytes and back: what grpc-go has in common
// for its three generations of codecs. [encoding.CodecV2] satisfies it.
type messageCodec interface {
	Marshal(any) (mem.BufferSlice, error)
	Unmarshal(mem.BufferSlice, any) error
}

// callInfo is what the options of one call ask for. It is filled by
// readCallOptions, may be used again for another call, and must not be copied.
type callInfo struct {
	failFast    bool // the opposite of WaitForReady; true unless an option says otherwise
	failFastSet bool // an option said so

	maxRecv, maxSend *int // bytes; nil: no option

	creds          credentials.PerRPCCredentials
	compressor     string              // grpc-encoding to send; "": no option
	compressorV1   encoding.Compressor // of that name; nil for "" and "identity"
	contentSubtype string              // to send in content-type; "": none
	codec          messageCodec        // never nil after readCallOptions

	authority         string   // "": the connection's
	acceptCompressors []string // nil: all that are registered

	header, trailer []*metadata.MD
	peer            []*peer.Peer
	onFinish        []func(error)

	// Room for the usual one of each, so that reading it allocates nothing.
	oneHeader, oneTrailer [1]*metadata.MD
	onePeer               [1]*peer.Peer
}

// reset makes c ready for another call, keeping the room of its slices.
func (c *callInfo) reset() {
	header, trailer, peers, onFinish := c.header, c.trailer, c.peer, c.onFinish
	clear(header)
	clear(trailer)
	clear(peers)
	clear(onFinish)
	*c = callInfo{failFast: true, header: header[:0], trailer: trailer[:0], peer: peers[:0], onFinish: onFinish[:0]}
	if cap(c.header) == 0 {
		c.header = c.oneHeader[:0]
	}
	if cap(c.trailer) == 0 {
		c.trailer = c.oneTrailer[:0]
	}
	if cap(c.peer) == 0 {
		c.peer = c.onePeer[:0]
	}
}

// readCallOptions fills into from opts, later options winning, and resolves the
// codec and the compressor. Its errors are those of grpc-go; an option that
// cannot be honoured is an error that names its type. Pointers in into refer to
// the caller's variables and are written when the call ends.
func readCallOptions(opts []grpc.CallOption, into *callInfo) error {
	into.reset()
	for _, o := range opts {
		if err := into.apply(o); err != nil {
			return err
		}
	}
	if err := into.resolveCodec(); err != nil {
		return err
	}
	if name := into.compressor; name != "" && name != encoding.Identity {
		into.compressorV1 = encoding.GetCompressor(name)
		if into.compressorV1 == nil {
			return status.Errorf(codes.Internal, "grpc: Compressor is not installed for requested grpc-encoding %q", name)
		}
	}
	return nil
}

// apply takes one option. A pointer to an option is as good as the option.
func (c *callInfo) apply(o grpc.CallOption) error {
	switch o := o.(type) {
	case grpc.HeaderCallOption:
		c.addHeader(o.HeaderAddr)
	case grpc.TrailerCallOption:
		c.addTrailer(o.TrailerAddr)
	case grpc.PeerCallOption:
		c.addPeer(o.PeerAddr)
	case grpc.FailFastCallOption:
		c.failFast, c.failFastSet = o.FailFast, true
	case grpc.MaxRecvMsgSizeCallOption:
		c.maxRecv = new(o.MaxRecvMsgSize)
	case grpc.MaxSendMsgSizeCallOption:
		c.maxSend = new(o.MaxSendMsgSize)
	case grpc.PerRPCCredsCallOption:
		c.creds = o.Creds
	case grpc.CompressorCallOption:
		c.compressor = o.CompressorType
	case grpc.ContentSubtypeCallOption:
		c.contentSubtype = o.ContentSubtype
	case grpc.ForceCodecCallOption:
		c.codec = bridgeV1(o.Codec)
	case grpc.ForceCodecV2CallOption:
		c.codec = o.CodecV2
	case grpc.CustomCodecCallOption:
		c.codec = codecBridge{o.Codec}
	case grpc.OnFinishCallOption:
		c.onFinish = append(c.onFinish, o.OnFinish)
	case grpc.MaxRetryRPCBufferSizeCallOption:
		// Bounds grpc-go's retry buffer; local calls have none.
	case grpc.StaticMethodCallOption, grpc.EmptyCallOption:
		// Say nothing to the call itself.
	default:
		return c.applyOther(o)
	}
	return nil
}

func (c *callInfo) addHeader(md *metadata.MD) {
	if md != nil {
		c.header = append(c.header, md)
	}
}

func (c *callInfo) addTrailer(md *metadata.MD) {
	if md != nil {
		c.trailer = append(c.trailer, md)
	}
}

func (c *callInfo) addPeer(p *peer.Peer) {
	if p != nil {
		c.peer = append(c.peer, p)
	}
}

// silentOptions remembers types that embed grpc.EmptyCallOption.
var silentOptions sync.Map // reflect.Type -> struct{}

const grpcPath = "google.golang.org/grpc"

// applyOther takes what the type switch cannot name: options newer than the
// oldest grpc-go this builds with, pointers to options, and types of other
// packages, which are options only by embedding one.
func (c *callInfo) applyOther(o grpc.CallOption) error {
	if o == nil {
		return status.Error(codes.Internal, "stile: a call option is nil")
	}
	t := reflect.TypeOf(o)
	if _, ok := silentOptions.Load(t); ok {
		return nil
	}
	v := reflect.ValueOf(o)
	if t.Kind() == reflect.Pointer {
		if v.IsNil() {
			return refuse(o)
		}
		if inner, ok := v.Elem().Interface().(grpc.CallOption); ok {
			return c.apply(inner)
		}
		v, t = v.Elem(), t.Elem()
	}
	if t.PkgPath() == grpcPath {
		return c.applyNewer(o, t, v)
	}
	inner, found := embeddedOption(v)
	if !found {
		return refuse(o)
	}
	if inner.Type() == reflect.TypeFor[grpc.EmptyCallOption]() {
		silentOptions.Store(reflect.TypeOf(o), struct{}{})
		return nil
	}
	if !inner.CanInterface() {
		return refuse(o)
	}
	next, ok := inner.Interface().(grpc.CallOption)
	if !ok {
		return refuse(o)
	}
	return c.apply(next)
}

// applyNewer takes the options that grpc-go got after v1.70.
func (c *callInfo) applyNewer(o grpc.CallOption, t reflect.Type, v reflect.Value) error {
	switch t.Name() {
	case "AuthorityOverrideCallOption": // 1.73
		if f := v.FieldByName("Authority"); f.IsValid() && f.Kind() == reflect.String && t.NumField() == 1 {
			c.authority = f.String()
			return nil
		}
	case "acceptCompressorsCallOption": // 1.78
		f := v.FieldByName("names")
		if f.IsValid() && f.Type() == reflect.TypeFor[[]string]() && t.NumField() == 1 {
			return c.accept(f)
		}
	}
	return refuse(o)
}

// accept mirrors newAcceptedCompressionConfig of grpc-go's rpc_util.go.
func (c *callInfo) accept(names reflect.Value) error {
	c.acceptCompressors = nil
	var allowed []string
	seen := make(map[string]bool)
	for i := range names.Len() {
		name := strings.TrimSpace(names.Index(i).String())
		if name == "" || name == encoding.Identity || seen[name] {
			continue
		}
		if encoding.GetCompressor(name) == nil {
			return status.Errorf(codes.InvalidArgument, "grpc: compressor %q is not registered", name)
		}
		seen[name] = true
		allowed = append(allowed, name)
	}
	c.acceptCompressors = allowed
	return nil
}

// embeddedOption finds the embedded field that makes a struct a CallOption, by
// Go's rule: the shallowest. Only grpc-go itself can declare the methods.
func embeddedOption(v reflect.Value) (reflect.Value, bool) {
	option := reflect.TypeFor[grpc.CallOption]()
	for level := []reflect.Value{v}; len(level) > 0; {
		var next, found []reflect.Value
		for _, s := range level {
			if s.Kind() == reflect.Pointer {
				s = s.Elem()
			}
			if s.Kind() != reflect.Struct {
				continue
			}
			for i := range s.NumField() {
				f := s.Type().Field(i)
				if !f.Anonymous || !f.Type.Implements(option) && !reflect.PointerTo(f.Type).Implements(option) {
					continue
				}
				base := f.Type
				if base.Kind() == reflect.Pointer {
					base = base.Elem()
				}
				if base.Kind() == reflect.Interface || base.PkgPath() == grpcPath {
					found = append(found, s.Field(i))
				} else {
					next = append(next, s.Field(i))
				}
			}
		}
		if len(found) > 0 {
			return found[0], len(found) == 1
		}
		level = next
	}
	return reflect.Value{}, false
}

func refuse(o grpc.CallOption) error {
	return status.Errorf(codes.Unimplemented, "stile: call option %T cannot be honoured by a local call", o)
}

// resolveCodec mirrors setCallInfoCodec of grpc-go's rpc_util.go.
func (c *callInfo) resolveCodec() error {
	if c.codec != nil {
		if named, ok := c.codec.(encoding.CodecV2); ok && c.contentSubtype == "" {
			c.contentSubtype = strings.ToLower(named.Name())
		}
		return nil
	}
	if c.contentSubtype == "" {
		c.codec = usualCodec()
		return nil
	}
	if c.codec = codecFor(c.contentSubtype); c.codec == nil {
		return status.Errorf(codes.Internal, "no codec registered for content-subtype %s", c.contentSubtype)
	}
	return nil
}

// usualCodec is the codec of calls that name none, and haveGzip whether gzip can be
// read. Codecs and compressors are registered while programs initialize, so it is
// enough to look once.
var (
	usualCodec = sync.OnceValue(func() messageCodec { return codecFor(proto.Name) })
	haveGzip   = sync.OnceValue(func() bool { return encoding.GetCompressor("gzip") != nil })
)

// codecFor returns the registered codec of a content-subtype, or nil. As in
// grpc-go a codec of the first generation hides one of the second.
func codecFor(name string) messageCodec {
	if v1 := encoding.GetCodec(name); v1 != nil {
		return bridgeV1(v1)
	}
	if v2 := encoding.GetCodecV2(name); v2 != nil {
		return v2
	}
	return nil
}

// codecBridge makes a messageCodec of an older codec.
type codecBridge struct {
	codec interface {
		Marshal(any) ([]byte, error)
		Unmarshal([]byte, any) error
	}
}

func (b codecBridge) Marshal(v any) (mem.BufferSlice, error) {
	data, err := b.codec.Marshal(v)
	if err != nil {
		return nil, err
	}
	return mem.BufferSlice{mem.SliceBuffer(data)}, nil
}

func (b codecBridge) Unmarshal(data mem.BufferSlice, v any) error {
	return b.codec.Unmarshal(data.Materialize(), v)
}

// namedBridge is a codecBridge whose name becomes the content-subtype.
type namedBridge struct {
	codecBridge
	name string
}

func (b namedBridge) Name() string { return b.name }

func bridgeV1(c encoding.Codec) messageCodec {
	if c == nil {
		return nil
	}
	return namedBridge{codecBridge{c}, c.Name()}
}

var _ encoding.CodecV2 = namedBridge{}
