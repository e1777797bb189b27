package telemetry

import (
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

func (u *Use) add(o Use) { u.Wakes, u.Spin = u.Wakes+o.Wakes, u.Spin+o.Spin }

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

// forget takes a closed link away, unless something was counted or decided meanwhile.
func (r *Recorder) forget(l *Link) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l.leave(true)
	for _, route := range *l.routes.Load() {
		if at := route.decided.Load(); at != nil && anyOf(*at) || route.counted() > 0 {
			l.leave(false)
			return
		}
	}
	delete(r.links, l)
}

// leave notes that a link is forgotten, or is not. The caller holds the recorder's mu.
func (l *Link) leave(forgotten bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forgotten = forgotten
	for _, route := range *l.routes.Load() {
		route.gone.Store(forgotten)
	}
}

// back has the link of a route on which something was counted taken again, if it was forgotten.
func (r *Route) back() {
	if r.gone.Load() {
		r.link.back()
	}
}

// back has a link that was forgotten taken again.
func (l *Link) back() {
	r := l.recorder
	r.mu.Lock()
	defer r.mu.Unlock()
	if !l.forgotten {
		return
	}
	l.leave(false)
	if l.over = l.over || !r.Enabled(); !l.over {
		r.links[l] = struct{}{}
	}
}
