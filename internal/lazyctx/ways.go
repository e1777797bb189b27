package lazyctx

import "context"

// Ways says which ways a call may take. The zero value allows all.
type Ways uint8

// What a call may take.
const (
	SHM Ways = 1 << iota
	Unix
	GRPC
)

// Allow reports whether the way is allowed.
func (w Ways) Allow(way Ways) bool { return w == 0 || w&way != 0 }

type waysKey struct{}

// WithWays returns ctx for calls that may only go these ways.
func WithWays(ctx context.Context, w Ways) context.Context {
	return context.WithValue(ctx, waysKey{}, w)
}

// WaysOf returns which ways a call in ctx may take.
func WaysOf(ctx context.Context) Ways {
	if a, ok := ctx.(*Attempt); ok {
		return a.Ways
	}
	w, _ := ctx.Value(waysKey{}).(Ways)
	return w
}
