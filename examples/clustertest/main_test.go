package clustertest

import (
	"fmt"
	"os"
	"strconv"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if text := os.Getenv("CLUSTER_TEST_SERVER"); text != "" { // a process that may be killed
		if err := serve(text); err != nil {
			fmt.Fprintln(os.Stderr, "clustertest: a server:", err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// count is how often something is done: as the environment says, else many times, or few in short tests.
func count(name string, many, few int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	if testing.Short() {
		return few
	}
	return many
}
