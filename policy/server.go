package policy

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"github.com/stile-ipc/stile/internal/lazyctx"
	"github.com/stile-ipc/stile/policy/control"
	"github.com/stile-ipc/stile/telemetry"
)

// UnaryServerInterceptor makes a server's unary calls obey p: a call that nobody waits for any more
// is not begun, one without a deadline gets the method's, and what exceeds x-stile.admission waits or is
// shed, the critical last. Put it first.
func UnaryServerInterceptor(p *Policy) grpc.UnaryServerInterceptor {
	t := orDefault(p).attach("")
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		s, err := t.enter(ctx, info.FullMethod)
		if err != nil {
			return nil, err
		}
		defer s.leave(&err)
		var reply any
		reply, err = handler(s.ctx, req)
		return reply, err
	}
}

// StreamServerInterceptor is [UnaryServerInterceptor] for streams. A stream counts as one call
// under way for as long as it lasts.
func StreamServerInterceptor(p *Policy) grpc.StreamServerInterceptor {
	t := orDefault(p).attach("")
	return func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		s, err := t.enter(ss.Context(), info.FullMethod)
		if err != nil {
			return err
		}
		defer s.leave(&err)
		if s.own != nil {
			ss = &boundStream{ss, s.own}
		}
		err = handler(srv, ss)
		return err
	}
}

// ServerInHandle makes a server refuse, before their requests are received and decoded, calls for which
// [UnaryServerInterceptor] and [StreamServerInterceptor] of p would have neither a place nor room to wait. It is
// for [grpc.InTapHandle] of a grpc-go server and goes beside the interceptors, which count what goes on. Of
// such a refusal grpc-go sends code and message alone, so that callers wait for their own backoff, not for what the
// server would say. A [github.com/stile-ipc/stile.Server] with a policy refuses local calls so by itself, and
// with all details; a tap handle would shut its door. grpc-go keeps some
// hundred bytes of each such call until its deadline.
func ServerInHandle(p *Policy) tap.ServerInHandle {
	full := Full(p)
	return func(ctx context.Context, info *tap.Info) (context.Context, error) {
		return ctx, full(ctx, info.FullMethodName)
	}
}

// Full returns a function that tells why a call would be shed if it came to the server's interceptors now, or
// nil. It is for who has not decoded the request yet. It does not wait.
func Full(p *Policy) func(ctx context.Context, method string) error {
	t := orDefault(p).attach("")
	return func(ctx context.Context, method string) error {
		rules := t.p.rules.Load()
		a := t.admission(rules)
		if a == nil || ctx.Err() != nil {
			return nil
		}
		r := t.peek(rules, method)
		if r.shadow {
			return nil
		}
		now := t.p.now()
		deadline, _ := ctx.Deadline()
		if !a.Full(now, t.p.since(a.until(t.p, now, deadline)), r.rank()) {
			return nil
		}
		return r.shed(ctx, a, "no room to wait")
	}
}

// boundStream is a server's stream with a context that has a deadline.
type boundStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *boundStream) Context() context.Context { return s.ctx }

// served is a call that a server works on.
type served struct {
	ctx      context.Context
	own      *lazyctx.Attempt // ctx, if the caller gave no deadline
	limit    *control.Limit   // that has a place for it; nil: none
	p        *Policy
	admitted time.Duration
}

// enter lets a call in, or says why not.
func (t *target) enter(ctx context.Context, method string) (s served, err error) {
	r := t.route(method)
	s = served{ctx: ctx, p: t.p}
	if err := ctx.Err(); err != nil {
		late(ctx, r, err)
		return s, contextStatus(err)
	}
	deadline, has := ctx.Deadline()
	if !has && !r.shadow {
		deadline = time.Now().Add(r.timeout)
		s.own = lazyctx.NewAttempt(ctx, deadline, 0)
		s.ctx = s.own
	}
	if a := t.admission(r.rules); a != nil {
		if err := s.admit(r, a, deadline); err != nil {
			if s.own != nil {
				s.own.Cancel(context.Canceled)
			}
			return s, err
		}
	}
	return s, nil
}

// late tells of a call that nobody waits for any more. It is counted if its deadline has passed: the caller's cancellation may come before ctx's own end.
func late(ctx context.Context, r *route, err error) {
	if deadline, has := ctx.Deadline(); has && !time.Now().Before(deadline) {
		lazyctx.Decide(ctx, telemetry.Late)
	}
	r.target.p.news.tellRoute(ctx, r, &Event{Kind: CallLate, Err: err})
}

// admission is a server's limit under one Admission.
type admission struct {
	*control.Limit
	of Admission
}

// admission returns the limit over all methods, or nil.
func (t *target) admission(rules *rules) *admission {
	of := rules.Stile.Admission
	if of == nil {
		return nil
	}
	a := t.admit.Load()
	if a != nil && a.of == *of {
		return a
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if a = t.admit.Load(); a == nil || a.of != *of {
		c := control.LimitConfig{Max: of.MaxRequests, Min: of.MinRequests, Pending: of.MaxPendingRequests, Adaptive: of.Adaptive}
		a = &admission{control.NewLimit(c, t.p.now()), *of}
		t.admit.Store(a)
	}
	return a
}

// admit takes a place for a call, or sheds it.
func (s *served) admit(r *route, a *admission, deadline time.Time) error {
	p := s.p
	now := p.now()
	verdict, waited := waitFor(s.ctx, p, a.Limit, now, a.until(p, now, deadline), r.rank(), r.shadow)
	if waited {
		lazyctx.Delay(s.ctx, p.now()-now)
	}
	if verdict == control.Admitted {
		s.limit, s.admitted = a.Limit, p.now()
		return nil
	}
	if err := ended(s.ctx); err != nil {
		late(s.ctx, r, err)
		return err
	}
	if err := r.shed(s.ctx, a, verdict.String()); !r.shadow {
		return err
	}
	return nil
}

// until is when a call that comes now has waited enough.
func (a *admission) until(p *Policy, now time.Duration, deadline time.Time) time.Time {
	until := p.at(now + time.Duration(a.of.MaxQueueDelay))
	if !deadline.IsZero() && deadline.Before(until) {
		return deadline
	}
	return until
}

// shed tells of a call that finds no place, and makes its error.
func (r *route) shed(ctx context.Context, a *admission, why string) error {
	after := time.Duration(a.of.MaxQueueDelay)
	err := refusal(codes.ResourceExhausted, ReasonOverloaded, fmt.Sprintf("the server has too much to do for %s (maxRequests %d, maxPendingRequests %d, maxQueueDelay %s): %s", r.Method, a.of.MaxRequests, a.of.MaxPendingRequests, a.of.MaxQueueDelay, why), after)
	r.target.p.news.tellRoute(ctx, r, &Event{Kind: CallShed, Err: err, Detail: why})
	if !r.shadow {
		lazyctx.Decide(ctx, telemetry.AdmissionShed)
		_ = grpc.SetTrailer(ctx, metadata.Pairs(pushback, strconv.FormatInt(after.Milliseconds(), 10), lazyctx.NotBegun, r.Method)) // fails where there is no stream yet
	}
	return err
}

// leave follows the end of a call that was let in; err is its outcome. It is called also when the
// handler panics.
func (s *served) leave(err *error) {
	if s.own != nil {
		s.own.Cancel(context.Canceled)
	}
	if s.limit != nil {
		now := s.p.now()
		s.limit.Done(now, now-s.admitted, status.Code(*err) == codes.DeadlineExceeded)
	}
}
