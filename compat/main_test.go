package compat

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if runChild() {
		return
	}
	slog.SetDefault(slog.New(slog.NewTextHandler(&journal, &slog.HandlerOptions{Level: slog.LevelDebug})))
	code := m.Run()
	printSummary()
	if err := goleak.Find(); err != nil {
		fmt.Println("leak:", err)
		code = 1
	}
	os.Exit(code)
}

// journal is the end of what the library logged, for cases that fail.
var journal logTail

// logTail keeps the last lines written to it.
type logTail struct {
	mu    sync.Mutex
	lines [][]byte
}

const tailLines = 200

func (l *logTail) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.lines) == tailLines {
		l.lines = l.lines[1:]
	}
	l.lines = append(l.lines, bytes.Clone(p))
	return len(p), nil
}

// about returns the lines that mention what.
func (l *logTail) about(what string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out bytes.Buffer
	for _, line := range l.lines {
		if bytes.Contains(line, []byte(what)) {
			out.Write(line)
		}
	}
	return out.String()
}

// tally counts a suite's cases: how many there are, how often they ran and
// failed over all doors.
type tally struct{ cases, doors, runs, known, failed int }

var (
	talliesMu sync.Mutex
	tallies   = map[string]*tally{}
)

func count(suite string, f func(*tally)) {
	talliesMu.Lock()
	defer talliesMu.Unlock()
	if tallies[suite] == nil {
		tallies[suite] = &tally{}
	}
	f(tallies[suite])
}

func printSummary() {
	for _, s := range []string{"interop", "grpchan", "differential"} {
		if t := tallies[s]; t != nil {
			fmt.Printf("compat: %s: %d cases x %d doors = %d runs, %d known differences, %d failed\n", s, t.cases, t.doors, t.runs, t.known, t.failed)
		}
	}
}

// underDoor runs f with the process set to the door's transport.
func underDoor(t *testing.T, suite string, d door, f func(t *testing.T)) {
	t.Run(d.name, func(t *testing.T) {
		count(suite, func(c *tally) { c.doors++ })
		t.Setenv("STILE", d.off)
		t.Setenv("STILE_TRANSPORT", d.transport)
		t.Setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "rpc/dup") // the names of metrics of both ages
		dir, err := os.MkdirTemp("", "stile")                // short: it will hold unix sockets
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		t.Setenv("STILE_DIR", dir)
		f(t)
	})
}
