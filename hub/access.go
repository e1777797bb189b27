package hub

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"golang.org/x/net/netutil"
)

// Role is what a token is for.
type Role string

// The roles.
const (
	Write   Role = "write"   // to send spans
	Read    Role = "read"    // to ask the API
	Operate Role = "operate" // to act on queues, and to ask the API
)

// Token lets who has it do what its role says.
type Token struct {
	Role   Role
	Secret string
	Name   string // of who has it, for the events of what was done with it; may be empty
}

// is tells whether it is for what a role does.
func (t Token) is(role Role) bool {
	return t.Role == role || t.Role == Operate && role == Read
}

// leastSecret is how long a token's secret is at least, in bytes.
const leastSecret = 16

// access tells who may do what.
type access struct {
	tokens []Token
	tls    bool
}

func (a access) check() error {
	for _, t := range a.tokens {
		if t.Role != Write && t.Role != Read && t.Role != Operate {
			return fmt.Errorf("a token's role is %q: there are %s, %s and %s", t.Role, Write, Read, Operate)
		}
		if len(t.Secret) < leastSecret {
			return fmt.Errorf("a token for %q has %d characters, and needs %d: openssl rand -hex 16 makes one", t.Role, len(t.Secret), leastSecret)
		}
	}
	return nil
}

// reachable refuses an address that others than this host can reach, without what keeps them out.
func (a access) reachable(at net.Addr) error {
	if tcp, ok := at.(*net.TCPAddr); ok && tcp.IP.IsLoopback() {
		return nil
	}
	switch {
	case len(a.tokens) == 0:
		return errors.New("others can reach it: that takes tokens and TLS, or an address of loopback")
	case !a.tls:
		return errors.New("others can reach it, and could read the tokens: that takes TLS, or an address of loopback")
	}
	return nil
}

var errToken = errors.New("this takes a token: authorization: Bearer TOKEN")

// allows tells whether who sends an authorization has a role. What is wrong is not told, nor how much of it.
func (a access) allows(role Role, authorization string) error {
	if len(a.tokens) == 0 {
		return nil
	}
	_, err := a.token(role, authorization)
	return err
}

// token returns the one that who sends an authorization has for a role.
func (a access) token(role Role, authorization string) (with Token, err error) {
	scheme, secret, _ := strings.Cut(authorization, " ")
	given, found := sha256.Sum256([]byte(strings.TrimSpace(secret))), 0
	for _, t := range a.tokens {
		if t.is(role) {
			want := sha256.Sum256([]byte(t.Secret))
			is := subtle.ConstantTimeCompare(given[:], want[:])
			if is == 1 {
				with = t
			}
			found |= is
		}
	}
	if found == 0 || !strings.EqualFold(scheme, "bearer") {
		return Token{}, errToken
	}
	return with, nil
}

// publishes tells whether who has a secret may publish, and all else that NATS's clients do.
func (a access) publishes(secret string) bool {
	_, err := a.token(Write, "Bearer "+secret)
	if err != nil {
		_, err = a.token(Operate, "Bearer "+secret)
	}
	return err == nil
}

// guard lets requests with a role through that may come from where they come.
func (a access) guard(role Role, next http.Handler) http.Handler {
	return a.near(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Security-Policy", "default-src 'none'")
		h.Set("Cache-Control", "no-store")
		if err := a.allows(role, r.Header.Get("Authorization")); err != nil {
			h.Set("WWW-Authenticate", "Bearer")
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	}))
}

// near lets requests through that may come from where they come. Where there are no tokens, a web page that has its name resolve to this host is kept out by
// the name that its requests ask for, and one of another origin by its origin.
func (a access) near(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(a.tokens) == 0 && !(Local(r.Host) && (r.Header.Get("Origin") == "" || Local(originHost(r.Header.Get("Origin"))))) {
			h := w.Header()
			h.Set("Content-Security-Policy", "default-src 'none'")
			h.Set("Cache-Control", "no-store")
			http.Error(w, "without tokens, requests are answered that ask for localhost or an address of loopback", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Local tells whether a host, with a port or not, is this one's loopback.
func Local(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return strings.EqualFold(host, "localhost") || err == nil && ip.IsLoopback()
}

func originHost(origin string) string {
	_, host, _ := strings.Cut(origin, "://")
	return host
}

func limited(l net.Listener) net.Listener { return netutil.LimitListener(l, maxConnections) }
