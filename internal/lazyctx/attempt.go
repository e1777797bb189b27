package lazyctx

import (
	"context"
	"time"

	"github.com/stile-ipc/stile/telemetry"
)

// Attempt is the context of one attempt of a call, made by the policy's chain. Stile's
// channel knows it and reads the deadline as a value; to all others it is a context.
type Attempt struct {
	Core
	// Left is the time to the deadline when the attempt was made, which is now or a moment
	// ago; 0: no deadline.
	Left time.Duration
	// Ways are those that the attempt may take.
	Ways Ways
	// Queued is how long the call waited for its turn before the attempt was made.
	Queued time.Duration
	// Tally is told which way the attempt goes; nil: nobody asks.
	Tally *telemetry.Tally
	// Hedged: another goroutine may call Cancel.
	Hedged bool
	// Private is set by a channel after an attempt whose context nobody else has seen.
	Private bool
	// Report is what the channel says of the attempt when it has failed, before the call
	// returns.
	Report Report
}

// Report tells what may be made of a failed attempt.
type Report struct {
	Known    bool // the channel has filled this in
	Sent     bool // the server may have seen the attempt
	Answered bool // a response header came, so that the attempt counts
	Trailer  map[string][]string
	Trace    [16]byte // in which the attempt was; zero: none of Stile's
}

// NewAttempt returns the context of an attempt that is made now. deadline is not after the
// parent's.
func NewAttempt(parent context.Context, deadline time.Time, left time.Duration) *Attempt {
	a := new(Attempt)
	a.Start(parent, deadline, left)
	return a
}

// Start makes a, which is new, the context of an attempt that is made now.
func (a *Attempt) Start(parent context.Context, deadline time.Time, left time.Duration) {
	a.parent, a.deadline, a.Left = parent, deadline, left
}

// Value implements [context.Context].
func (a *Attempt) Value(key any) any { return a.parent.Value(key) }

var _ context.Context = (*Attempt)(nil)
