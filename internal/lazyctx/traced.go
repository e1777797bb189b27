package lazyctx

import (
	"context"
	"encoding/hex"
)

// Traced knows the trace that Stile has made for a call. Zero: none.
type Traced interface{ TraceID() [16]byte }

type tracedKey struct{}

// TracedKey is the key under which a call's context has its [Traced], while a handler has it.
var TracedKey any = tracedKey{}

// TraceOf is the trace of Stile's in which the handler is whose context ctx is, or was made of, as hexadecimal digits; empty: there is none.
func TraceOf(ctx context.Context) string {
	if of, ok := ctx.Value(TracedKey).(Traced); ok {
		return HexTrace(of.TraceID())
	}
	return ""
}

// HexTrace is a trace's ID as hexadecimal digits; that of none is empty.
func HexTrace(id [16]byte) string {
	if id == [16]byte{} {
		return ""
	}
	return hex.EncodeToString(id[:])
}
