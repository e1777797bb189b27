package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestNoSuchKind: who asks for a kind that there is none of is told which there are, and no name of them can write to the terminal.
func TestNoSuchKind(t *testing.T) {
	for what, c := range map[string]struct {
		there []string
		want  string
	}{
		"others":  {[]string{"shed", "breaker \x1b[2J", "shed"}, "nothing of the kind \"nosuch\"; there is \"breaker \\x1b[2J\", \"shed\"\n"},
		"nothing": {nil, "nothing, from "},
	} {
		t.Run(what, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				all := []map[string]string{}
				for _, kind := range c.there {
					if k := r.FormValue("kind"); k == "" || k == kind {
						all = append(all, map[string]string{"kind": kind})
					}
				}
				_ = json.NewEncoder(w).Encode(map[string]any{"events": all})
			}))
			defer s.Close()
			var out strings.Builder
			cmd := newHubEvents()
			cmd.SetArgs([]string{s.URL, "--kind", "nosuch"})
			cmd.SetOut(&out)
			if err := cmd.ExecuteContext(t.Context()); err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(out.String(), c.want) {
				t.Errorf("%q, want %q", out.String(), c.want)
			}
		})
	}
}
