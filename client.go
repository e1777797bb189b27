package stile

import (
	"context"
	"errors"
	"io"
	"math"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/stile-ipc/stile/internal/lazyctx"
	"github.com/stile-ipc/stile/policy"
	"github.com/stile-ipc/stile/telemetry"
	"github.com/stile-ipc/stile/transport/wire"
)

// NewClient is [grpc.NewClient] for a connection whose calls go through shared
// memory whenever the target is a Stile server on this host, and through
// grpc-go's own transport otherwise. It takes the same target and options, and
// the result is a real *grpc.ClientConn, with grpc-go's concurrency contract.
//
// Stile's interceptors run after the caller's own. No HTTP/2 connection is
// opened until a call needs one. With STILE=off in the environment it is
// grpc.NewClient.
func NewClient(target string, opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	plain, own, explicit, onlyTwins := splitDialOptions(opts)
	if off() {
		return grpc.NewClient(target, append(plain, own.obey()...)...)
	}
	own.recorder = telemetry.Process()
	reportByEnvironment()
	d := &dialer{own: own, explicit: explicit, onlyTwins: onlyTwins}
	return grpc.NewClient(target, append(plain, d.options()...)...)
}

// DialOptions returns opts followed by what makes a grpc-go connection take
// local calls, for libraries that only accept dial options. It must come after
// all other dial options of that connection. The result may be used for any
// number of connections.
func DialOptions(opts ...grpc.DialOption) []grpc.DialOption {
	plain, own, _, _ := splitDialOptions(opts)
	if off() {
		return append(plain, own.obey()...)
	}
	own.recorder = telemetry.Process()
	reportByEnvironment()
	return append(plain, (&dialer{own: own}).options()...)
}

// off reports whether the environment turns Stile off.
func off() bool {
	switch strings.ToLower(os.Getenv("STILE")) {
	case "off", "0", "false", "no":
		return true
	}
	return false
}

// dialer is what the connections made with one set of options share.
type dialer struct {
	own       ownDialOptions
	explicit  clientSettings              // what the twins say
	onlyTwins bool                        // they say it all
	lastUnary grpc.UnaryClientInterceptor // of the connection's chain
	last      atomic.Pointer[entrance]

	mu        sync.Mutex
	entrances map[*grpc.ClientConn]*entrance
}

func (d *dialer) options() []grpc.DialOption {
	d.lastUnary = d.unary
	var stream []grpc.StreamClientInterceptor
	if p := d.own.policy; p != nil {
		d.lastUnary = policy.UnaryClientInterceptorOver(p, d.unary)
		stream = append(stream, policy.StreamClientInterceptor(p))
	}
	return []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(d.lastUnary),
		grpc.WithChainStreamInterceptor(append(stream, d.stream)...),
	}
}

// obey returns the interceptors of the policy, if there is one, for a connection that is grpc-go's
// alone.
func (o *ownDialOptions) obey() []grpc.DialOption {
	if o.policy == nil {
		return nil
	}
	return []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(policy.UnaryClientInterceptor(o.policy)),
		grpc.WithChainStreamInterceptor(policy.StreamClientInterceptor(o.policy)),
	}
}

// entrance finds or makes the entrance of a connection.
func (d *dialer) entrance(cc *grpc.ClientConn) *entrance {
	if e := d.last.Load(); e != nil && e.cc == cc {
		return e
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.entrances[cc]
	if e == nil {
		if d.entrances == nil {
			d.entrances = map[*grpc.ClientConn]*entrance{}
		}
		e = newEntrance(cc, d)
		d.entrances[cc] = e
	}
	d.last.Store(e)
	return e
}

// forget drops the entrance of a connection that was closed.
func (d *dialer) forget(e *entrance) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.entrances, e.cc)
	d.last.CompareAndSwap(e, nil)
}

