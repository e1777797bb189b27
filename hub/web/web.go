// Package web serves the hub's dashboard, if it was built into the program.
package web

import (
	"embed"
	"io/fs"
	"net/http"
	"strings"
)

// dist is what make web builds; without it there is only the file that keeps the folder.
//
//go:embed all:dist
var dist embed.FS

//go:embed plain.html
var plain []byte

// pages are the paths that the dashboard has pages for, and those that they begin with.
var pages = map[string]bool{"": true, "map": true, "routes": true, "route": true, "traces": true, "trace": true, "findings": true, "budget": true, "processes": true, "policies": true, "events": true, "status": true}

const (
	// policy lets a page load what comes with it, and nothing else.
	policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; worker-src 'self'; " +
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types svelte-trusted-html stile-worker"
	// plainPolicy is that of the page that says what is missing, which has its style in itself.
	plainPolicy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

// Handler serves the dashboard, or a page that says how to get it.
func Handler() http.Handler {
	files, err := fs.Sub(dist, "dist")
	if err != nil {
		panic(err) // the name is no path
	}
	return handler(files)
}

// Built tells whether the program has the dashboard.
func Built() bool {
	_, err := fs.Stat(dist, "dist/index.html")
	return err == nil
}

func handler(files fs.FS) http.Handler {
	index, err := fs.ReadFile(files, "index.html")
	csp := policy
	if err != nil {
		index, csp = plain, plainPolicy
	}
	assets := http.FileServerFS(files)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", csp)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		first, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		switch {
		case pages[first]:
			h.Set("Content-Type", "text/html; charset=utf-8")
			h.Set("Cache-Control", "no-store")
			_, _ = w.Write(index)
		case asset(files, first, rest):
			h.Set("Cache-Control", "public, max-age=31536000, immutable") // their names have their hash
			assets.ServeHTTP(w, r)
		default:
			http.NotFound(w, r)
		}
	})
}

// asset tells whether a path is that of a file that the page loads.
func asset(files fs.FS, first, rest string) bool {
	if first != "assets" || rest == "" {
		return false
	}
	info, err := fs.Stat(files, first+"/"+rest)
	return err == nil && info.Mode().IsRegular()
}
