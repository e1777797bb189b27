package policy

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/stile-ipc/stile/internal/lazyctx"
	"github.com/stile-ipc/stile/policy/control"
	"github.com/stile-ipc/stile/telemetry"
)

// call is a unary call on its way through the chain:
//
//	deadline → cache → coalesce → fallback ( breaker → limit → attempts: retry, hedge ( perTryTimeout → the channel ) )
//
// ADR 9 says why in this order. A call belongs to its caller's goroutine, but for what race.go says.
type call struct {
	first try
	turn  turn // if the call may be hedged

	side     *side
	r        *route
	id       uint64          // of the connection
	ctx      context.Context // the caller's
	deadline time.Time       // of the call with all it does; zero: none
	begun    time.Duration   // as state machines count; later, when it had to wait for its turn
	queued   time.Duration   // that it had to wait
	tried    int             // attempts made
	trace    [16]byte        // of the attempt that failed last, if Stile has made one of it

	req, reply any
	replyType  protoreflect.MessageType // if the call may be hedged
	cc         *grpc.ClientConn
	invoke     grpc.UnaryInvoker
	opts       []grpc.CallOption
	onFinish   []func(error) // taken out of opts: told once
}

// unary is a [grpc.UnaryClientInterceptor].
func (s *side) unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	conn := s.see(cc)
	r := conn.t.route(method)
	if r.shadow {
		k := &call{side: s, r: r, ctx: ctx, begun: s.p.now(), req: req, reply: reply, cc: cc, invoke: invoker, opts: opts}
		return k.observe()
	}
	if r.cache != nil && s.near(ctx, r, conn.id, req, reply, opts) {
		return nil
	}
	opts = r.options(opts)
	deadline, has := ctx.Deadline()
	if has && r.bare && !r.own {
		return s.send(ctx, method, req, reply, cc, invoker, opts)
	}
	now := s.p.now()
	if !has || r.own && s.p.since(deadline)-now > r.timeout {
		deadline, has = s.p.at(now+r.timeout), false
	}
	if r.bare && has {
		return s.send(ctx, method, req, reply, cc, invoker, opts)
	}
	if r.bare && s.below == nil {
		a := lazyctx.NewAttempt(ctx, deadline, r.timeout)
		defer a.Cancel(context.Canceled)
		return invoker(a, method, req, reply, cc, opts...)
	}
	k := calls.Get().(*call)
	k.side, k.r, k.id, k.ctx, k.deadline, k.begun = s, r, conn.id, ctx, deadline, now
	k.req, k.reply, k.cc, k.invoke, k.opts = req, reply, cc, invoker, opts
	err := k.run()
	k.recycle()
	return err
}

// calls holds calls of which nobody knows any more.
var calls = sync.Pool{New: func() any { return new(call) }}

// recycle makes k ready for the pool, if its only attempt's context was seen by Stile's channel
// alone: others may keep a context for ever.
func (k *call) recycle() {
	if k.first.Private && k.tried == 1 && k.turn.race == nil {
		*k = call{}
		calls.Put(k)
	}
}

func (k *call) run() error {
	if k.r.bare {
		t := k.next()
		k.make(t, false)
		return t.err
	}
	if k.r.attempts > 1 {
		k.takeFinish()
	}
	err := k.answer()
	for _, f := range k.onFinish {
		f(err)
	}
	return err
}

// takeFinish takes the callbacks that grpc-go would call after each attempt out of the options.
func (k *call) takeFinish() {
	for i, o := range k.opts {
		f, ok := o.(grpc.OnFinishCallOption)
		if !ok {
			continue
		}
		if k.onFinish == nil {
			k.opts = append([]grpc.CallOption(nil), k.opts...)
		}
		k.onFinish = append(k.onFinish, f.OnFinish)
		k.opts[i] = grpc.EmptyCallOption{}
	}
}

// guarded makes the call behind breaker and limit.
func (k *call) guarded() error {
	r := k.r
	if r.breaker == nil && r.limit == nil {
		return k.attempts()
	}
	began := k.begun
	permit, err := k.pass(began)
	if err != nil {
		return err
	}
	admitted, err := k.admit(began)
	if err != nil {
		if r.breaker != nil && permit.asked {
			r.breaker.Forget(permit.Permit)
		}
		return err
	}
	done := false
	defer func() { // also when a codec panics
		if !done {
			k.settle(permit, admitted, errPanicked)
		}
	}()
	err = k.attempts()
	done = true
	k.settle(permit, admitted, err)
	return err
}

