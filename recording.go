package stile

import (
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/status"

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
	if r == nil {
		return nil
	}
	info := conn.Info()
	p := telemetry.Peer{Process: process, Address: address.String()}
	if info.Peer.Known {
		p.PID = info.Peer.PID
	}
	name := info.Transport
	if name == "unix" {
		name = byUnix
	}
	return r.Link(side, name, p)
}

// farLink is for calls that a connection makes over gRPC; nil: nothing is counted.
func (e *entrance) farLink() *telemetry.Link {
	r := e.d.own.recorder
	if r == nil {
		return nil
	}
	if l := e.far.Load(); l != nil {
		return l
	}
	address, transport := farWay(e.cc.CanonicalTarget())
	l := r.Link(telemetry.Client, transport, telemetry.Peer{Address: address})
	if !e.far.CompareAndSwap(nil, l) {
		l.Close()
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
	hint      uint32
	calls     uint32 // that the pooled stream had before
	route     *telemetry.Route
	looks     bool // at the bodies, which have these prints
	request   telemetry.Print
	response  telemetry.Print
	begun     time.Duration // on telemetry's clock
	waited    time.Duration // before its first frame could be written
	sent, got int           // bytes of messages
}

// begin starts the record of a call, if calls are counted.
func (d *dialer) begin() clientRecord {
	if d.own.recorder == nil {
		return clientRecord{}
	}
	return clientRecord{begun: telemetry.Now()}
}

// open takes over what is known of a call before it has a stream.
func (r *clientRecord) open(known clientRecord) {
	known.hint, known.calls = r.hint, r.calls
	*r = known
}

// record counts a call that has ended at its client.
func (s *clientStream) record(err error) {
	if s.rec.begun == 0 || s.mux == nil || s.mux.link == nil {
		return
	}
	c := telemetry.Call{
		Duration: telemetry.Now() - s.rec.begun, Waited: s.rec.waited + s.out.blocked,
		Request: s.rec.sent, Response: s.rec.got, Code: codeOf(err),
	}
	if s.try != nil {
		c.Duration, c.Waited = c.Duration+s.try.Queued, c.Waited+s.try.Queued
	}
	stream := s.desc != unaryDesc
	if t := s.in.status(); t != nil && !stream {
		c.Far, c.Queued, c.Handled = t.Times.Known, t.Times.Queue, t.Times.Handler
	}
	if s.rec.route == nil {
		s.rec.route = s.mux.link.Route(telemetry.RouteName{Method: s.method, Stream: stream})
	}
	s.rec.route.Record(s.rec.hint, &c)
	if s.rec.response != 0 && err == nil {
		s.rec.route.Look(s.rec.request, s.rec.response, s.rec.sent, s.rec.got)
	}
}

// look decides whether the bodies of a unary call are looked at.
func (r *clientRecord) look(m *clientMux, method string) {
	if r.begun == 0 || m.link == nil {
		return
	}
	r.route = m.link.Route(telemetry.RouteName{Method: method})
	r.calls++
	r.looks = r.route.Looks(r.calls)
}

func codeOf(err error) uint32 {
	if err == nil {
		return 0
	}
	return uint32(status.Code(err))
}

// recordFar counts a call that went over gRPC.
func (e *entrance) recordFar(method string, stream bool, rec *clientRecord, err error) {
	l := e.farLink()
	if l == nil || rec.begun == 0 {
		return
	}
	c := telemetry.Call{Duration: telemetry.Now() - rec.begun, Waited: rec.waited, Request: -1, Response: -1, Code: codeOf(err)}
	l.Route(telemetry.RouteName{Method: method, Stream: stream}).Record(uint32(rec.begun), &c)
}

// serverRecord is what is to be counted of a call at its server.
type serverRecord struct {
	begun, ended time.Duration // on telemetry's clock: its handler, and its answer
	sent, got    int           // bytes of messages
	code         uint32
}

// times are what the client is told, once the answer is there.
func (s *serverStream) times() wire.Times {
	c := s.cc
	if c.arrived == 0 {
		return wire.Times{}
	}
	s.rec.ended = telemetry.Now()
	delayed := time.Duration(c.delayed.Load())
	return wire.Times{Known: c.conn.readsTimes, Queue: s.rec.begun - c.arrived + delayed, Handler: s.rec.ended - s.rec.begun - delayed}
}

// record counts a call that has ended at its server.
func (s *serverStream) record() {
	cc := s.cc
	if cc.arrived == 0 {
		return
	}
	if s.rec.ended == 0 {
		s.rec.ended = telemetry.Now()
	}
	delayed := time.Duration(cc.delayed.Load())
	c := telemetry.Call{
		Duration: s.rec.ended - cc.arrived, Far: true, Queued: s.rec.begun - cc.arrived + delayed, Handled: s.rec.ended - s.rec.begun - delayed,
		Request: s.rec.got, Response: s.rec.sent, Code: s.rec.code,
	}
	cc.conn.link.Route(telemetry.RouteName{Method: cc.call.Method, Stream: !s.reusable}).Record(uint32(cc.key), &c)
}

// Delayed implements [lazyctx.Delayed]: an interceptor has kept the call waiting.
func (c *callContext) Delayed(d time.Duration) { c.delayed.Add(int64(d)) }
