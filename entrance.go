package stile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"

	"github.com/stile-ipc/stile/internal/lazyctx"
	"github.com/stile-ipc/stile/telemetry"
	"github.com/stile-ipc/stile/transport"
	"github.com/stile-ipc/stile/transport/local"
)

const (
	// retryEvery is how often calls look for a local door that is not there. It is
	// what the return to a door within a second costs: one lstat per address.
	retryEvery = 200 * time.Millisecond
	// patience is how long calls wait for the first attempt, and for the first after
	// a connection was lost, before they go over gRPC; it goes on without them. It is
	// what a handshake may take: a door that does not answer belongs to a server that
	// hangs, or to a machine that does, and gRPC would wait 20 seconds for it.
	patience = 5 * time.Second
	// resolvePatience is the same while the target has not been resolved, from when
	// its resolver was built.
	resolvePatience = 500 * time.Millisecond
)

// entrance decides for one grpc.ClientConn which way its calls go, and keeps the
// local connection. Its methods are safe for concurrent use.
type entrance struct {
	cc   *grpc.ClientConn
	d    *dialer
	set  clientSettings
	shut string // not empty: why all calls are gRPC's
	log  *slog.Logger

	mux    atomic.Pointer[clientMux] // the connection calls use; nil: none
	config atomic.Pointer[grpc.ServiceConfig]
	far    atomic.Pointer[telemetry.Link] // of calls over gRPC; nil: there were none

	mu      sync.Mutex
	finder  *finder
	trying  *attempt // under way; nil: none
	nextTry time.Time
	patient bool // calls wait for the attempt under way
	failed  bool // the last attempt found no door
	closed  bool
	said    map[string]bool // what the log was told
	living  map[*clientMux]struct{}
}

// attempt is one search for a local door.
type attempt struct {
	searching chan struct{} // closed when the resolver is there
	since     time.Time     // when searching was closed
	done      chan struct{} // closed at the end
}

func newEntrance(cc *grpc.ClientConn, d *dialer) *entrance {
	e := &entrance{cc: cc, d: d, log: d.own.logger, said: map[string]bool{}, living: map[*clientMux]struct{}{}}
	e.set = settleClient(cc, readClient(cc), d.explicit, d.own, d.onlyTwins)
	if e.log == nil {
		e.log = slog.Default()
	}
	if !e.set.layoutUnknown && (!sameFunc(e.set.lastUnary, d.lastUnary) || !sameFunc(e.set.lastStream, d.stream)) {
		e.set.shut = append(e.set.shut, "an interceptor stands behind Stile's and would be skipped: put stile.DialOptions last")
	}
	if len(e.set.shut) > 0 {
		e.shut = strings.Join(e.set.shut, "; ")
		e.say("calls go over gRPC", "reason", e.shut)
	}
	e.config.Store(e.set.defaultServiceConfig)
	go e.watch()
	return e
}

// sameFunc tells whether two functions have the same code.
func sameFunc(a, b any) bool {
	return !reflect.ValueOf(a).IsNil() && reflect.ValueOf(a).Pointer() == reflect.ValueOf(b).Pointer()
}

// say tells what a person should know: the log once for each message and target, the hub each time.
func (e *entrance) say(msg string, args ...any) {
	if !e.sayOnce(msg, args...) {
		e.tellHub(msg, args...)
	}
}

// sayOnce tells both once for each message and target, and reports whether this was that time.
func (e *entrance) sayOnce(msg string, args ...any) (first bool) {
	e.mu.Lock()
	first = !e.said[msg]
	e.said[msg] = true
	e.mu.Unlock()
	if first {
		e.tellHub(msg, args...)
		e.log.Info("stile: "+msg, append([]any{"target", e.cc.Target()}, args...)...)
	}
	return first
}

func (e *entrance) tellHub(msg string, args ...any) {
	if r := e.d.own.recorder; r.Enabled() {
		r.Event(telemetry.Event{Kind: msg, Subject: e.cc.CanonicalTarget(), Example: strings.TrimSpace(fmt.Sprintln(args...))})
	}
}

