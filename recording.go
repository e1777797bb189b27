package stile

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/stile-ipc/stile/internal/agent"
	"github.com/stile-ipc/stile/internal/lazyctx"
	"github.com/stile-ipc/stile/internal/spans"
	"github.com/stile-ipc/stile/telemetry"
	"github.com/stile-ipc/stile/transport"
	"github.com/stile-ipc/stile/transport/wire"
)

// Transports as maps name them.
const (
	byUnix     = "unix-stream"
	byLoopback = "tcp-loopback"
	byTCP      = "tcp"
)

// newLink begins to count what goes through a local connection; nil: nothing is counted.
func newLink(r *telemetry.Recorder, side telemetry.Side, conn transport.Conn, process telemetry.Identity, address net.Addr) *telemetry.Link {
	info := conn.Info()
	p := telemetry.Peer{Process: process, Address: address.String()}
	if info.Peer.Known {
		p.PID = info.Peer.PID
	}
	name := info.Transport
	if name == "unix" {
		name = byUnix
	}
	l := r.Link(side, name, p)
	if counted, is := conn.(counts); is {
		l.Uses(func() telemetry.Use {
			s := counted.Stats()
			return telemetry.Use{Wakes: s.Doorbells, Spin: s.Spin}
		})
	}
	return l
}

// farLink is for calls that a connection makes over gRPC; nil: nothing is counted.
func (e *entrance) farLink() *telemetry.Link {
	if l := e.far.Load(); l != nil && !l.Closed() {
		return l
	}
	address, transport := farWay(e.cc.CanonicalTarget())
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil
	}
	if l := e.far.Load(); l == nil || l.Closed() {
		e.far.Store(e.d.own.recorder.Link(telemetry.Client, transport, telemetry.Peer{Address: address}))
	}
	return e.far.Load()
}

