package policy

import (
	"context"
	"maps"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/stile-ipc/stile/internal/lazyctx"
	"github.com/stile-ipc/stile/policy/control"
	"github.com/stile-ipc/stile/policy/internal/near"
	"github.com/stile-ipc/stile/telemetry"
)

// target is what is known of one server: its methods, and budgets by service.
type target struct {
	p     *Policy
	name  string
	table atomic.Pointer[table]
	admit atomic.Pointer[admission] // of the server's side

	users   int        // guarded by p.mu
	mu      sync.Mutex // for all that follows, and for replacing table
	budgets map[string]*budget
}

// table is the routes under one set of rules. It does not change.
type table struct {
	rules  *rules
	routes map[string]*route
	before map[string]*route // of the rules before, whose state may go on
}

// budget is what a service's retries and hedges share.
type budget struct {
	budget   *control.Budget
	throttle *control.Throttle
	of       RetryBudget
	gRPC     *RetryThrottling
}

// fallbackTimeout is the default of x-stile.defaultTimeout.
const fallbackTimeout = 10 * time.Second

// maxRoutes bounds what unknown method names can make us remember.
const maxRoutes = 4096

// route is what holds for the calls of a method to a target. It does not change; what it points
// to counts.
type route struct {
	Effective
	target *target
	rules  *rules

	timeout time.Duration
	own     bool // timeout is the entry's, and holds beside the caller's
	bare    bool // nothing but the deadline

	idempotent bool
	attempts   int // at most
	perTry     time.Duration
	split      bool // attempts share what is left
	retry      bool
	codes      uint32 // that are retried, as bits
	backoff    control.Backoff
	hedge      *Hedge
	latency    *control.Latency // for a hedge at a percentile
	pending    pending          // calls that may be hedged
	budget     *budget

	breaker  *control.Breaker
	limit    *control.Limit
	tally    *telemetry.Tally // over all versions
	shadow   bool
	ways     lazyctx.Ways
	ready    bool // wait for a connection, if the caller says nothing
	maxSend  *int64
	maxRecv  *int64
	coalesce *near.Flights
	cache    *near.Cache
	fallback bool // an old answer of cache may stand in
	keyer    *near.Keyer
}

func newTarget(p *Policy, name string) *target {
	t := &target{p: p, name: name, budgets: map[string]*budget{}}
	t.table.Store(&table{})
	return t
}

// route returns what holds for method now.
func (t *target) route(method string) *route {
	rules, tab := t.p.rules.Load(), t.table.Load()
	if tab.rules == rules {
		if r := tab.routes[method]; r != nil {
			return r
		}
	}
	return t.find(rules, method)
}

// peek is route for a method that there may not be, so that nothing is kept of it: the result has no state.
func (t *target) peek(rules *rules, method string) *route {
	if tab := t.table.Load(); tab.rules == rules {
		if r := tab.routes[method]; r != nil {
			return r
		}
	}
	e := rules.Effective(method, linked(method))
	return &route{Effective: e, target: t, rules: rules, shadow: e.Config.Stile.Shadow}
}

// find resolves a method that is not in the table.
func (t *target) find(rules *rules, method string) *route {
	t.mu.Lock()
	defer t.mu.Unlock()
	tab := t.table.Load()
	if tab.rules == rules {
		if r := tab.routes[method]; r != nil {
			return r
		}
		if len(tab.routes) >= maxRoutes {
			return t.resolveLocked(rules, method, tab.before[method])
		}
	}
	next := &table{rules: rules, routes: map[string]*route{}, before: tab.before}
	if tab.rules == rules {
		maps.Copy(next.routes, tab.routes)
	} else {
		next.before = maps.Clone(tab.before) // of methods that were not called under tab.rules
		if next.before == nil {
			next.before = map[string]*route{}
		}
		maps.Copy(next.before, tab.routes)
	}
	r := t.resolveLocked(rules, method, next.before[method])
	next.routes[method] = r
	t.table.Store(next)
	return r
}

// resolveLocked makes the route of a method. before, which may be nil, is what held.
func (t *target) resolveLocked(rules *rules, method string, before *route) *route {
	known := linked(method)
	e := rules.Effective(method, known)
	x := &e.Config.Stile
	r := &route{
		Effective: e, target: t, rules: rules, timeout: time.Duration(e.Timeout), own: e.Config.Timeout != 0,
		idempotent: e.Idempotency != IdempotencyUnknown, attempts: 1, shadow: x.Shadow,
		ready: e.Config.WaitForReady, maxSend: e.Config.MaxRequestMessageBytes, maxRecv: e.Config.MaxResponseMessageBytes,
	}
	if x.Transport != nil {
		r.ways = x.Transport.ways()
	}
	if r.timeout <= 0 { // a Config that Parse has not made
		r.timeout = fallbackTimeout
	}
	r.pending.p = t.p
	r.setAttempts(t.budgetLocked(rules, serviceOf(method)))
	if before == nil {
		before = &route{}
	}
	if r.tally = before.tally; r.tally == nil {
		r.tally = new(telemetry.Tally)
	}
	old, now := &before.Config.Stile, t.p.now()
	if unchanged(x.Breaker, old.Breaker) {
		r.breaker = before.breaker
	} else if b := x.Breaker; b != nil {
		r.breaker = control.NewBreaker(b.machine())
	}
	if unchanged(x.Limit, old.Limit) {
		r.limit = before.limit
	} else if l := x.Limit; l != nil {
		r.limit = control.NewLimit(l.machine(), now)
	}
	if h := r.hedge; h != nil && h.HedgingDelay.Percentile != 0 {
		if before.latency != nil && unchanged(before.hedge, h) {
			r.latency = before.latency
		} else {
			r.latency = control.NewLatency(h.HedgingDelay.Percentile, now)
		}
	}
	r.setAnswers(known, before)
	r.bare = r.ways == 0 && r.attempts == 1 && r.breaker == nil && r.limit == nil && r.cache == nil && r.coalesce == nil && r.perTry == 0
	return r
}

