package policy

import (
	"context"
	"io"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/stile-ipc/stile/internal/lazyctx"
	"github.com/stile-ipc/stile/telemetry"
)

// stream is a [grpc.StreamClientInterceptor].
func (s *side) stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	conn := s.see(cc)
	r := conn.t.route(method)
	if !r.shadow {
		opts = r.options(opts)
	}
	deadline, has := ctx.Deadline()
	if has && r.bare && !r.own {
		return streamer(ctx, desc, cc, method, opts...)
	}
	now := s.p.now()
	if !has || r.own && s.p.since(deadline)-now > r.timeout {
		deadline = s.p.at(now + r.timeout)
	}
	k := &call{side: s, r: r, id: conn.id, ctx: ctx, deadline: deadline, begun: now, cc: cc, opts: opts}
	if r.attempts > 1 {
		k.takeFinish()
	}
	g := &guardedStream{k: k, desc: desc, streamer: streamer, began: now}
	g.moved.L = &g.mu
	if err := g.open(); err != nil {
		return nil, err
	}
	return g, nil
}

// keptBytes is how much of what was sent is kept for another attempt: grpc-go's default of
// MaxRetryRPCBufferSize.
const keptBytes = 256 << 10

// guardedStream is a stream on its way through the chain. As with all streams, one goroutine may
// send while one other receives.
type guardedStream struct {
	k        *call
	desc     *grpc.StreamDesc
	streamer grpc.Streamer
	ctx      context.Context // of all attempts
	cancel   context.CancelFunc
	unwatch  func() bool
	began    time.Duration // of the state machines' time
	permit   permit
	admitted bool

	mu        sync.Mutex // held while an attempt takes the place of another
	moved     sync.Cond  // tells of changes of receiving, cur, committed and err
	receiving bool       // somebody is in RecvMsg
	cur       grpc.ClientStream
	try       *try
	kept      []any // messages sent, as long as another attempt may need them
	size      int   // of kept, bytes
	closed    bool  // CloseSend was called
	committed bool  // there is no other attempt
	extra     bool  // the attempt is paid for by the budget
	counted   bool  // in the budget
	first     time.Duration
	err       error // of a stream that ended while sending; RecvMsg's to tell

	once sync.Once
}

// open asks breaker and limit, and opens the first attempt.
func (g *guardedStream) open() (err error) {
	k := g.k
	if g.permit, err = k.pass(g.began); err != nil {
		return g.told(err)
	}
	if g.admitted, err = k.admit(g.began); err != nil {
		if g.permit.asked {
			k.r.breaker.Forget(g.permit.Permit)
		}
		return g.told(err)
	}
	if k.r.shadow {
		g.ctx, g.cancel = context.WithCancel(k.ctx)
	} else {
		g.ctx, g.cancel = context.WithDeadline(k.ctx, k.deadline)
	}
	if k.r.ways != 0 && !k.r.shadow {
		g.ctx = lazyctx.WithWays(g.ctx, k.r.ways)
	}
	if k.side.counts && telemetry.Process().Enabled() {
		g.ctx = lazyctx.WithTally(g.ctx, k.r.tally)
	}
	g.committed = k.r.attempts == 1 || k.r.shadow || !k.r.retry
	if !g.committed {
		k.r.budget.budget.Begin()
		g.counted = true
	}
	if err := g.connect(); err != nil {
		g.finish(err)
		return err
	}
	// Whoever drops a stream need not end it: its deadline does.
	unwatch := context.AfterFunc(g.ctx, func() { g.finish(contextStatus(g.ctx.Err())) })
	g.mu.Lock()
	g.unwatch = unwatch
	g.mu.Unlock()
	return nil
}

// connect opens the first attempt.
func (g *guardedStream) connect() error {
	done := false
	defer func() { // also when a codec or a credential panics
		if !done {
			g.finish(errPanicked)
		}
	}()
	g.mu.Lock()
	defer g.mu.Unlock()
	err := g.connectLocked()
	done = true
	return err
}

// told tells those who asked of the end.
func (g *guardedStream) told(err error) error {
	for _, f := range g.k.onFinish {
		f(err)
	}
	return err
}

