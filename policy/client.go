package policy

import "google.golang.org/grpc"

// UnaryClientInterceptor makes the unary calls of a connection obey p. Put it last, so that
// the interceptors before it see each call once, however often it is tried. One interceptor may serve
// several connections. On a connection whose service config has retries too, leave them to p: use
// [grpc.WithDisableRetry].
func UnaryClientInterceptor(p *Policy) grpc.UnaryClientInterceptor { return (&side{p: p}).unary }

// StreamClientInterceptor makes the streams of a connection obey p. A stream is tried again until its first
// message has been received; until then what was sent is kept, up to 256 KiB. Streams are not
// hedged, and nothing of them is cached.
func StreamClientInterceptor(p *Policy) grpc.StreamClientInterceptor { return (&side{p: p}).stream }

// ReportingUnaryClientInterceptor is [UnaryClientInterceptor] for a connection that tells of its
// attempts itself, which Stile's do.
func ReportingUnaryClientInterceptor(p *Policy) grpc.UnaryClientInterceptor {
	return (&side{p: p, reports: true}).unary
}