// unchanged tells whether a part of the file is as it was.
func unchanged[T any](a, b *T) bool { return a != nil && b != nil && reflect.DeepEqual(a, b) }

// setAttempts reads what concerns retries and hedges.
func (r *route) setAttempts(b *budget) {
	e := &r.Effective
	r.perTry = time.Duration(e.Config.Stile.PerTryTimeout)
	if p := e.Config.RetryPolicy; p != nil {
		r.retry, r.attempts = true, e.Attempts()
		r.backoff = control.Backoff{Initial: time.Duration(p.InitialBackoff), Max: time.Duration(p.MaxBackoff), Multiplier: p.BackoffMultiplier}
		for _, c := range p.RetryableStatusCodes {
			r.codes |= 1 << uint32(c)
		}
		r.split = r.perTry == 0 && r.idempotent && r.retries(codes.DeadlineExceeded)
	}
	if h := e.Hedge(); h != nil && r.idempotent {
		r.hedge, r.attempts = h, e.Attempts()
	}
	r.budget = b
}

// setAnswers reads what concerns answers that are given again.
func (r *route) setAnswers(known *Method, before *route) {
	x := &r.Config.Stile
	if r.Idempotency != NoSideEffects || x.Cache == nil && !x.Coalesce {
		return // lint says so
	}
	if known == nil {
		r.target.p.news.tellRoute(context.Background(), r, &Event{Kind: Faulty, Detail: "no cache and no coalescing: the program knows no .proto file of the method"})
		return
	}
	if known.Streams {
		return // lint says so
	}
	var fields []string
	if x.Cache != nil {
		fields = x.Cache.KeyFields
	}
	keyer, err := near.NewKeyer(known.Request, fields)
	if err != nil {
		r.target.p.news.tellRoute(context.Background(), r, &Event{Kind: Faulty, Detail: err.Error()})
		return
	}
	r.keyer = keyer
	if x.Coalesce {
		r.coalesce = new(near.Flights)
	}
	r.fallback = x.Fallback != nil && x.Fallback.Cache
	switch {
	case x.Cache == nil:
	case before.cache != nil && unchanged(x.Cache, before.Config.Stile.Cache):
		r.cache = before.cache
	default:
		r.cache = near.NewCache(int64(x.Cache.MaxBytes))
	}
}

// retries tells whether the file names the code as one to retry.
func (r *route) retries(c codes.Code) bool { return c < 32 && r.codes&(1<<c) != 0 }

// budgetLocked returns the budget of a service, "/service/".
func (t *target) budgetLocked(rules *rules, service string) *budget {
	b := t.budgets[service]
	of, throttling := rules.Stile.RetryBudget, rules.RetryThrottling
	if b != nil && b.of == of && reflect.DeepEqual(b.gRPC, throttling) {
		return b
	}
	b = &budget{budget: control.NewBudget(of.BudgetPercent, of.MinRetryConcurrency), of: of, gRPC: throttling}
	if throttling != nil {
		b.throttle = control.NewThrottle(throttling.MaxTokens, throttling.TokenRatio)
	}
	if len(t.budgets) < maxRoutes {
		t.budgets[service] = b
	}
	return b
}

// linked returns what the .proto files linked into the program say of a method, or nil.
func linked(method string) *Method {
	name := strings.ReplaceAll(strings.TrimPrefix(method, "/"), "/", ".")
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
	if err != nil {
		return nil
	}
	if m, ok := d.(protoreflect.MethodDescriptor); ok {
		return methodOf(m)
	}
	return nil
}

// ways returns what is preferred to gRPC, and gRPC itself if it is named.
func (t *TransportUse) ways() lazyctx.Ways {
	var w lazyctx.Ways
	for _, name := range t.Prefer {
		switch {
		case name == TCP:
			return w | lazyctx.GRPC
		case name == SHM:
			w |= lazyctx.SHM
		case name == Unix:
			w |= lazyctx.Unix
		}
	}
	return w
}

func (b *Breaker) machine() control.BreakerConfig {
	return control.BreakerConfig{
		TimeBased: b.SlidingWindowType == TimeBased, Window: b.SlidingWindowSize, MinCalls: b.MinimumNumberOfCalls,
		FailureRate: b.FailureRateThreshold, SlowCall: time.Duration(b.SlowCallDurationThreshold), SlowRate: b.SlowCallRateThreshold,
		OpenFor: time.Duration(b.WaitDurationInOpenState), HalfOpenCalls: b.PermittedNumberOfCallsInHalfOpenState,
	}
}

func (l *Limit) machine() control.LimitConfig {
	return control.LimitConfig{Max: l.MaxRequests, Min: l.MinRequests, Pending: l.MaxPendingRequests, Adaptive: l.Adaptive}
}