func (d *dialer) unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	rec := d.begin()
	e := d.entrance(cc)
	m, waited := e.enter(ctx, method)
	rec.waited = waited
	m, err := d.way(ctx, method, m)
	if err != nil {
		return err
	}
	if m != nil {
		err := e.invoke(ctx, m, rec, method, req, reply, opts)
		if !errors.Is(err, errRefused) {
			return err
		}
		if !d.ways(ctx).Allow(lazyctx.GRPC) {
			return errGoingAway
		}
	} else if e.shut == "" && ctx.Err() != nil { // nothing is to be sent, whichever way
		return e.unsent(ctx, unaryDesc, method, &rec, opts)
	}
	e.goesFar(ctx, method, unaryDesc, &rec)
	a, ok := ctx.(*lazyctx.Attempt)
	if !ok {
		err := invoker(ctx, method, req, reply, cc, opts...)
		e.recordFar(ctx, &rec, err)
		return err
	}
	var seen lazyctx.Observed
	err = invoker(ctx, method, req, reply, cc, seen.Options(opts)...)
	e.recordFar(ctx, &rec, err)
	if err != nil {
		a.Report = seen.Report()
		rec.decidedFar(method, &a.Report, err)
	}
	return err
}

// unsent ends a call that is not to be sent, whichever way.
func (e *entrance) unsent(ctx context.Context, desc *grpc.StreamDesc, method string, rec *clientRecord, opts []grpc.CallOption) error {
	err := e.prepare(ctx, new(clientStream), desc, method, opts)
	if t := tallyOf(ctx, desc); t == nil {
		rec.route = e.farRoute(method, isStream(desc), rec)
		rec.unsent(err)
	} else if status.Code(err) == codes.DeadlineExceeded {
		t.Count(telemetry.Late)
	}
	return err
}

func (d *dialer) stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	rec := d.begin()
	e := d.entrance(cc)
	m, waited := e.enter(ctx, method)
	rec.waited = waited
	m, err := d.way(ctx, method, m)
	if err != nil {
		return nil, err
	}
	if m != nil {
		s, err := e.newStream(ctx, m, rec, desc, method, opts)
		if err == nil {
			return s, nil
		}
		if !errors.Is(err, errRefused) {
			return nil, err
		}
		if !d.ways(ctx).Allow(lazyctx.GRPC) {
			return nil, errGoingAway
		}
	} else if e.shut == "" && ctx.Err() != nil {
		return nil, e.unsent(ctx, desc, method, &rec, opts)
	}
	e.goesFar(ctx, method, desc, &rec)
	if rec.begun == 0 {
		return streamer(ctx, desc, cc, method, opts...)
	}
	far, ended := rec, &atomic.Bool{}
	end := func(err error) {
		if ended.CompareAndSwap(false, true) {
			e.recordFar(ctx, &far, err)
		}
	}
	s, err := streamer(ctx, desc, cc, method, append(slices.Clip(opts), grpc.OnFinish(end))...)
	if err != nil { // which grpc-go tells OnFinish of from v1.79 on
		end(err)
	}
	return s, err
}

// way returns m, the local connection or nil, if the policy lets the call go that way, and nil if
// it lets it go over gRPC.
func (d *dialer) way(ctx context.Context, method string, m *clientMux) (*clientMux, error) {
	ways := d.ways(ctx)
	if ways == 0 {
		return m, nil
	}
	there := "no local one"
	if m != nil {
		there = m.conn.Info().Transport
		local := lazyctx.SHM
		if there != "shm" {
			local = lazyctx.Unix
		}
		if ways.Allow(local) {
			return m, nil
		}
	}
	if !ways.Allow(lazyctx.GRPC) {
		return nil, status.Errorf(codes.Unavailable, "stile: %s may go none of the ways that lead to the server (%s, and gRPC): the policy's transport.prefer says which; with tcp among them calls go over gRPC", method, there)
	}
	return nil, nil
}

// ways returns which ways the policy lets a call take; 0: all.
func (d *dialer) ways(ctx context.Context) lazyctx.Ways {
	if d.own.policy == nil {
		return 0
	}
	return lazyctx.WaysOf(ctx)
}

var unaryDesc = &grpc.StreamDesc{}

// streamPool holds the streams of unary calls, to which nobody holds on: the
// connection's reader may be late with a frame for an earlier call, which the
// stream's id turns away.
var streamPool = sync.Pool{New: func() any { return &clientStream{rec: clientRecord{hint: lastHint.Add(1)}} }}

// recycle makes s ready for the pool.
func (s *clientStream) recycle() {
	s.mux, s.ctx, s.cancel, s.try, s.desc, s.stats = nil, nil, nil, nil, nil, nil
	s.opened, s.sentLast, s.encodingSet, s.received, s.whole = false, false, false, false, false
	s.headerSeen.Store(false)
	s.in.clear()
	s.call = wire.Call{}
	s.pack, s.unpack = packer{}, unpacker{}
	s.finished.Store(false)
	s.finish1 = sync.Once{}
	s.info.reset()
	s.rec.open(clientRecord{})
	s.sent.Store(0)
	s.got.Store(0)
	s.out.blocked.Store(0)
	s.out.sent.Store(false)
	streamPool.Put(s)
}

