package procfs

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"
)

// TestStarted: a process began after it was begun and before it was looked at, to a tick.
func TestStarted(t *testing.T) {
	before := time.Now()
	cmd := exec.CommandContext(t.Context(), "cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	after := time.Now()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	stat, err := ParseStat(text)
	if err != nil {
		t.Fatal(err)
	}
	// The thread may be taken off between two clocks, for as long as the host likes: the nearest of some looks counts.
	var at time.Time
	for range 20 {
		one, err := stat.Started()
		if err != nil {
			t.Fatal(err)
		}
		if one.After(at) {
			at = one
		}
	}
	if at.Before(before.Add(-2*Tick)) || at.After(after.Add(Tick)) {
		t.Errorf("%v, begun from %v to %v", at, before, after)
	}
	_ = in.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// TestOwnPID: the number that a process has in its own namespace is the last one.
func TestOwnPID(t *testing.T) {
	for text, want := range map[string]int{"Name:\tx\nNSpid:\t41\n": 41, "NSpid:\t812\t7\t1\nNSsid:\t1\n": 1} {
		if got, err := ParseOwnPID([]byte(text)); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "NSpid:\n", "NSpid:\tx\n", "Name:\tNSpid:\t4\n"} {
		if got, err := ParseOwnPID([]byte(text)); err == nil {
			t.Errorf("%q: %d", text, got)
		}
	}
}