// connectLocked opens an attempt, or another, until one is open.
func (g *guardedStream) connectLocked() error {
	for {
		cur, err := g.attemptLocked()
		if err == nil {
			g.cur = cur
			g.moved.Broadcast()
			return nil
		}
		if err = g.againLocked(err, nil); err != nil {
			return err
		}
	}
}

// attemptLocked opens one attempt and sends it what is kept.
func (g *guardedStream) attemptLocked() (grpc.ClientStream, error) {
	k := g.k
	t := k.next()
	g.try = t
	ctx := g.ctx
	if t.n > 0 {
		ctx = metadata.AppendToOutgoingContext(ctx, previousAttempts, strconv.Itoa(t.n))
	}
	t.seen = new(lazyctx.Observed)
	cur, err := g.streamer(ctx, g.desc, k.cc, k.r.Method, t.seen.Options(k.opts)...)
	if err != nil {
		return nil, err
	}
	for _, m := range g.kept {
		if err := cur.SendMsg(m); err != nil {
			break // the status is RecvMsg's
		}
	}
	if g.closed {
		_ = cur.CloseSend()
	}
	return cur, nil
}

// againLocked waits until there may be another attempt. If not, it returns the stream's error. cur is the
// attempt that failed; nil: it was not opened.
func (g *guardedStream) againLocked(err error, cur grpc.ClientStream) error {
	k := g.k
	if g.extra {
		g.extra = false
		k.r.budget.budget.Give()
	}
	if g.committed {
		return err
	}
	t := g.try
	t.err, t.Report = err, t.seen.Report()
	if cur == nil {
		t.Report.Answered = false
	}
	v := k.decide(t)
	if !v.again {
		g.commitLocked()
		return k.giveUp(err, v.why)
	}
	if serr := k.sleep(v.wait); serr != nil {
		k.r.budget.budget.Give()
		g.commitLocked()
		return serr
	}
	g.extra = true
	k.count(telemetry.Retry)
	k.tell(Retried, err, "")
	return nil
}

// commitLocked makes the attempt under way the last one.
func (g *guardedStream) commitLocked() {
	g.committed, g.kept, g.size = true, nil, 0
	g.moved.Broadcast()
}

func (g *guardedStream) keepLocked(m any) {
	if g.committed {
		return
	}
	size := 1 << 10 // a guess, for what is not protobuf
	if p, ok := m.(proto.Message); ok {
		size = proto.Size(p)
		m = proto.Clone(p) // the caller may use it again
	}
	if g.size += size; g.size > keptBytes {
		g.commitLocked()
		return
	}
	g.kept = append(g.kept, m)
}

// current returns the attempt under way.
func (g *guardedStream) current() grpc.ClientStream {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.cur
}

func (g *guardedStream) Context() context.Context { return g.current().Context() }

func (g *guardedStream) Trailer() metadata.MD { return g.current().Trailer() }

// Header implements [grpc.ClientStream]. A header is an answer: after it there is no other attempt.
func (g *guardedStream) Header() (metadata.MD, error) {
	for {
		cur := g.current()
		md, err := cur.Header()
		g.mu.Lock()
		switch {
		case err == nil && md != nil:
			g.commitLocked()
			g.mu.Unlock()
			return md, nil
		case g.committed && g.cur == cur:
			g.mu.Unlock()
			return md, err
		}
		g.mu.Unlock()
		if g.replace(cur) != nil {
			return nil, nil // RecvMsg tells it, as in grpc-go
		}
	}
}

// replace follows the end of an attempt that has no answer: it asks for the status and makes
// another attempt, unless who receives has done so. The error is the stream's end, which RecvMsg returns.
func (g *guardedStream) replace(cur grpc.ClientStream) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.receiving && g.cur == cur && !g.committed && g.err == nil { // who receives learns of the end, too
		g.moved.Wait()
	}
	if g.cur != cur {
		return nil
	}
	if g.committed || g.err != nil {
		return io.EOF
	}
	err := cur.RecvMsg(new(emptypb.Empty)) // there is no message
	if err == nil || err == io.EOF {
		g.commitLocked()
		g.err = err
		return io.EOF
	}
	if err = g.againLocked(err, cur); err == nil {
		err = g.connectLocked()
	}
	if err != nil {
		g.err = err
		g.moved.Broadcast()
	}
	return err
}