// farWay says what a target names, and how calls get there over gRPC.
func farWay(target string) (address, transport string) {
	scheme, rest, found := strings.Cut(target, ":")
	if !found {
		return target, byTCP
	}
	if scheme == "unix" || scheme == "unix-abstract" {
		return target, byUnix
	}
	_, address, found = strings.Cut(strings.TrimPrefix(rest, "//"), "/")
	if !found {
		address = rest
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	if ip, err := netip.ParseAddr(host); host == "localhost" || err == nil && ip.IsLoopback() {
		return address, byLoopback
	}
	return address, byTCP
}

// lastHint numbers what counts calls, so that those at work at once do not count in the same place.
var lastHint atomic.Uint32

// clientRecord is what is to be counted of a call at its client. begun is 0 if nothing is.
type clientRecord struct {
	hint     uint32
	calls    uint32 // that the pooled stream had before
	route    *telemetry.Route
	looks    bool // at the bodies, which have these prints; before the call is on its route: somebody wants to know
	request  telemetry.Print
	response telemetry.Print
	begun    time.Duration // on telemetry's clock
	waited   time.Duration // before its first frame could be written
	slot     time.Duration // of it, for a place among the server's streams
	handler  *callContext  // that makes the call; nil: none
	span     *spans.Span   // nil: the call is not traced
	look     *look         // nil: nobody looks at its bodies
}

// pace has whoever looks at what this process uses do so while there are calls.
var pace = agent.NewPace()

// begin starts the record of a call, if calls are counted.
func (d *dialer) begin() clientRecord {
	if !d.own.recorder.Enabled() {
		return clientRecord{}
	}
	now := telemetry.Now()
	pace.Beat(now)
	return clientRecord{begun: now, looks: d.own.recorder.Taken()}
}

// open takes over what is known of a call before it has a stream.
func (r *clientRecord) open(known clientRecord) {
	known.hint, known.calls = r.hint, r.calls
	*r = known
}

// record counts a call that has ended at its client.
func (s *clientStream) record(err error) {
	if s.rec.route == nil {
		return
	}
	c := telemetry.Call{
		Begun: s.rec.begun, Duration: telemetry.Now() - s.rec.begun, Waited: s.rec.waited + time.Duration(s.out.blocked.Load()),
		Request: int(s.sent.Load()), Response: int(s.got.Load()), Code: codeOf(err),
	}
	if s.try != nil {
		c.Begun, c.Duration, c.Waited = c.Begun-s.try.Queued, c.Duration+s.try.Queued, c.Waited+s.try.Queued
	}
	if t := s.in.status(); t != nil && !isStream(s.desc) {
		c.Far, c.Queued, c.Handled = t.Times.Known, t.Times.Queue, t.Times.Handler
	}
	s.rec.route.Record(s.rec.hint, &c)
	if !s.out.sent.Load() {
		s.rec.unsent(err)
	}
	if s.rec.request != 0 && s.rec.response != 0 && err == nil {
		s.rec.route.Look(s.rec.request, s.rec.response, c.Request, c.Response)
	}
	s.endLook()
	if s.rec.span != nil {
		s.endSpan(&c)
	}
}

// isStream tells whether a method is one, by its descriptor: newer grpc-go makes streams of unary methods.
func isStream(desc *grpc.StreamDesc) bool { return desc.ClientStreams || desc.ServerStreams }

// onRoute says where the call counts, if it does, and whether its bodies are looked at.
func (r *clientRecord) onRoute(ctx context.Context, m *clientMux, method string, desc *grpc.StreamDesc) {
	if r.begun == 0 || m.link == nil {
		return
	}
	r.route = m.link.Route(telemetry.RouteName{Method: method, Stream: isStream(desc)})
	if t := tallyOf(ctx, desc); t != nil {
		t.Goes(r.route)
	}
	r.calls++
	r.looks = r.looks && desc == unaryDesc && r.route.Looks(r.calls)
}

// tallyOf is who wants to know which way a call goes. Of unary calls only the policy's own contexts have one.
func tallyOf(ctx context.Context, desc *grpc.StreamDesc) *telemetry.Tally {
	if _, is := ctx.(*lazyctx.Attempt); !is && desc == unaryDesc {
		return nil
	}
	return lazyctx.TallyOf(ctx)
}

// unsent counts a call that was not sent, if that is because its deadline had passed.
func (r *clientRecord) unsent(err error) {
	if r.route != nil && status.Code(err) == codes.DeadlineExceeded {
		r.route.Decide(telemetry.Late)
	}
}

func codeOf(err error) uint32 {
	if err == nil {
		return 0
	}
	return uint32(status.Code(err))
}

// farRoute is where calls over gRPC count; nil: nowhere.
func (e *entrance) farRoute(method string, stream bool, rec *clientRecord) *telemetry.Route {
	if rec.begun == 0 {
		return nil
	}
	l := e.farLink()
	if l == nil {
		return nil
	}
	return l.Route(telemetry.RouteName{Method: method, Stream: stream})
}

// goesFar says where a call over gRPC counts.
func (e *entrance) goesFar(ctx context.Context, method string, desc *grpc.StreamDesc, rec *clientRecord) {
	if rec.route = e.farRoute(method, isStream(desc), rec); rec.route == nil {
		return
	}
	if t := tallyOf(ctx, desc); t != nil {
		t.Goes(rec.route)
	}
}

// decidedFar counts what is known of an attempt that failed over gRPC, whose server does not tell of its calls.
func (r *clientRecord) decidedFar(method string, report *lazyctx.Report, err error) {
	if r.route == nil {
		return
	}
	if slices.Contains(report.Trailer[lazyctx.NotBegun], method) {
		r.route.Decide(telemetry.AdmissionShed)
	}
	if !report.Sent {
		r.unsent(err)
	}
}

// recordFar counts a call that went over gRPC, as goesFar has said.
func (e *entrance) recordFar(ctx context.Context, rec *clientRecord, err error) {
	r := rec.route
	if r == nil {
		return
	}
	c := telemetry.Call{Begun: rec.begun, Duration: telemetry.Now() - rec.begun, Waited: rec.waited, Request: -1, Response: -1, Code: codeOf(err)}
	handler := handlerOf(ctx)
	handler.looked().misses()
	r.Record(uint32(rec.begun), &c)
	e.traceFar(ctx, handler, e.farLink(), r.Name(), rec.begun, &c)
}

// serverRecord is what is to be counted of a call at its server.
type serverRecord struct {
	arrived      time.Duration // on telemetry's clock; 0: it is not counted
	begun, ended time.Duration // its handler, and its answer
	code         uint32
	span         *spans.Span // nil: the call is not traced
}

// times are what the client is told, once the answer is there.
func (s *serverStream) times() wire.Times {
	c := s.cc
	if s.rec.arrived == 0 {
		return wire.Times{}
	}
	s.rec.ended = telemetry.Now()
	delayed := time.Duration(c.delayed.Load())
	return wire.Times{Known: c.conn.readsTimes, Queue: s.rec.begun - s.rec.arrived + delayed, Handler: s.rec.ended - s.rec.begun - delayed}
}

// record counts a call that has ended at its server.
func (s *serverStream) record() {
	cc := s.cc
	if s.rec.arrived == 0 {
		return
	}
	if s.rec.ended == 0 {
		s.rec.ended = telemetry.Now()
	}
	delayed := time.Duration(cc.delayed.Load())
	c := telemetry.Call{
		Begun: s.rec.arrived, Duration: s.rec.ended - s.rec.arrived, Far: true, Queued: s.rec.begun - s.rec.arrived + delayed, Handled: s.rec.ended - s.rec.begun - delayed,
		Request: int(s.got.Load()), Response: int(s.sent.Load()), Code: s.rec.code, Left: cc.call.Timeout,
	}
	r := cc.route(s.desc)
	r.Record(uint32(cc.key), &c)
	s.endHandling()
	if s.rec.span != nil {
		s.endSpan(r, &c)
	}
}

// route is where a call counts at its server.
func (c *callContext) route(desc *grpc.StreamDesc) *telemetry.Route {
	return c.conn.link.Route(telemetry.RouteName{Method: c.call.Method, Stream: desc == nil || isStream(desc)})
}

// openOn is where a call counts that is open, for who is not its handler: what the stream says of its method only that may read. nil: it is not known.
func (c *callContext) openOn() *telemetry.Route {
	if s := c.stream.Load(); s == nil || s.rec.arrived == 0 {
		return nil
	}
	m := c.conn.door.method(c.call.Method)
	if m == nil {
		return nil
	}
	return c.route(m.desc())
}

// Decided implements [lazyctx.Decided], on the goroutine of the handler.
func (c *callContext) Decided(d telemetry.Decision) {
	if s := c.stream.Load(); s != nil && s.rec.arrived != 0 {
		c.route(s.desc).Decide(d)
	}
}

// Delayed implements [lazyctx.Delayed]: an interceptor has kept the call waiting.
func (c *callContext) Delayed(d time.Duration) { c.delayed.Add(int64(d)) }
