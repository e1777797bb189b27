package queue

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
)

// TestDelaysPowerCut cuts the power while messages are delayed, handed over and cancelled: those with a receipt come, once, and none of those that were
// cancelled.
func TestDelaysPowerCut(t *testing.T) {
	cuts := 3
	if testing.Short() {
		cuts = 1
	}
	if n, err := strconv.Atoi(os.Getenv("QUEUE_CUTS")); err == nil {
		cuts = n
	}
	p := newPowered(t)
	delayRuns(t, filepath.Join(p.mount, "data"), cuts, func(c *exec.Cmd) {
		if err := p.cut(); err != nil {
			t.Error(err)
		}
		_ = c.Process.Kill()
	}, func() {
		p.off(t)
		p.on(t)
	})
}