// invoke makes a unary call on m. errRefused: the server has not seen it.
func (e *entrance) invoke(ctx context.Context, m *clientMux, rec clientRecord, method string, req, reply any, opts []grpc.CallOption) error {
	s := streamPool.Get().(*clientStream)
	s.rec.open(rec)
	s.rec.onRoute(ctx, m, method, unaryDesc)
	if err := e.prepare(ctx, s, unaryDesc, method, opts); err != nil {
		s.rec.unsent(err)
		s.recycle()
		return err
	}
	s.trace(m)
	s.beginLook()
	err := errPanic
	defer func() {
		if s.whole {
			s.settle(err)
		} else {
			s.finish(err)
		}
		if err != errPanic {
			s.recycle()
		}
	}()
	err = s.roundTrip(m, req, reply)
	if s.try != nil {
		s.try.Private = e.set.private() && s.info.creds == nil && s.ctx == context.Context(s.try) && !errors.Is(err, errRefused)
	}
	return err
}

// private reports whether nobody is shown the contexts of calls.
func (s *clientSettings) private() bool { return len(s.stats) == 0 && len(s.perRPC) == 0 }

// settle is finish for a call whose whole response was read: nothing is left of it
// on the connection but its place in the table.
func (s *clientStream) settle(err error) {
	s.mux.forget(s.id)
	s.after(err)
	if s.cancel != nil {
		s.cancel()
	}
}

// errPanic is the outcome of a call during which the caller's codec panicked.
var errPanic = status.Error(codes.Internal, "stile: panic during the call")

func (s *clientStream) roundTrip(m *clientMux, req, reply any) error {
	s.pack.lender = m.lender
	p := &s.packed
	err := s.pack.pack(p, req)
	if err == nil {
		err = checkSize(len(p.data), s.maxSend)
	}
	if err != nil {
		p.free()
		if serr := s.start(m, nil, false); serr != nil { // grpc-go has opened the stream by now
			return s.startError(serr)
		}
		return err
	}
	s.sentLast = true
	lent := p.lender != nil
	if lent { // it is the peer's once it is sent
		s.seeRequest(p)
	}
	err = s.start(m, p, true)
	if err == nil {
		s.sent.Store(int64(len(p.data)))
		if !lent {
			s.seeRequest(p)
		}
		s.outPayload(req, p)
	}
	p.free()
	if err != nil && !errors.Is(err, errStreamDone) { // done: the server answered before it had all
		return s.startError(err)
	}
	var msg message
	if msg, s.whole = s.in.readReply(s.ctx, s.maxRecv); s.whole {
		defer msg.release()
		if s.rec.looks {
			s.rec.response = telemetry.PrintOf(msg.data)
		}
		if err := s.take(&msg, reply); err != nil {
			return err
		}
		return s.endStatus(nil)
	}
	if err := s.recv(reply); err != nil {
		if err == io.EOF {
			return status.Error(codes.Internal, "cardinality violation: received no response message from non-server-streaming RPC")
		}
		return err
	}
	return s.recvEnd()
}

// newStream opens a stream on m. errRefused: the server has not seen it.
func (e *entrance) newStream(ctx context.Context, m *clientMux, rec clientRecord, desc *grpc.StreamDesc, method string, opts []grpc.CallOption) (*clientStream, error) {
	rec.hint = lastHint.Add(1)
	s := &clientStream{rec: rec}
	s.rec.onRoute(ctx, m, method, desc)
	if err := e.prepare(ctx, s, desc, method, opts); err != nil {
		s.rec.unsent(err)
		return nil, err
	}
	s.trace(m)
	unseen(s.ctx, &s.rec)
	s.ctx = peer.NewContext(s.ctx, m.peer)
	if s.cancel == nil {
		s.ctx, s.cancel = context.WithCancel(s.ctx)
	}
	if err := s.start(m, nil, false); err != nil {
		err = s.startError(err)
		s.finish(err)
		return nil, err
	}
	s.pack.lender = m.lender
	s.watch()
	return s, nil
}

