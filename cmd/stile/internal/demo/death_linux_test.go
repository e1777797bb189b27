package demo

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestChildrenDieWithParent kills a process in which a demo runs, without warning.
func TestChildrenDieWithParent(t *testing.T) {
	cfg, _ := fakeDemo(t)
	temp := os.Getenv("TMPDIR")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	parent := exec.Command(self)
	parent.Env = append(os.Environ(), runsDemo+"="+cfg.Shop)
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	watchdog := time.After(time.Minute)
	await := func(what string, want int) {
		t.Helper()
		for running(t, cfg.Shop) != want {
			select {
			case <-poll.C:
			case <-watchdog:
				t.Fatalf("%s: %d programs run, want %d", what, running(t, cfg.Shop), want)
			}
		}
	}
	await("after the start", len(programs))
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait()
	await("after the death", 0)
	left, err := filepath.Glob(filepath.Join(temp, "stile-demo-*"))
	if err != nil || len(left) != 1 {
		t.Errorf("%q %v", left, err)
	}
	for _, folder := range left { // nobody could
		if err := os.RemoveAll(folder); err != nil {
			t.Error(err)
		}
	}
}

// running counts the processes that were started from folder.
func running(t *testing.T, folder string) int {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, file := range files {
		if text, err := os.ReadFile(file); err == nil && bytes.HasPrefix(text, []byte(folder+"/")) {
			n++
		}
	}
	return n
}
