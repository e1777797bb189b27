package demo

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/stile-ipc/stile/cmd/stile/internal/demo/fakeshop"
)

// TestMain is also the main of the fake shop's programs: copies of this program
// under their names.
func TestMain(m *testing.M) {
	if fakeshop.Called() {
		fakeshop.Main()
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}
