package web

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"
)

func ask(h http.Handler, method, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, "http://localhost"+path, nil))
	return w
}

// TestPaths: pages have one document, what it loads comes with its type, and nothing else is there.
func TestPaths(t *testing.T) {
	h := handler(fstest.MapFS{
		"index.html":       {Data: []byte("<title>built</title>")},
		".keep":            {},
		"secret":           {Data: []byte("x")},
		"assets/app-1.js":  {Data: []byte("export {}")},
		"assets/app-1.css": {Data: []byte("a{}")},
	})
	for _, path := range []string{"/", "/map", "/routes", "/route/0123456789abcdef", "/trace/00", "/traces", "/findings", "/budget", "/processes", "/events", "/status"} {
		w := ask(h, http.MethodGet, path+"?from=1h")
		if w.Code != http.StatusOK || w.Body.String() != "<title>built</title>" || w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %q", path, w.Code, w.Body)
		}
		csp := w.Header().Get("Content-Security-Policy")
		if !strings.Contains(csp, "script-src 'self'") || strings.Contains(csp, "unsafe") || w.Header().Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %v", path, w.Header())
		}
	}
	for path, kind := range map[string]string{"/assets/app-1.js": "text/javascript", "/assets/app-1.css": "text/css"} {
		if w := ask(h, http.MethodGet, path); w.Code != http.StatusOK || !strings.HasPrefix(w.Header().Get("Content-Type"), kind) || !strings.Contains(w.Header().Get("Cache-Control"), "immutable") {
			t.Errorf("%s: %d %v", path, w.Code, w.Header())
		}
	}
	for _, path := range []string{"/.keep", "/secret", "/assets", "/assets/", "/assets/none.js", "/assets/../secret", "/index.html", "/api/v1/none", "/wp-login.php"} {
		if w := ask(h, http.MethodGet, path); w.Code != http.StatusNotFound {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
}

// TestNotBuilt: a program without the dashboard says so, and how to get it.
func TestNotBuilt(t *testing.T) {
	h := handler(fstest.MapFS{".keep": {}})
	for _, path := range []string{"/", "/routes"} {
		w := ask(h, http.MethodGet, path)
		if body := w.Body.String(); w.Code != http.StatusOK || !strings.Contains(body, "make web") || !strings.Contains(body, "/api/v1/map") {
			t.Errorf("%s: %d %s", path, w.Code, body)
		}
		if strings.Contains(w.Header().Get("Content-Security-Policy"), "script-src") {
			t.Errorf("scripts on a page without any: %v", w.Header())
		}
	}
	if w := ask(h, http.MethodGet, "/assets/app.js"); w.Code != http.StatusNotFound {
		t.Errorf("%d", w.Code)
	}
}

// TestEmbedded: what is embedded is served, built or not.
func TestEmbedded(t *testing.T) {
	if w := ask(Handler(), http.MethodGet, "/"); w.Code != http.StatusOK || strings.Contains(w.Body.String(), "make web") == Built() {
		t.Errorf("built: %v, %d %s", Built(), w.Code, w.Body)
	}
}
