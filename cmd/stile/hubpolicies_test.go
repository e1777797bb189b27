package main

import (
	"strings"
	"testing"
	"time"

	"github.com/stile-ipc/stile/hub"
)

// TestPrintPolicies: versions are told apart, who lags and who refuses is named, and no name can write to the terminal.
func TestPrintPolicies(t *testing.T) {
	newest, old := strings.Repeat("ab", 16), strings.Repeat("cd", 16)
	var b strings.Builder
	err := printPolicies(&b, &hub.Policies{
		Sources: []hub.PolicySource{{Source: "/etc/\x1b[2Jp.yaml", Newest: newest, Processes: 3, Lagging: 1, Refusing: 1, Versions: []hub.PolicyVersion{{ID: newest, Version: "v2"}}}, {Service: "cart", Newest: old, Processes: 1}},
		Policies: []hub.PolicyReport{
			{Source: "/etc/\x1b[2Jp.yaml", Service: "a", PID: 1, ID: old, Version: "v1", Refused: "line 1: \x1b\nline 2: no"},
			{Source: "/etc/\x1b[2Jp.yaml", Service: "b", PID: 2, ID: old, Version: "v1", Lags: 90 * time.Second},
			{Source: "/etc/\x1b[2Jp.yaml", Service: "c", PID: 3, ID: newest, Version: "v2"},
			{Service: "cart", PID: 4, ID: old},
			{Service: "gone", PID: 5, ID: old},
		},
		All: 7,
	})
	if err != nil {
		t.Fatal(err)
	}
	text := b.String()
	for _, want := range []string{"3 in force, 1 lag, 1 refuse", "newest abababab v2", "cdcdcdcd v1", "refuses a version", "lags 1m30s", "(code of cart)", "a 1 refuses what is there now:\n  \"line 1: \\x1b\"\n  line 2: no\n", "not known", "… and 2 more"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing:\n%s", want, text)
		}
	}
	if strings.Contains(text, "\x1b") {
		t.Errorf("%q", text)
	}
	for _, want := range []string{"\"/etc/\\x1b[2Jp.yaml\"  abababab v2  newest", "(code of cart)        cdcdcdcd     newest"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing:\n%s", want, text)
		}
	}
}
