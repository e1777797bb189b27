package stile

import (
	"context"
	"net/url"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/resolver"
)

// settleServer decides between what was read from a server and what its twins
// say: the twins count only where the layout is unknown and they say it all.
func settleServer(read, explicit serverSettings, onlyTwins bool) serverSettings {
	if read.layoutUnknown && onlyTwins {
		return explicit
	}
	return read
}

// settleClient decides as settleServer does, and drops the reason that own
// overrides. cc tells the authority where it could not be read.
func settleClient(cc *grpc.ClientConn, read, explicit clientSettings, own ownDialOptions, onlyTwins bool) clientSettings {
	s := read
	if read.layoutUnknown && onlyTwins {
		s = explicit
		if s.authority == "" {
			s.authority = targetAuthority(cc.CanonicalTarget(), s.resolvers)
		}
	}
	if own.pastDialer {
		s.shut = slices.DeleteFunc(slices.Clone(s.shut), func(why string) bool { return why == shutDialer })
	}
	return s
}

// chainUnary runs next inside first, which may be nil.
func chainUnary(first, next grpc.UnaryServerInterceptor) grpc.UnaryServerInterceptor {
	if first == nil || next == nil {
		if first == nil {
			return next
		}
		return first
	}
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		return first(ctx, req, info, func(ctx context.Context, req any) (any, error) {
			return next(ctx, req, info, handler)
		})
	}
}

// chainStream runs next inside first, which may be nil.
func chainStream(first, next grpc.StreamServerInterceptor) grpc.StreamServerInterceptor {
	if first == nil || next == nil {
		if first == nil {
			return next
		}
		return first
	}
	return func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		return first(srv, ss, info, func(srv any, ss grpc.ServerStream) error {
			return next(srv, ss, info, handler)
		})
	}
}

// targetAuthority mirrors initAuthority of grpc-go's clientconn.go for a
// canonical target.
func targetAuthority(target string, resolvers []resolver.Builder) string {
	u, err := url.Parse(target)
	if err != nil {
		return ""
	}
	parsed := resolver.Target{URL: *u}
	builder := resolver.Get(u.Scheme)
	for _, r := range resolvers {
		if r.Scheme() == u.Scheme {
			builder = r
			break
		}
	}
	if o, ok := builder.(resolver.AuthorityOverrider); ok {
		return o.OverrideAuthority(parsed)
	}
	endpoint := parsed.Endpoint()
	if strings.HasPrefix(endpoint, ":") {
		endpoint = "localhost" + endpoint
	}
	return escapeAuthority(endpoint)
}

// escapeAuthority escapes all but what RFC 3986, section 3.2, allows in an
// authority.
func escapeAuthority(s string) string {
	const allowed = "-_.~!$&'()*+,;=:[]@"
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte(allowed, c) >= 0 {
			b.WriteByte(c)
			continue
		}
		const hex = "0123456789ABCDEF"
		b.Write([]byte{'%', hex[c>>4], hex[c&15]})
	}
	return b.String()
}