// watch waits for the end of the grpc.ClientConn, which has no hook for it.
func (e *entrance) watch() {
	for s := e.cc.GetState(); s != connectivity.Shutdown; s = e.cc.GetState() {
		e.cc.WaitForStateChange(context.Background(), s)
	}
	e.close()
}

// close ends the local connection and the search for one.
func (e *entrance) close() {
	e.mu.Lock()
	e.closed = true
	f := e.finder
	e.mux.Store(nil)
	living := slices.Collect(maps.Keys(e.living))
	e.mu.Unlock()
	e.d.forget(e)
	e.far.Load().Close()
	if f != nil {
		f.close()
	}
	for _, m := range living {
		m.abandon(status.Error(codes.Canceled, "grpc: the client connection is closing"))
	}
}

// enter returns the local connection that a call of method takes, or nil when it
// goes over gRPC, and how long it waited for one.
func (e *entrance) enter(ctx context.Context, method string) (m *clientMux, waited time.Duration) {
	if e.shut != "" || e.cc.GetState() == connectivity.Shutdown {
		return nil, 0
	}
	m = e.mux.Load()
	if m == nil || m.closed.Load() {
		began := telemetry.Now()
		m, waited = e.look(ctx), telemetry.Now()-began
	}
	if m == nil || e.needsGRPC(method) {
		return nil, waited
	}
	return m, waited
}

// needsGRPC reports whether the service config asks for what only grpc-go does.
func (e *entrance) needsGRPC(method string) bool {
	if e.config.Load() == nil || e.set.disableRetry {
		return false
	}
	mc := e.methodConfig(method)
	if mc.RetryPolicy == nil {
		return false
	}
	e.sayOnce("a method with a retry policy goes over gRPC", "method", method) // as each call does
	return true
}

// methodConfig is the service config's part for a method, as grpc-go looks it up.
func (e *entrance) methodConfig(method string) grpc.MethodConfig {
	sc := e.config.Load()
	if sc == nil {
		return grpc.MethodConfig{}
	}
	if mc, ok := sc.Methods[method]; ok {
		return mc
	}
	if mc, ok := sc.Methods[method[:strings.LastIndex(method, "/")+1]]; ok {
		return mc
	}
	return sc.Methods[""]
}

// look tries to find a local door, at most every retryEvery, and waits a little
// for the result.
func (e *entrance) look(ctx context.Context) *clientMux {
	if a, ok := ctx.(*lazyctx.Attempt); ok {
		a.Left = 0 // it may take a while
	}
	e.mu.Lock()
	if m := e.mux.Load(); m != nil && !m.closed.Load() { // found meanwhile
		e.mu.Unlock()
		return m
	}
	a := e.trying
	if a == nil {
		if e.closed || time.Now().Before(e.nextTry) {
			e.mu.Unlock()
			return nil
		}
		a = &attempt{searching: make(chan struct{}), done: make(chan struct{})}
		e.trying, e.patient = a, !e.failed
		go e.try(a)
	}
	patient := e.patient
	e.mu.Unlock()
	if !patient {
		return nil
	}
	e.await(ctx, a)
	if m := e.mux.Load(); m != nil && !m.closed.Load() {
		return m
	}
	return nil
}

// await waits for the end of an attempt as long as that is reasonable.
func (e *entrance) await(ctx context.Context, a *attempt) {
	select {
	case <-a.searching:
	case <-ctx.Done():
		return
	}
	if waitFor(ctx, a.done, time.Until(a.since.Add(resolvePatience))) {
		return
	}
	if e.resolved() && waitFor(ctx, a.done, time.Until(a.since.Add(patience))) {
		return
	}
	e.log.Debug("stile: a call does not wait for the local door", "target", e.cc.Target(), "waited", time.Since(a.since), "resolved", e.resolved())
}

// waitFor reports whether done closed within d and before the end of ctx.
func waitFor(ctx context.Context, done <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

// resolved reports whether the target has been resolved.
func (e *entrance) resolved() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.finder != nil && e.finder.known()
}

