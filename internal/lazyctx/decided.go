package lazyctx

import (
	"context"

	"github.com/stile-ipc/stile/telemetry"
)

// NotBegun is the trailer of calls that a server has refused before their handler began, and names their
// method: a handler that passes on the trailer of a call of its own has begun.
const NotBegun = "x-stile-not-begun"

// Decided is told what a server's interceptor has decided of a call.
type Decided interface{ Decided(d telemetry.Decision) }

type decidedKey struct{}

// DecidedKey is the key under which a call's context has its [Decided], if it wants to know.
var DecidedKey any = decidedKey{}

// Decide tells whose call ctx is what was decided of it.
func Decide(ctx context.Context, d telemetry.Decision) {
	if to, ok := ctx.Value(DecidedKey).(Decided); ok {
		to.Decided(d)
	}
}

type tallyKey struct{}

// WithTally returns ctx for calls whose way t is told.
func WithTally(ctx context.Context, t *telemetry.Tally) context.Context {
	return context.WithValue(ctx, tallyKey{}, t)
}

// TallyOf returns who is told which way a call in ctx goes, or nil.
func TallyOf(ctx context.Context) *telemetry.Tally {
	if a, ok := ctx.(*Attempt); ok {
		return a.Tally
	}
	t, _ := ctx.Value(tallyKey{}).(*telemetry.Tally)
	return t
}