// startError maps the error of a first send. A call of which the connection took
// nothing can be made again another way.
func (s *clientStream) startError(err error) error {
	if cerr := s.ctx.Err(); cerr != nil {
		return rpcError(cerr)
	}
	if _, ok := status.FromError(err); ok || s.out.sent.Load() {
		return rpcError(err)
	}
	return errRefused
}

// prepare does all of a call that comes before the wire, in grpc-go's order. When
// it fails the call is over, and its options have been served.
func (e *entrance) prepare(ctx context.Context, s *clientStream, desc *grpc.StreamDesc, method string, opts []grpc.CallOption) error {
	s.ctx, s.desc, s.method, s.stats = ctx, desc, method, e.set.stats
	s.try, _ = ctx.(*lazyctx.Attempt)
	s.begin = time.Time{}
	err := e.fill(s, opts)
	if err == nil {
		return nil
	}
	if !s.begin.IsZero() {
		s.endStats(err, nil)
	}
	for _, f := range s.info.onFinish {
		f(err)
	}
	if s.cancel != nil {
		s.cancel()
	}
	return err
}

// fill makes s.call of the context, the options and the service config.
func (e *entrance) fill(s *clientStream, opts []grpc.CallOption) error {
	md, err := outgoing(s.ctx)
	if err != nil {
		return err
	}
	mc := e.methodConfig(s.method)
	if err := s.configure(&mc, &e.set, opts); err != nil {
		return err
	}
	if err := s.ctx.Err(); err != nil {
		return rpcError(err)
	}
	s.beginStats()
	if len(e.set.stats) > 0 { // a handler may have added to the context
		if md, err = outgoing(s.ctx); err != nil {
			return err
		}
	}
	s.call = wire.Call{
		Method: s.method, Authority: s.info.authority, UserAgent: e.set.userAgent,
		ContentSubtype: s.info.contentSubtype, Encoding: s.info.compressor, MD: md,
	}
	if s.call.Authority == "" {
		s.call.Authority = e.set.authority
	}
	if s.pack.cp != nil {
		s.call.Encoding = s.pack.cp.Type()
	}
	s.call.AcceptEncoding = s.acceptEncoding(s.call.Encoding)
	if s.call.MD, err = e.addCredentials(s, &s.call); err != nil {
		return err
	}
	s.call.Timeout, err = timeoutOf(s.ctx)
	return err
}

// timeoutOf returns what is left to ctx; 0: it has no deadline.
func timeoutOf(ctx context.Context) (time.Duration, error) {
	if a, ok := ctx.(*lazyctx.Attempt); ok && a.Left > 0 {
		return a.Left, nil
	}
	d, ok := ctx.Deadline()
	if !ok {
		return 0, nil
	}
	left := time.Until(d)
	if left <= 0 {
		return 0, rpcError(context.DeadlineExceeded)
	}
	return left, nil
}

// configure reads the call options and the method's service config into s.
func (s *clientStream) configure(mc *grpc.MethodConfig, set *clientSettings, opts []grpc.CallOption) error {
	if mc.Timeout != nil && *mc.Timeout >= 0 {
		s.ctx, s.cancel = context.WithTimeout(s.ctx, *mc.Timeout)
	}
	if err := readCallOptions(opts, &s.info); err != nil {
		return rpcError(err)
	}
	if !s.info.failFastSet && mc.WaitForReady != nil {
		s.info.failFast = !*mc.WaitForReady
	}
	s.maxSend = smaller(mc.MaxReqSize, s.info.maxSend, math.MaxInt32)
	s.maxRecv = smaller(mc.MaxRespSize, s.info.maxRecv, 4<<20)
	s.pack = packer{codec: s.info.codec, comp: s.info.compressorV1}
	if s.info.compressor == "" {
		s.pack.cp = set.cp
	}
	s.unpack = unpacker{codec: s.info.codec, limit: s.maxRecv, dc: set.dc}
	return nil
}

// smaller is the limit that the service config and the call's options ask for
// together.
func smaller(config, option *int, standard int) int {
	switch {
	case config == nil && option == nil:
		return standard
	case config == nil:
		return *option
	case option == nil || *config < *option:
		return *config
	}
	return *option
}

