package clustertest

import (
	"fmt"
	"os"
	"strconv"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	for name, run := range map[string]func(spec string) error{"CLUSTER_TEST_SERVER": serve, "CLUSTER_TEST_MEMBER": handle, "CLUSTER_TEST_MOVER": move} {
		if spec := os.Getenv(name); spec != "" { // a process that may be killed
			if err := run(spec); err != nil {
				fmt.Fprintf(os.Stderr, "clustertest: %s: %v\n", name, err)
				os.Exit(1)
			}
			return
		}
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
