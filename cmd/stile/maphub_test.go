package main

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stile-ipc/stile/routemap"
)

// saysAlways is a server that answers all that is asked so.
func saysAlways(t *testing.T, code int, body string) (url string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		fmt.Fprint(w, body)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// TestNoHub: what is no hub's answer is an error that says where to look, and not a hub with nothing in it; what a hub does not understand is a mistake in the command line.
func TestNoHub(t *testing.T) {
	commands := []string{"map %s", "map diff %s %s", "map burn %s", "map host %s", "top --once %s", "hub status %s", "hub events %s", "hub processes %s", "hub policies %s", "hub queues %s"}
	for _, c := range []struct {
		code int
		body string
		want int
		says string
	}{
		{200, `{}`, exitFailure, "no answer of a hub's API"}, {200, `null`, exitFailure, "no answer of a hub's API"}, {200, `{"version": 99}`, exitFailure, ""}, {200, "<!DOCTYPE html>", exitFailure, "with nothing behind it"},
		{404, "404 page not found", exitFailure, "see that this is the address of a hub's API"}, {400, `{"error": "to is before from"}`, exitUsage, "to is before from"}, {500, `{"error": "the disk is gone"}`, exitFailure, "the disk is gone"},
	} {
		url := saysAlways(t, c.code, c.body)
		for _, command := range commands {
			args := strings.Fields(strings.ReplaceAll(command, "%s", url))
			var stdout, stderr bytes.Buffer
			if code := run(args, &stdout, &stderr); code != c.want || !strings.Contains(stderr.String(), c.says) || strings.Contains(stderr.String(), "?:") || stdout.Len() > 0 {
				t.Errorf("%s of %d %s: exit %d, %q, %q; want %d, %q", command, c.code, c.body, code, stdout.String(), stderr.String(), c.want, c.says)
			}
		}
	}
}

// TestHubMapHalf: a map whose route has no numbers is refused, and so is a budget that has none.
func TestHubMapHalf(t *testing.T) {
	url := saysAlways(t, 200, fmt.Sprintf(`{"version": %d, "routes": [{"from": {"kind": "service", "name": "a"}}]}`, routemap.ReportVersion))
	for command, says := range map[string]string{"map": "has no numbers", "map burn": "a route has no times"} {
		var stdout, stderr bytes.Buffer
		if code := run(append(strings.Fields(command), url), &stdout, &stderr); code != exitFailure || !strings.Contains(stderr.String(), says) {
			t.Errorf("%s: exit %d, %q; want %q", command, code, stderr.String(), says)
		}
	}
}

// TestDamagedTold: a window that a hub cannot read is told of wherever its absence makes numbers smaller.
func TestDamagedTold(t *testing.T) {
	url := saysAlways(t, 200, fmt.Sprintf(`{"version": %d, "routes": [], "processes": [], "damaged": 3}`, routemap.ReportVersion))
	for _, command := range []string{"map %s", "map diff %s %s", "map burn %s", "map host %s"} {
		var stdout, stderr bytes.Buffer
		if code := run(strings.Fields(strings.ReplaceAll(command, "%s", url)), &stdout, &stderr); code != exitOK || !strings.Contains(stdout.String(), "windows that are damaged: 3") {
			t.Errorf("%s: exit %d, %q, %q", command, code, stdout.String(), stderr.String())
		}
	}
}

// TestBurnTarget: a target is in percent, and a share that is given for it is not taken for one of less than a percent.
func TestBurnTarget(t *testing.T) {
	for _, target := range []string{"0.999", "1", "100", "0", "-1"} {
		var stdout, stderr bytes.Buffer
		if code := run([]string{"map", "burn", "http://127.0.0.1:1", "--target", target}, &stdout, &stderr); code != exitUsage || !strings.Contains(stderr.String(), "in percent") {
			t.Errorf("%s: exit %d, %q", target, code, stderr.String())
		}
	}
}

// TestHubWithoutScheme: an address without http:// is told from a file that is not there.
func TestHubWithoutScheme(t *testing.T) {
	for arg, says := range map[string]string{"localhost:4319": "begins with http://", "nothing.json": "no such file"} {
		var stdout, stderr bytes.Buffer
		if code := run([]string{"map", arg}, &stdout, &stderr); code == exitOK || !strings.Contains(stderr.String(), says) {
			t.Errorf("%s: exit %d, %q", arg, code, stderr.String())
		}
	}
	if !isURL("HTTP://localhost:4319") || isURL("httpx://a") || isURL("http:/a") {
		t.Error("what is a URL")
	}
}
