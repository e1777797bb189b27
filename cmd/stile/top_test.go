package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestTopExitCodes(t *testing.T) {
	older := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/map") && r.URL.Query().Get("from") != "1m0s" {
			t.Errorf("asked for %s", r.URL)
		}
		_, _ = w.Write([]byte(`{"version": 77, "processes": []}`))
	}))
	defer older.Close()
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"top a b", exitUsage, "no more than one URL"},
		{"top nowhere", exitUsage, "is no URL"},
		{"top http://", exitUsage, "is no URL"},
		{"top http://localhost:1?from=1h", exitUsage, "give --window"},
		{"top --every 1ms", exitUsage, "has to be 1s or more"},
		{"top --window 1s", exitUsage, "10s or more"},
		{"top --dir /nonexistent", exitFailure, "start it with stile hub"},
		{"top http://127.0.0.1:1", exitFailure, "see that a hub runs there"},
		{"top --window 1m " + older.URL, exitFailure, "one of both is older"},
	} {
		var stdout, stderr bytes.Buffer
		if code := run(strings.Fields(c.args), &stdout, &stderr); code != c.code || !strings.Contains(stderr.String(), c.says) || stdout.Len() > 0 {
			t.Errorf("stile %s: exit %d, %q, %q; want %d, %q", c.args, code, stdout.String(), stderr.String(), c.code, c.says)
		}
	}
}
