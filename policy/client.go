package policy

import (
	"math"

	"google.golang.org/grpc"
)

// UnaryClientInterceptor makes the unary calls of a connection obey p. Put it last, so that
// the interceptors before it see each call once, however often it is tried. One interceptor may serve
// several connections. On a connection whose service config has retries too, leave them to p: use
// [grpc.WithDisableRetry].
func UnaryClientInterceptor(p *Policy) grpc.UnaryClientInterceptor {
	return (&side{p: orDefault(p)}).unary
}

// StreamClientInterceptor makes the streams of a connection obey p. A stream is tried again until its first
// message has been received; until then what was sent is kept, up to 256 KiB. Streams are not
// hedged, and nothing of them is cached.
func StreamClientInterceptor(p *Policy) grpc.StreamClientInterceptor {
	return (&side{p: orDefault(p), counts: true}).stream
}

// UnaryClientInterceptorOver is [UnaryClientInterceptor] followed by another interceptor, at the cost of
// one. It is for Stile's, which tells the chain of attempts by itself.
func UnaryClientInterceptorOver(p *Policy, below grpc.UnaryClientInterceptor) grpc.UnaryClientInterceptor {
	return (&side{p: orDefault(p), below: below, counts: true}).unary
}

// orDefault returns p, or what has nothing but deadlines.
func orDefault(p *Policy) *Policy {
	if p == nil {
		return New(nil)
	}
	return p
}

// options returns opts with what the file says of readiness and sizes, as gRPC combines them: the
// caller's word on waiting holds, and of sizes the smaller.
func (r *route) options(opts []grpc.CallOption) []grpc.CallOption {
	if !r.ready && r.maxSend == nil && r.maxRecv == nil {
		return opts
	}
	all := make([]grpc.CallOption, 0, len(opts)+3)
	if r.ready {
		all = append(all, grpc.WaitForReady(true))
	}
	all = append(all, opts...)
	send, recv := math.MaxInt, math.MaxInt
	for _, o := range opts {
		switch o := o.(type) {
		case grpc.MaxSendMsgSizeCallOption:
			send = o.MaxSendMsgSize
		case grpc.MaxRecvMsgSizeCallOption:
			recv = o.MaxRecvMsgSize
		}
	}
	if r.maxSend != nil && *r.maxSend < int64(send) {
		all = append(all, grpc.MaxCallSendMsgSize(int(*r.maxSend)))
	}
	if r.maxRecv != nil && *r.maxRecv < int64(recv) {
		all = append(all, grpc.MaxCallRecvMsgSize(int(*r.maxRecv)))
	}
	return all
}
