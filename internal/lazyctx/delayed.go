package lazyctx

import (
	"context"
	"time"
)

// Delayed is told how long an interceptor of a server has kept a call waiting, which is no time of its handler's.
type Delayed interface{ Delayed(d time.Duration) }

type delayedKey struct{}

// DelayedKey is the key under which a call's context has its [Delayed], if it wants to know.
var DelayedKey any = delayedKey{}

// Delay tells whose call ctx is that it was kept waiting.
func Delay(ctx context.Context, d time.Duration) {
	if to, ok := ctx.Value(DelayedKey).(Delayed); ok {
		to.Delayed(d)
	}
}
