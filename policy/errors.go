package policy

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Domain is that of the google.rpc.ErrorInfo in errors that a policy makes.
const Domain = "stile"

// Reasons of the google.rpc.ErrorInfo in errors that a policy makes.
const (
	ReasonBreakerOpen      = "BREAKER_OPEN"      // not sent
	ReasonLimitReached     = "LIMIT_REACHED"     // not sent
	ReasonOverloaded       = "OVERLOADED"        // sent, and not begun by the server
	ReasonRetriesExhausted = "RETRIES_EXHAUSTED" // tried again in vain, or beyond the budget; callers above must not
)

// Class is what may be done about an error.
type Class uint8

// What may be done about an error of which the file does not say that it is to be retried.
const (
	Never    Class = iota // the answer of a server that works: it goes to the caller
	FallBack              // an older answer may stand in; the server, or the way to it, is at fault
)

// ClassOf returns the class of a code. Which codes are retried the file says, in
// retryableStatusCodes.
func ClassOf(c codes.Code) Class {
	switch c {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Internal, codes.Unknown, codes.DataLoss, codes.ResourceExhausted:
		return FallBack
	}
	return Never
}

// outages are the codes of class FallBack.
func outages() []Code {
	var list []Code
	for c := range codes.Unauthenticated + 1 {
		if ClassOf(c) == FallBack {
			list = append(list, Code(c))
		}
	}
	return list
}

// fails tells whether an outcome speaks against the server: what a breaker counts. A server that sheds
// load works.
func fails(c codes.Code) bool { return ClassOf(c) == FallBack && c != codes.ResourceExhausted }

// refusal is the error of a call that was not made.
func refusal(code codes.Code, reason, text string, after time.Duration) error {
	st := status.New(code, "policy: "+text)
	info := &errdetails.ErrorInfo{Reason: reason, Domain: Domain}
	if full, err := st.WithDetails(info, &errdetails.RetryInfo{RetryDelay: durationpb.New(after)}); err == nil {
		st = full
	}
	return st.Err()
}

// exhausted is err with the word that trying again above is in vain.
func exhausted(err error, attempts int) error {
	st, ok := status.FromError(err)
	if !ok || hasReason(st, ReasonRetriesExhausted) {
		return err
	}
	full, derr := st.WithDetails(&errdetails.ErrorInfo{
		Reason: ReasonRetriesExhausted, Domain: Domain, Metadata: map[string]string{"attempts": strconv.Itoa(attempts)},
	})
	if derr != nil {
		return err
	}
	return full.Err()
}

// reasonOf returns the reason that a policy, here or at a server, gave for an error.
func reasonOf(st *status.Status) string {
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == Domain {
			return info.GetReason()
		}
	}
	return ""
}

// hasReason tells whether a policy gave this reason for an error.
func hasReason(st *status.Status, reason string) bool {
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == Domain && info.GetReason() == reason {
			return true
		}
	}
	return false
}

// delayOf returns the wait that an error asks for in a google.rpc.RetryInfo.
func delayOf(st *status.Status) (time.Duration, bool) {
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok && info.GetRetryDelay().IsValid() {
			return max(info.GetRetryDelay().AsDuration(), 0), true
		}
	}
	return 0, false
}

// contextStatus is the error of a call whose context has ended.
func contextStatus(err error) error { return status.FromContextError(err).Err() }

func (r *route) breakerOpen(now time.Duration) error {
	after := r.breaker.RetryAfter(now)
	return refusal(codes.Unavailable, ReasonBreakerOpen, fmt.Sprintf("the breaker of %s is open, calls are tried again in %v", r.Method, after.Round(time.Millisecond)), after)
}

func (r *route) limitReached(verdict string) error {
	l := r.Config.Stile.Limit
	return refusal(codes.ResourceExhausted, ReasonLimitReached,
		fmt.Sprintf("the limit of %s is reached (maxRequests %d, maxPendingRequests %d): %s", r.Method, l.MaxRequests, l.MaxPendingRequests, verdict), 0)
}

// ended returns the error of ctx as a status, nil if it goes on.
func ended(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return contextStatus(err)
	}
	return nil
}
