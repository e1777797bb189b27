package hostmap

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/stile-ipc/stile/internal/procfs"
)

// ownPID is which number a process has in its own PID namespace, or pid if the kernel does not tell.
func ownPID(dir string, pid int) int {
	status, err := os.ReadFile(dir + "/status")
	if err != nil {
		return pid
	}
	own, err := procfs.ParseOwnPID(status)
	if err != nil {
		return pid
	}
	return own
}

// cgroupOf is a process's group in the unified hierarchy, or the first that it has; empty: it is not told.
func cgroupOf(dir string) string {
	text, err := os.ReadFile(dir + "/cgroup")
	if err != nil {
		return ""
	}
	first := ""
	for line := range strings.Lines(string(text)) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		controllers, group, _ := strings.Cut(rest, ":")
		if controllers == "" {
			return group
		}
		if first == "" {
			first = group
		}
	}
	return first
}

// threadsOf is what the threads of a process have done. What ends meanwhile is left out.
func threadsOf(pid int) (sum Threads) {
	dirs, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid)) // the pattern is good
	for _, dir := range dirs {
		sum.add(dir)
	}
	return sum
}

func (t *Threads) add(dir string) {
	status, err := os.ReadFile(dir + "/status")
	if err != nil {
		return
	}
	voluntary, involuntary, err := procfs.ParseSwitches(status)
	if err != nil {
		return // the kernel does not count
	}
	t.Voluntary, t.Involuntary = t.Voluntary+voluntary, t.Involuntary+involuntary
	schedstat, err := os.ReadFile(dir + "/schedstat") // ns run, ns waited, how often
	if err != nil {
		return // the kernel does not count
	}
	if fields := strings.Fields(string(schedstat)); len(fields) > 1 {
		if ns, err := strconv.ParseUint(fields[1], 10, 63); err == nil {
			t.RunQueue += time.Duration(ns)
		}
	}
}

// since is what was done after was. Of threads that have ended it is not known.
func (t Threads) since(was Threads) Threads {
	less := func(a, b uint64) uint64 { return a - min(a, b) }
	return Threads{less(t.Voluntary, was.Voluntary), less(t.Involuntary, was.Involuntary), max(t.RunQueue-was.RunQueue, 0)}
}
