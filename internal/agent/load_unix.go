//go:build unix

package agent

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func (u *usage) rusage() {
	var r syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &r) != nil {
		return
	}
	u.user, u.system = time.Duration(r.Utime.Nano()), time.Duration(r.Stime.Nano())
	u.voluntary, u.involuntary = uint64(r.Nvcsw), uint64(r.Nivcsw)
}

// runQueues are how long this process's threads have been ready to run and did not, where the kernel tells.
func runQueues() map[string]time.Duration {
	all := map[string]time.Duration{}
	files, _ := filepath.Glob("/proc/self/task/*/schedstat")
	for _, f := range files {
		text, err := os.ReadFile(f) // a thread may have ended
		if fields := strings.Fields(string(text)); err == nil && len(fields) >= 2 {
			ns, _ := strconv.ParseInt(fields[1], 10, 64)
			all[f] = time.Duration(ns)
		}
	}
	return all
}
