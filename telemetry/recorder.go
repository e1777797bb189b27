package telemetry

import (
	"context"
	"math/bits"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Side is which end of a call tells of it.
type Side uint8

// The sides.
const (
	Client Side = iota
	Server
)

// Identity is a process's own, random. It is told to peers and the hub, and means nothing else. Zero: it is not known.
type Identity [16]byte

// Peer is who is at the other end of a link, as far as it is known.
type Peer struct {
	Process Identity
	PID     int    // as this process sees it; 0: not known
	Address string // that was called, or was listened on
	Topic   string // of messages
}

// Recorder counts the calls of a process, by link and method, once it is enabled. Its methods are safe for concurrent use.
type Recorder struct {
	enabled atomic.Bool  // somebody takes, or sums up
	takes   atomic.Bool  // somebody takes
	closed  atomic.Int64 // links that are, since routes were emptied

	taking  sync.Mutex // held by what empties routes, Counted and Look; it guards what follows, and routes' open
	taken   [2]uint64  // calls that were, by side
	looks   uint64     // since Take
	totals  map[*Totals]struct{}
	untaken map[linkRoute]*Stats // for who takes: what totals have emptied routes of

	mu     sync.Mutex
	links  map[*Link]struct{}
	events events
	queues map[*func(context.Context) []Queue]struct{} // that tell of queues
}

// NewRecorder returns one that has counted nothing.
func NewRecorder() *Recorder { return &Recorder{links: map[*Link]struct{}{}} }

// Enable begins to count, what links that are made from now on carry: somebody is going to take it. Before it, nothing is counted, and nothing is held.
func (r *Recorder) Enable() {
	if r == nil {
		return
	}
	counting.Store(true)
	r.taking.Lock()
	defer r.taking.Unlock()
	if !r.takes.Load() {
		r.drain(false) // for totals alone
	}
	r.takes.Store(true)
	r.enabled.Store(true)
}

// Enabled reports whether it counts.
func (r *Recorder) Enabled() bool { return r != nil && r.enabled.Load() }

// Taken reports whether somebody is going to take what is counted, and not [Totals] alone.
func (r *Recorder) Taken() bool { return r != nil && r.takes.Load() }

// Disable ends that: nobody takes any more. Unless there are [Totals], it forgets all links.
func (r *Recorder) Disable() {
	r.taking.Lock()
	defer r.taking.Unlock()
	r.takes.Store(false)
	r.untaken = nil
	r.TakeEvents()
	r.rest()
}

// rest forgets all links, for ever, if nobody wants to know of them. The caller holds taking.
func (r *Recorder) rest() {
	if r.takes.Load() || len(r.totals) > 0 {
		return
	}
	r.enabled.Store(false)
	r.mu.Lock()
	defer r.mu.Unlock()
	for l := range r.links {
		l.closed.Store(true)
		l.over = true
	}
	r.links = map[*Link]struct{}{}
}

// Link is one end of a connection, or what stands for one. Its methods are safe for concurrent use.
type Link struct {
	Side      Side
	Transport string
	Peer      Peer

	mu     sync.Mutex
	quick  [quickRoutes]atomic.Pointer[Route]   // some of routes, each found without a look at the map
	routes atomic.Pointer[map[RouteName]*Route] // never written, but replaced
	closed atomic.Bool

	tellsOpen atomic.Bool
	recorder  *Recorder
	forgotten bool // by the recorder, until something is counted; guarded by mu, and the recorder's
	over      bool // the recorder has rested since; guarded by its mu

	used atomic.Pointer[func() Use]
	told Use // of it; guarded by the recorder's taking
}

// Use is what a connection has done to wait and to be heard, at one end.
type Use struct {
	Wakes uint64        // times that it woke the peer, a system call each
	Spin  time.Duration // that it waited without sleep
}

// Uses has f tell what the link's connection has done since it was made. It is called from time to time, for the last time when the link is closed, which lets go of f.
func (l *Link) Uses(f func() Use) {
	if l != nil {
		l.used.Store(&f)
	}
}

// RouteName is a method, and whether its calls are streams.
type RouteName struct {
	Method string // "/package.Service/Method"
	Stream bool
}

// Bounds of what is counted apart.
const (
	maxLinkRoutes = 1024 // methods; those that come later are counted as [OtherMethod]
	maxMethod     = 256  // bytes of a name
	maxStripes    = 8
	quickRoutes   = 16
	maxClosed     = 256 // links that are held until their routes are emptied, while nobody takes
)

// OtherMethod stands for methods beyond those that are counted apart.
const OtherMethod = "other"

// Link begins to count what goes through a connection; nil: r is nil, or not enabled.
func (r *Recorder) Link(side Side, transport string, peer Peer) *Link {
	if !r.Enabled() {
		return nil
	}
	l := &Link{Side: side, Transport: transport, Peer: peer, recorder: r}
	l.routes.Store(&map[RouteName]*Route{})
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.Enabled() { // meanwhile
		return nil
	}
	r.links[l] = struct{}{}
	return l
}

// Close ends a link; that of nil does nothing. What was counted, and still is by who holds a route, is in the next [Recorder.Take].
func (l *Link) Close() {
	if l == nil {
		return
	}
	if f := l.used.Load(); f != nil { // what tells of the connection may hold it
		last := (*f)()
		l.used.Store(new(func() Use { return last }))
	}
	if l.closed.CompareAndSwap(false, true) && l.recorder.closed.Add(1)%maxClosed == 0 && !l.recorder.Taken() {
		go l.recorder.tidy() // who closes may hold what a look at other links waits for
	}
}

// Closed reports whether nothing more is to be counted: Close was called, or Disable of its recorder.
func (l *Link) Closed() bool { return l.closed.Load() }

// Route returns that of a method. It is to be counted on, not kept for long.
func (l *Link) Route(name RouteName) *Route {
	if r := l.quickly(name).Load(); r != nil && r.name == name {
		return r
	}
	if r := (*l.routes.Load())[name]; r != nil {
		return r
	}
	return l.newRoute(name)
}

// quickly is where a name has its quick place, which it may share.
func (l *Link) quickly(name RouteName) *atomic.Pointer[Route] {
	n := len(name.Method)
	if n == 0 {
		return &l.quick[0]
	}
	return &l.quick[(n+int(name.Method[n-1])+int(name.Method[n/2]))%quickRoutes]
}

func (l *Link) newRoute(name RouteName) *Route {
	l.mu.Lock()
	defer l.mu.Unlock()
	old := *l.routes.Load()
	if len(old) >= maxLinkRoutes || len(name.Method) > maxMethod {
		name.Method = OtherMethod
	}
	if r := old[name]; r != nil {
		return r
	}
	r := &Route{name: name, link: l, stripes: make([]stripe, stripes())}
	r.active.Store(1)
	r.gone.Store(l.forgotten)
	routes := make(map[RouteName]*Route, len(old)+1)
	for n, r := range old {
		routes[n] = r
	}
	routes[name] = r
	l.routes.Store(&routes)
	l.quickly(name).CompareAndSwap(nil, r)
	return r
}

// Name is the route's, which for methods that are not counted apart is not that by which it was asked for.
func (r *Route) Name() RouteName { return r.name }

// Side is which end of calls it counts.
func (r *Route) Side() Side { return r.link.Side }

// stripes is how many there are of a route: one for each thread, about.
func stripes() int {
	return min(1<<bits.Len(uint(runtime.GOMAXPROCS(0)-1)), maxStripes)
}

// Route counts the calls of a method on a link.
type Route struct {
	name    RouteName
	link    *Link
	decided atomic.Pointer[[]decided] // nil: nothing was
	stripes []stripe
	active  atomic.Uint32 // stripes that are used: a power of 2, more when two calls have met
	gone    atomic.Bool   // the link is forgotten, and comes back if something is counted
	prints  prints
	open    Open
}

// stripe is a part of a route's counts, in cache lines of its own.
type stripe struct {
	mu    sync.Mutex
	stats *Stats           // nil: empty
	calls *[callsHeld]Call // of which n are yet to be counted in stats; nil as stats is
	n     int
	_     [96]byte
}

// callsHeld is how many calls are counted at once. To count one takes some twenty lines of cache, of which a process that has slept finds none: to hold it takes one or two.
const callsHeld = 16

// Call is one that has ended.
type Call struct {
	Begun    time.Duration // on the clock of [Now]; 0: it is not known
	Duration time.Duration // as this side sees it
	Waited   time.Duration // of it, at a client until its first frame could be written
	Queued   time.Duration // at its server, until its handler began, if that is known: see Far
	Handled  time.Duration // there, from then on
	Left     time.Duration // at a server, until its deadline when it arrived; 0: it has none
	Request  int           // bytes of messages as they were sent; negative: not known
	Response int
	Code     uint32 // of gRPC
	Far      bool   // Queued and Handled are known
}

// codes is how many codes are counted apart: gRPC's 17, and all others.
const codes = 18

// Record counts a call. hint says which stripe to count in: callers that run at once do well to have different ones. It waits for no other call, and allocates
// nothing once the route has seen like ones.
func (r *Route) Record(hint uint32, c *Call) {
	s := r.lock(hint)
	s.calls[s.n] = *c
	if s.n++; s.n == callsHeld {
		s.count()
	}
	s.mu.Unlock()
	if r.gone.Load() {
		r.link.back()
	}
}

// count counts the calls that are held.
func (s *stripe) count() {
	for i := range s.n {
		s.stats.record(&s.calls[i])
	}
	s.n = 0
}

// lock locks a stripe that nobody has, if there is one.
func (r *Route) lock(hint uint32) *stripe {
	n := r.active.Load()
	s := &r.stripes[hint&(n-1)]
	if !s.mu.TryLock() {
		if n < uint32(len(r.stripes)) {
			r.active.CompareAndSwap(n, 2*n)
		}
		s = r.lockAny(hint)
	}
	if s.stats == nil {
		s.stats, s.calls = &Stats{}, &[callsHeld]Call{}
	}
	return s
}

func (r *Route) lockAny(hint uint32) *stripe {
	n := uint32(len(r.stripes))
	for i := range n {
		if s := &r.stripes[(hint+i)&(n-1)]; s.mu.TryLock() {
			return s
		}
	}
	s := &r.stripes[hint&(n-1)]
	s.mu.Lock()
	return s
}

// Message is one that was sent, or handled.
type Message struct {
	Duration time.Duration // until it was taken in; or of its handler
	Waited   time.Duration // of one that is handled, since it was taken in; negative: it is not known
	Bytes    int
	Code     uint32 // of gRPC
}

// RecordMessage counts a message, as Record does calls.
func (r *Route) RecordMessage(hint uint32, m *Message) {
	s := r.lock(hint)
	s.stats.record(&Call{Duration: m.Duration, Request: m.Bytes, Response: -1, Code: m.Code})
	if m.Waited >= 0 {
		s.stats.Gap.Record(int64(m.Waited))
	}
	s.mu.Unlock()
	if r.gone.Load() {
		r.link.back()
	}
}

// Waits are sums of where calls waited, ns.
type Waits struct {
	Calls       uint64 // of which it is known
	ClientQueue int64
	Transport   int64
	ServerQueue int64
	Handler     int64
}

func (w *Waits) add(o *Waits) {
	w.Calls += o.Calls
	w.ClientQueue += o.ClientQueue
	w.Transport += o.Transport
	w.ServerQueue += o.ServerQueue
	w.Handler += o.Handler
}

// Stats is what was counted of a route.
type Stats struct {
	Arrivals  Arrivals      // of calls that have ended; what each call looks at of it is beside the next
	Codes     [codes]uint64 // calls by gRPC's status code; the last: all others
	Duration  Histogram     // ns
	Failures  Histogram     // ns, of calls that did not end with OK
	Gap       Histogram     // ns: at a client, what was neither in its queue nor at its server
	Queue     Histogram     // ns at the server until the handler began
	Request   Histogram     // bytes
	Response  Histogram
	Waits     Waits // at a server the last two
	Repeats   Repeats
	Use       Use       // of the connection, by the route's share of its calls
	Left      Histogram // ns until the deadline when calls arrived; at a server, of those that have one
	Decisions Decisions
	Open      Open
}

func (s *Stats) record(c *Call) {
	s.Codes[min(c.Code, codes-1)]++
	if c.Begun != 0 {
		s.Arrivals.record(c.Begun)
	}
	s.Duration.Record(int64(c.Duration))
	if c.Code != 0 {
		s.Failures.Record(int64(c.Duration))
	}
	if c.Request >= 0 {
		s.Request.Record(int64(c.Request))
	}
	if c.Response >= 0 {
		s.Response.Record(int64(c.Response))
	}
	if c.Left > 0 {
		s.Left.Record(int64(c.Left))
	}
	if !c.Far {
		return
	}
	// A server that says more than there was time for has that time.
	at := int64(c.Duration - c.Waited)
	queued := min(max(int64(c.Queued), 0), at)
	handled := min(max(int64(c.Handled), 0), at-queued)
	s.Queue.Record(queued)
	if gap := at - queued - handled; gap > 0 || c.Waited > 0 {
		s.Gap.Record(gap)
	}
	s.Waits.Calls++
	s.Waits.ClientQueue += int64(c.Waited)
	s.Waits.Transport += at - queued - handled
	s.Waits.ServerQueue += queued
	s.Waits.Handler += handled
}

// Calls is how many there were.
func (s *Stats) Calls() (n uint64) {
	for _, of := range s.Codes {
		n += of
	}
	return n
}

// Merge adds what another has counted.
func (s *Stats) Merge(o *Stats) {
	for i, n := range o.Codes {
		s.Codes[i] += n
	}
	from := o.histograms()
	for i, h := range s.histograms() {
		h.Merge(from[i])
	}
	s.Waits.add(&o.Waits)
	s.Repeats.add(&o.Repeats)
	s.Use.Wakes, s.Use.Spin = s.Use.Wakes+o.Use.Wakes, s.Use.Spin+o.Use.Spin
	s.Decisions.add(&o.Decisions)
	s.Arrivals.merge(&o.Arrivals)
	s.Open.merge(&o.Open)
}

// roomOf makes room for values like those of another.
func (s *Stats) roomOf(o *Stats) {
	from := o.histograms()
	for i, h := range s.histograms() {
		h.roomOf(from[i])
	}
}

func (s *Stats) histograms() [7]*Histogram {
	return [7]*Histogram{&s.Duration, &s.Failures, &s.Gap, &s.Queue, &s.Request, &s.Response, &s.Left}
}

// Taken is what was counted on a route of a link since it was taken last.
type Taken struct {
	*Link
	RouteName
	*Stats
}

// linkRoute is a route of a link.
type linkRoute struct {
	*Link
	RouteName
}

// Take returns what was counted on each route that had calls, open ones, or decisions, since it was called last, and forgets links that are closed. One that takes is all there may be; [Totals] may be beside it, of
// which a route can be there twice.
func (r *Recorder) Take() []Taken {
	r.taking.Lock()
	defer r.taking.Unlock()
	all := r.drain(true)
	for of, s := range r.untaken {
		all = append(all, Taken{of.Link, of.RouteName, s})
	}
	r.untaken = nil
	return all
}

// drain empties all routes, of which it tells totals; of how many calls were open only for who takes. Links that are closed are forgotten once there was nothing, or if nobody takes, until something is counted on them. The caller holds taking.
func (r *Recorder) drain(take bool) []Taken {
	r.closed.Store(0)
	looks := r.looks
	if take {
		r.looks = 0
	}
	var all []Taken
	for _, l := range r.snapshot() {
		closed, first := l.closed.Load(), len(all)
		for name, route := range *l.routes.Load() {
			s := route.take()
			if take {
				s.Open = route.takeOpen(looks)
			}
			if s.Calls() > 0 || s.Decisions.Any() || s.Open.Sum > 0 {
				all = append(all, Taken{l, name, s})
				r.taken[l.Side] += s.Calls()
			}
		}
		l.share(all[first:])
		if alone := !r.takes.Load(); closed && (alone || take && len(all) == first) {
			r.forget(l)
		}
	}
	for t := range r.totals {
		t.add(all)
	}
	return all
}

// share gives what a link's connection has done to its routes, by calls: all of it, to the one if there is one. While there were no calls it waits for some.
func (l *Link) share(routes []Taken) {
	var calls uint64
	for _, t := range routes {
		calls += t.Calls()
	}
	used := l.used.Load()
	if used == nil || calls == 0 {
		return
	}
	now := (*used)()
	now = Use{max(now.Wakes, l.told.Wakes), max(now.Spin, l.told.Spin)} // a link that is closed has kept what there was a moment before
	left := Use{now.Wakes - l.told.Wakes, now.Spin - l.told.Spin}
	l.told = now
	for _, t := range routes {
		n := t.Calls()
		if n == 0 {
			continue
		}
		part := float64(n) / float64(calls)
		t.Use = Use{uint64(part * float64(left.Wakes)), time.Duration(part * float64(left.Spin))}
		left.Wakes, left.Spin, calls = left.Wakes-t.Use.Wakes, left.Spin-t.Use.Spin, calls-n
	}
}

// snapshot is the links that there are.
func (r *Recorder) snapshot() []*Link {
	r.mu.Lock()
	defer r.mu.Unlock()
	links := make([]*Link, 0, len(r.links))
	for l := range r.links {
		links = append(links, l)
	}
	return links
}

// Counted is how many calls were counted at clients and at servers since the recorder was made, and on how many routes it had to look for that. It takes nothing.
func (r *Recorder) Counted() (made, served uint64, routes int) {
	r.taking.Lock()
	defer r.taking.Unlock()
	sums := r.taken
	for _, l := range r.snapshot() {
		for _, route := range *l.routes.Load() {
			sums[l.Side] += route.counted()
			routes++
		}
	}
	return sums[Client], sums[Server], routes
}

// counted is how many calls the route has, which nobody has taken. Each has a duration.
func (r *Route) counted() (n uint64) {
	for i := range r.stripes {
		s := &r.stripes[i]
		s.mu.Lock()
		if s.stats != nil {
			n += s.stats.Duration.Count() + uint64(s.n)
		}
		s.mu.Unlock()
	}
	return n
}

// take empties the route. What it had is merged while nobody waits; a stripe that had nothing gives up its room.
func (r *Route) take() *Stats {
	all := &Stats{Repeats: r.prints.take(), Decisions: r.takeDecisions()}
	for i := range r.stripes {
		s := &r.stripes[i]
		s.mu.Lock()
		s.count()
		had := s.stats
		switch {
		case had == nil:
		case had.Calls() == 0:
			s.stats, s.calls = nil, nil
		default:
			s.stats = &Stats{}
			s.stats.roomOf(had)
		}
		s.mu.Unlock()
		if had != nil {
			all.Merge(had)
		}
	}
	return all
}
