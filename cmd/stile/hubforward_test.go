package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestForwardFlags: headers are read from a file that nobody else may read, or from the environment; what is wrong is told without what it says.
func TestForwardFlags(t *testing.T) {
	dir := t.TempDir()
	file := func(mode os.FileMode, text string) string {
		path := filepath.Join(dir, fmt.Sprint(len(text), mode))
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct {
		flags forwardFlags
		env   string
		want  string
		wrong string
	}{
		{forwardFlags{}, "", "nil", ""},
		{forwardFlags{url: "http://x"}, "", "map[]", ""},
		{forwardFlags{url: "http://x"}, "Authorization=Bearer%20secret, x-tenant = a=b", "map[authorization:Bearer secret x-tenant:a=b]", ""},
		{forwardFlags{url: "http://x", headers: file(0o600, "# one\n\nauthorization=Bearer secret\n")}, "x=y", "map[authorization:Bearer secret]", ""},
		{forwardFlags{url: "http://x", headers: file(0o644, "authorization=Bearer secret\n")}, "", "", "chmod 600"},
		{forwardFlags{url: "http://x", headers: file(0o600, "secret")}, "", "", "name=value"},
		{forwardFlags{url: "http://x"}, "authorization: secret", "", "name=value"},
		{forwardFlags{url: "http://x"}, "a=secret%0d%0ab", "", "name=value"},
		{forwardFlags{url: "http://x", ca: file(0o600, "nothing")}, "", "", "no certificate"},
		{forwardFlags{headers: "x"}, "", "", "go with --forward"},
	} {
		t.Setenv(forwardHeaders, c.env)
		f, err := c.flags.forward()
		got := "nil"
		if f != nil {
			got = fmt.Sprint(f.Headers)
		}
		if c.wrong == "" && (err != nil || got != c.want) || c.wrong != "" && (err == nil || !strings.Contains(err.Error(), c.wrong) || strings.Contains(err.Error(), "secret")) {
			t.Errorf("%+v %q: %s, %v", c.flags, c.env, got, err)
		}
	}
}