// errPanicked says nothing of the server.
var errPanicked = status.Error(codes.Canceled, "policy: panic during the call")

// permit is a breaker's leave for a call, if it was asked.
type permit struct {
	control.Permit
	asked bool
}

// pass asks the breaker.
func (k *call) pass(now time.Duration) (permit, error) {
	r := k.r
	if r.breaker == nil {
		return permit{}, nil
	}
	p, move, ok := r.breaker.Allow(now)
	k.moved(move)
	if ok {
		return permit{p, true}, nil
	}
	err := r.breakerOpen(now)
	k.count(telemetry.BreakerRefused)
	k.tell(CallRefused, err, "breaker open")
	if r.shadow {
		err = nil
	}
	return permit{}, err
}

func (k *call) moved(m control.Move) {
	if m.Happened() {
		k.tell(BreakerMoved, nil, m.From.String()+" → "+m.To.String())
	}
}

// admit takes a place among the calls under way, waiting for one if the file allows.
func (k *call) admit(now time.Duration) (bool, error) {
	r, p := k.r, k.side.p
	if r.limit == nil {
		return false, nil
	}
	verdict, waited := waitFor(k.ctx, p, r.limit, now, k.deadline, r.rank(), r.shadow)
	if verdict == control.Admitted {
		if waited {
			begun := p.now()
			k.queued, k.begun = begun-now, begun // what counts as the server's time, and what is left, begin here
		}
		return true, nil
	}
	if err := ended(k.ctx); err != nil {
		k.late(err)
		return false, err
	}
	err := r.limitReached(verdict.String())
	k.count(telemetry.LimitRefused)
	k.tell(CallRefused, err, "limit: "+verdict.String())
	if r.shadow {
		err = nil
	}
	return false, err
}

// settle tells breaker and limit of the outcome.
func (k *call) settle(permit permit, admitted bool, err error) {
	r := k.r
	now := k.side.p.now()
	took, code := now-k.begun, status.Code(err)
	if err == nil {
		code = codes.OK
	}
	overloaded := code == codes.ResourceExhausted || code == codes.DeadlineExceeded
	switch {
	case !admitted:
	case code == codes.Canceled || fails(code) && !overloaded: // how soon a call fails says nothing of its server
		r.limit.Forget(now)
	default:
		r.limit.Done(now, took, overloaded)
	}
	if !permit.asked {
		return
	}
	if code == codes.Canceled && (err == errPanicked || k.ctx.Err() != nil) || code == codes.ResourceExhausted {
		r.breaker.Forget(permit.Permit)
		return
	}
	k.moved(r.breaker.Done(permit.Permit, now, took, fails(code)))
}

func (k *call) tell(kind Kind, err error, detail string) {
	k.side.p.news.tellRoute(k.ctx, k.r, &Event{Kind: kind, Err: err, Detail: detail, Attempt: k.tried, TraceID: lazyctx.HexTrace(k.trace)})
}

// count counts what was decided, for the hub. Only Stile's channel tells of the calls themselves.
func (k *call) count(d telemetry.Decision) {
	if !k.r.shadow && k.side.counts {
		k.r.tally.Count(d)
	}
}

// late counts a call of which nothing was sent before its deadline.
func (k *call) late(err error) {
	if status.Code(err) == codes.DeadlineExceeded {
		k.count(telemetry.Late)
	}
}

// rank orders calls that wait.
func (r *route) rank() int {
	switch r.Config.Stile.Criticality {
	case Critical:
		return 2
	case Sheddable:
		return 0
	}
	return 1
}

// waitFor takes a place in l, or says why not. It waits until deadline or the end of ctx if it
// may wait.
func waitFor(ctx context.Context, p *Policy, l *control.Limit, now time.Duration, deadline time.Time, rank int, shadow bool) (v control.Verdict, waited bool) {
	v = l.Admit(now, p.since(deadline), rank, nil)
	if v != control.Refused || shadow {
		return v, false
	}
	w := control.NewWaiter()
	if v = l.Admit(now, p.since(deadline), rank, w); v != control.Queued {
		return v, false
	}
	var late <-chan time.Time
	if !deadline.IsZero() {
		t := time.NewTimer(time.Until(deadline))
		defer t.Stop()
		late = t.C
	}
	select {
	case v = <-w.C:
		return v, true
	case <-ctx.Done():
	case <-late:
	}
	if l.Leave(w) {
		return control.Hopeless, true
	}
	if v = <-w.C; v == control.Admitted { // too late
		l.Forget(p.now())
		v = control.Hopeless
	}
	return v, true
}
