package queue

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// TestDelaysPowerCut cuts the power while messages are delayed, handed over and cancelled: those with a receipt come, once, and none of those that were
// cancelled.
func TestDelaysPowerCut(t *testing.T) {
	p, cuts := newPowered(t), powerCuts()
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
