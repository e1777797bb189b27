package hub

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
)

// OperateHeader is what a request has to have that acts, or reads messages. A form of another page cannot send it, and a script of another page may not.
const OperateHeader = "X-Stile-Operate"

// byWhom is the key of who acts, in a request's context.
type byWhom struct{}

// operator lets requests through of those who may act. Without tokens that is who runs the hub, and root.
func (a access) operator(next http.Handler) http.Handler {
	return a.near(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Security-Policy", "default-src 'none'")
		h.Set("Cache-Control", "no-store")
		if err := a.ownPage(r); err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		who, err := a.who(r)
		switch {
		case errors.Is(err, errToken):
			h.Set("WWW-Authenticate", "Bearer")
			http.Error(w, err.Error(), http.StatusUnauthorized)
		case err != nil:
			http.Error(w, err.Error(), http.StatusForbidden)
		default:
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), byWhom{}, who)))
		}
	}))
}

// ownPage refuses what a page of another origin has a browser send.
func (a access) ownPage(r *http.Request) error {
	if r.Header.Get(OperateHeader) == "" {
		return fmt.Errorf("this takes the header %s, with anything in it", OperateHeader)
	}
	site := r.Header.Get("Sec-Fetch-Site")
	origin := r.Header.Get("Origin")
	if site != "" && site != "same-origin" && site != "none" || origin != "" && !strings.EqualFold(originHost(origin), r.Host) {
		return errors.New("this is not for pages of another origin")
	}
	return nil
}

// who is who asks, if that one may act.
func (a access) who(r *http.Request) (string, error) {
	if len(a.tokens) > 0 {
		t, err := a.token(Operate, r.Header.Get("Authorization"))
		if err == nil {
			return cmp.Or(t.Name, "a token without a name"), nil
		}
		if a.allows(Read, r.Header.Get("Authorization")) == nil {
			return "", fmt.Errorf("this takes a token of the role %s, and yours is for reading", Operate)
		}
		return "", err
	}
	near, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	far, err := net.ResolveTCPAddr("tcp", r.RemoteAddr)
	if err != nil {
		return "", err
	}
	uid, err := uidOf(near, far)
	if err != nil {
		return "", fmt.Errorf("this takes a token of the role %s: %w", Operate, err)
	}
	if uid != 0 && uid != os.Getuid() {
		return "", fmt.Errorf("the hub is of the user %d, and you are %d: this takes a token of the role %s then (stile hub --tokens)", os.Getuid(), uid, Operate)
	}
	return fmt.Sprintf("uid %d", uid), nil
}