func (g *guardedStream) SendMsg(m any) error {
	g.mu.Lock()
	g.keepLocked(m)
	cur, ended := g.cur, g.err != nil
	g.mu.Unlock()
	if ended {
		return io.EOF
	}
	err := cur.SendMsg(m)
	if err == nil {
		return nil
	}
	if err != io.EOF { // not encoded, too large: no other attempt would do better
		g.finish(err)
		return err
	}
	return g.replaced(cur)
}

// replaced is replace for a sender: nil if the attempt that took cur's place was sent the message too.
func (g *guardedStream) replaced(cur grpc.ClientStream) error {
	if g.replace(cur) != nil {
		return io.EOF
	}
	return nil
}

func (g *guardedStream) CloseSend() error {
	g.mu.Lock()
	g.closed = true
	cur := g.cur
	g.mu.Unlock()
	return cur.CloseSend()
}

func (g *guardedStream) RecvMsg(m any) error {
	g.mu.Lock()
	for g.receiving { // one at a time
		g.moved.Wait()
	}
	g.receiving = true
	g.mu.Unlock()
	defer g.free()
	for {
		g.mu.Lock()
		cur, err := g.cur, g.err
		g.mu.Unlock()
		if err == nil {
			err = cur.RecvMsg(m)
		}
		if err == nil || err == io.EOF {
			g.received(err == io.EOF || !g.desc.ServerStreams)
			return err
		}
		g.mu.Lock()
		switch {
		case g.err != nil:
			err = g.err
		case g.cur != cur: // it failed, and the sender has seen that first
			g.mu.Unlock()
			continue
		default:
			if err = g.againLocked(err, cur); err == nil {
				err = g.connectLocked()
			}
		}
		g.mu.Unlock()
		if err != nil {
			g.finish(err)
			return err
		}
	}
}

// free lets others receive.
func (g *guardedStream) free() {
	g.mu.Lock()
	g.receiving = false
	g.mu.Unlock()
	g.moved.Broadcast()
}

// received follows a message, or the end of a stream that went well.
func (g *guardedStream) received(over bool) {
	g.mu.Lock()
	if !g.committed {
		g.commitLocked()
	}
	if g.first == 0 {
		g.first = g.k.side.p.now() - g.began
	}
	g.mu.Unlock()
	if over {
		g.finish(nil)
	}
}

// finish is the end of the stream, once; err is its outcome.
func (g *guardedStream) finish(err error) {
	g.once.Do(func() {
		k, r := g.k, g.k.r
		g.mu.Lock()
		unwatch, first := g.unwatch, g.first
		if g.extra {
			r.budget.budget.Give()
		}
		g.extra, g.committed = false, true
		g.moved.Broadcast()
		g.mu.Unlock()
		if unwatch != nil {
			unwatch()
		}
		if g.counted {
			r.budget.budget.End()
			if err == nil {
				r.budget.throttle.Succeeded()
			}
		}
		now := k.side.p.now()
		if g.admitted {
			r.limit.Forget(now) // how long a stream lasts says nothing of the server
		}
		if g.permit.asked {
			g.judge(now, first, err)
		}
		k.overdue(err)
		g.told(err)
		g.cancel()
	})
}

// judge tells the breaker of the outcome. A stream is as slow as its first message.
func (g *guardedStream) judge(now, first time.Duration, err error) {
	k, b := g.k, g.k.r.breaker
	code := status.Code(err)
	if first != 0 && g.ctx.Err() == context.DeadlineExceeded && code == codes.DeadlineExceeded { // it had answered, and has lasted as long as it might
		b.Forget(g.permit.Permit)
		return
	}
	if code == codes.ResourceExhausted || code == codes.Canceled && k.ctx.Err() != nil {
		b.Forget(g.permit.Permit)
		return
	}
	if first == 0 {
		first = now - g.began
	}
	k.moved(b.Done(g.permit.Permit, now, first, fails(code)))
}
