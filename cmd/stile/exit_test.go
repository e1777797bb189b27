package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestEveryCommandHasExample walks all commands but cobra's own.
func TestEveryCommandHasExample(t *testing.T) {
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Example == "" || cmd.Short == "" {
			t.Errorf("%q has no example or no short description", cmd.CommandPath())
		}
		if cmd.HasParent() && !cmd.HasSubCommands() && cmd.Flags().Lookup("json") == nil {
			t.Errorf("%q prints data and has no --json", cmd.CommandPath())
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(newRoot(new(bool)))
}

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"", exitOK, ""},
		{"help doctor", exitOK, ""},
		{"nonsense", exitUsage, `unknown command "nonsense"`},
		{"--nonsense", exitUsage, "unknown flag"},
		{"version now", exitUsage, `stile version --help`},
		{"hub --otlp-grpc off --otlp-http off --http off", exitUsage, "would listen nowhere"},
		{"hub --dir=", exitUsage, "names no folder"},
		{"hub status --dir=", exitUsage, "names no folder"},
		{"map --html --json traces.json", exitUsage, "different forms: give one"},
		{"demo --duration 1ms", exitUsage, "must be 1s or more"},
		{"demo --duration x", exitUsage, "invalid argument"},
		{"demo --rate -1", exitUsage, "from 0 to"},
		{"demo --rate NaN", exitUsage, "from 0 to"},
		{"demo --network ipx", exitUsage, "unix or tcp"},
		{"demo --shop /nonexistent", exitFailure, "make demo"},
		{"doctor a b", exitUsage, "one TARGET at a time"},
		{"doctor a --timeout 0s", exitUsage, "more than 0"},
		{"doctor a --allow-uid -1", exitUsage, "not negative"},
	} {
		var stdout, stderr bytes.Buffer
		code := run(strings.Fields(c.args), &stdout, &stderr)
		if code != c.code || !strings.Contains(stderr.String(), c.says) {
			t.Errorf("stile %s: exit %d, %q; want %d, %q", c.args, code, stderr.String(), c.code, c.says)
		}
		if text := fmt.Sprint(stdout.String(), stderr.String()); strings.Contains(text, "\x1b") || strings.Contains(text, "stile: stile:") {
			t.Errorf("stile %s prints %q", c.args, text)
		}
	}
}