// try makes one attempt; it owns e.trying.
func (e *entrance) try(a *attempt) {
	defer close(a.done)
	f := e.find()
	a.since = time.Now()
	close(a.searching)
	var m *clientMux
	if f != nil {
		m = e.knock(f)
	}
	e.mu.Lock()
	e.trying, e.nextTry, e.failed = nil, time.Now().Add(retryEvery), m == nil
	if e.closed {
		e.mu.Unlock()
		if m != nil {
			_ = m.conn.Close()
		}
		return
	}
	if m != nil {
		e.mux.Store(m)
		if m.alive() {
			e.living[m] = struct{}{}
		}
	}
	e.mu.Unlock()
}

// knock waits for the target to be resolved and knocks at each address.
func (e *entrance) knock(f *finder) *clientMux {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	places, reason := f.places(ctx)
	if reason != "" {
		e.say("calls go over gRPC", "reason", reason)
		return nil
	}
	cfg := e.dialConfig()
	for _, p := range places {
		a := p.addr
		key, err := local.KeyOf(a)
		if err != nil {
			continue
		}
		conn, blob, err := local.Dial(ctx, key, cfg)
		if err != nil {
			e.heed(a.String(), err)
			continue
		}
		s, err := parseSettings(blob)
		if err != nil {
			conn.Start(discard{})
			conn.Fail(err)
			_ = conn.Close()
			e.heed(a.String(), err)
			continue
		}
		return newClientMux(conn, p, s, e)
	}
	f.again()
	return nil
}

// find returns the finder, made by the first attempt; nil when closed. Only the
// attempt under way calls it.
func (e *entrance) find() *finder {
	if e.finder == nil {
		f := newFinder(e) // outside the lock: a resolver may take its time
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.closed {
			f.close()
			return nil
		}
		e.finder = f
	}
	return e.finder
}

// reconsider is called with each answer of the resolver: a connection to a place
// that is not in it takes no more calls.
func (e *entrance) reconsider(names []string, spread bool) {
	m := e.mux.Load()
	if m == nil || !spread && slices.Contains(names, m.place.name) {
		return
	}
	m.retire()
}

func (e *entrance) dialConfig() local.DialConfig {
	heedLimit()
	return local.DialConfig{
		Dir: e.d.own.dir, AllowUIDs: e.d.own.allowUIDs, Logger: e.log,
		NoSHM: e.d.own.noSharedMemory || socketsOnly(),
		Self:  transport.ClientInfo{Process: telemetry.Self, ReadsTimes: e.d.own.recorder.Enabled(), Traces: traced.Started()},
	}
}

// socketsOnly reports whether the environment forbids shared memory.
func socketsOnly() bool {
	value := os.Getenv("STILE_TRANSPORT")
	if strings.EqualFold(value, "unix") {
		return true
	}
	if value != "" && !strings.EqualFold(value, "shm") {
		sayTransport()
	}
	return false
}

var sayTransport = sync.OnceFunc(func() {
	slog.Warn("stile: STILE_TRANSPORT is not heeded: it must be unix or shm", "value", os.Getenv("STILE_TRANSPORT"))
})

// heed says once what keeps calls from a door that is there.
func (e *entrance) heed(addr string, err error) {
	for _, usual := range usualMisses {
		if errors.Is(err, usual) {
			e.log.Debug("stile: no local door", "target", e.cc.Target(), "address", addr, "error", err)
			return
		}
	}
	e.say("the local door cannot be used", "address", addr, "error", err.Error())
}

// usualMisses is why a knock fails where nothing is wrong: there is no door, or
// its server ends just now.
var usualMisses = []error{
	local.ErrNoEntry, local.ErrStale, local.ErrAddress, local.ErrUnsupported,
	io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE,
}

// gone is called by a connection that has ended.
func (e *entrance) gone(m *clientMux) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.living, m)
}

// down is called by a connection that takes no more calls.
func (e *entrance) down(m *clientMux) {
	e.mux.CompareAndSwap(m, nil)
	e.mu.Lock()
	e.failed = false
	e.nextTry = time.Time{} // a server replaced in place is found at once
	e.mu.Unlock()
	m.mu.Lock()
	cause := m.cause
	m.mu.Unlock()
	if errors.Is(cause, transport.ErrProtocol) {
		e.say("the server broke the protocol of local calls and was cut off", "error", cause, "pid", m.conn.Info().Peer.PID)
	}
}
