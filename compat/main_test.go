package compat

import (
	"fmt"
	"os"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if runChild() {
		return
	}
	code := m.Run()
	printSummary()
	if err := goleak.Find(); err != nil {
		fmt.Println("leak:", err)
		code = 1
	}
	os.Exit(code)
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
		dir, err := os.MkdirTemp("", "stile") // short: it will hold unix sockets
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		t.Setenv("STILE_DIR", dir)
		f(t)
	})
}
