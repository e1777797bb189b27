package shoptest_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stile-ipc/stile/examples/shop/shoptest"
)

// TestCallsAreLocal sees whether the processes share memory: they must with
// Stile, as soon as the servers' local doors are open, and must not without.
func TestCallsAreLocal(t *testing.T) {
	for stile, want := range map[string]int{"on": 4, "off": 0} {
		t.Run(stile, func(t *testing.T) {
			shop := shoptest.Start(t, shoptest.Config{Bin: bin, Data: t.TempDir(), Env: []string{"STILE=" + stile}})
			poll := time.NewTicker(20 * time.Millisecond)
			defer poll.Stop()
			limit := time.After(time.Minute)
			for {
				for path, method := range map[string]string{"/products/sku-0001": "GET", "/products": "GET", "/orders/none": "GET"} {
					var answer any
					ask(t, shop, method, path, "", &answer)
				}
				got := segments(t, shop.Process("gateway").PID())
				if got == want {
					break
				}
				select {
				case <-poll.C:
				case <-limit:
					t.Fatalf("the gateway shares %d segments with its four services, want %d", got, want)
				}
			}
			shop.Stop(t)
		})
	}
}

// segments counts the different memory segments of Stile's that a process maps.
func segments(t *testing.T, pid int) int {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	inodes := map[string]bool{}
	for line := range strings.Lines(string(maps)) {
		if strings.Contains(line, "memfd:stile") {
			inodes[strings.Fields(line)[4]] = true
		}
	}
	return len(inodes)
}
