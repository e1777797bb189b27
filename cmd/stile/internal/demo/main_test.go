package demo

import (
	"context"
	"io"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/stile-ipc/stile/cmd/stile/internal/demo/fakeshop"
)

// runsDemo is set for a copy of this program that runs a demo of the programs in
// the folder that it names.
const runsDemo = "RUNS_DEMO"

// TestMain is also the main of the fake shop's programs: copies of this program
// under their names.
func TestMain(m *testing.M) {
	if fakeshop.Called() {
		fakeshop.Main()
	}
	if folder := os.Getenv(runsDemo); folder != "" {
		_, _ = Run(context.Background(), Config{Shop: folder, Duration: time.Hour, Rate: 1, Network: "unix", Progress: io.Discard})
		os.Exit(1)
	}
	// Else each program takes a second to end under the race detector.
	if err := os.Setenv("GORACE", "atexit_sleep_ms=0"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}