// acceptEncoding names the compressors whose responses the call can read.
func (s *clientStream) acceptEncoding(sending string) string {
	if s.info.acceptCompressors != nil {
		return strings.Join(s.info.acceptCompressors, ",")
	}
	accept := ""
	if haveGzip() {
		accept = "gzip"
	}
	if sending != "" && sending != encoding.Identity && sending != accept {
		if accept != "" {
			accept += ","
		}
		accept += sending
	}
	return accept
}

// accepts reports whether the call may be answered with this encoding.
func (c *callInfo) accepts(name string) bool {
	if c.acceptCompressors == nil || name == encoding.Identity {
		return true
	}
	for _, a := range c.acceptCompressors {
		if a == name {
			return true
		}
	}
	return false
}

// addCredentials asks the per-call credentials and adds what they give to the
// call's metadata.
func (e *entrance) addCredentials(s *clientStream, call *wire.Call) (wire.MD, error) {
	creds := e.set.perRPC
	if len(creds) == 0 && s.info.creds == nil {
		return call.MD, nil
	}
	audience := audienceOf(call)
	md := make(wire.MD, len(call.MD)+2)
	info := credentials.RequestInfo{Method: call.Method, AuthInfo: plainAuthInfo}
	if e.secure() {
		info.AuthInfo = AuthInfo{CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}}
	}
	ctx := requestInfoContext{s.ctx, info}
	for _, c := range creds {
		if err := addCredential(ctx, md, c, audience, codes.Unauthenticated); err != nil {
			return nil, err
		}
	}
	if c := s.info.creds; c != nil {
		if c.RequireTransportSecurity() && !e.secure() {
			return nil, status.Error(codes.Unauthenticated, "transport: cannot send secure credentials on an insecure connection")
		}
		if err := addCredential(ctx, md, c, audience, codes.Internal); err != nil {
			return nil, err
		}
	}
	for k, v := range call.MD { // grpc-go puts the caller's own values last
		md[k] = append(md[k], v...)
	}
	return md, nil
}

// secure reports whether the connection's credentials are grpc-go's local ones
// over a unix socket, which count as secure there and so do here.
func (e *entrance) secure() bool {
	return e.set.creds != nil && e.set.creds.Info().SecurityProtocol == "local" &&
		strings.HasPrefix(e.cc.CanonicalTarget(), "unix")
}

// plainAuthInfo is what credentials see of a connection without TLS. The local
// connection is known to be safe, but what asks for TLS asks for TLS.
var plainAuthInfo = func() credentials.AuthInfo {
	_, info, _ := insecure.NewCredentials().ClientHandshake(context.Background(), "", nil)
	return info
}()

// requestInfoContext shows the value that credentials.RequestInfoFromContext
// looks for. Its key is grpc-go's own, and the function that sets it is internal
// before 1.77.
type requestInfoContext struct {
	context.Context
	info credentials.RequestInfo
}

func (c requestInfoContext) Value(key any) any {
	if t := reflect.TypeOf(key); t != nil && t.Name() == "requestInfoKey" && strings.HasPrefix(t.PkgPath(), "google.golang.org/grpc/") {
		return c.info
	}
	return c.Context.Value(key)
}

// audienceOf is the URI that grpc-go hands to credentials.
func audienceOf(call *wire.Call) string {
	host := strings.TrimSuffix(call.Authority, ":443")
	service := call.Method
	if i := strings.LastIndex(service, "/"); i >= 0 {
		service = service[:i]
	}
	return "https://" + host + service
}

func addCredential(ctx context.Context, md wire.MD, c credentials.PerRPCCredentials, audience string, code codes.Code) error {
	data, err := c.GetRequestMetadata(ctx, audience)
	if err != nil {
		st, ok := status.FromError(err)
		switch {
		case !ok:
			return status.Errorf(code, "transport: per-RPC creds failed due to error: %v", err)
		case restricted(st.Code()):
			return status.Errorf(codes.Internal, "transport: received per-RPC creds error with illegal status: %v", err)
		}
		return err
	}
	for k, v := range data {
		k = strings.ToLower(k)
		if err := validatePair(k, []string{v}); err != nil {
			return status.Error(codes.Internal, err.Error())
		}
		md[k] = append(md[k], v)
	}
	return nil
}

// restricted tells the codes that a control plane must not produce (gRFC A54).
func restricted(c codes.Code) bool {
	switch c {
	case codes.InvalidArgument, codes.NotFound, codes.AlreadyExists, codes.FailedPrecondition, codes.Aborted, codes.OutOfRange, codes.DataLoss:
		return true
	}
	return false
}
