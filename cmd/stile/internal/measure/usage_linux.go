package measure

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/stile-ipc/stile/internal/procfs"
)

// UsageOf adds up what the processes with these ids have used.
func UsageOf(pids []int) (Usage, error) {
	var sum Usage
	for _, pid := range pids {
		cpu, err := cpuOf(pid)
		if err != nil {
			return Usage{}, err
		}
		switches, err := switchesOf(pid)
		if err != nil {
			return Usage{}, err
		}
		sum.CPU += cpu
		sum.Switches += switches
	}
	return sum, nil
}

func cpuOf(pid int) (time.Duration, error) {
	path := fmt.Sprintf("/proc/%d/stat", pid)
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	ticks, err := parseStat(text)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return time.Duration(ticks) * procfs.Tick, nil
}

// parseStat returns the sum of utime and stime.
func parseStat(text []byte) (int64, error) {
	stat, err := procfs.ParseStat(text)
	if err != nil {
		return 0, err
	}
	user, err := stat.Ticks(procfs.UserTime)
	if err != nil {
		return 0, err
	}
	system, err := stat.Ticks(procfs.SystemTime)
	return user + system, err
}

func switchesOf(pid int) (int64, error) {
	folder := fmt.Sprintf("/proc/%d/task", pid)
	threads, err := os.ReadDir(folder)
	if err != nil {
		return 0, err
	}
	var sum int64
	for _, thread := range threads {
		path := filepath.Join(folder, thread.Name(), "status")
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // the thread has ended meanwhile
		}
		if err != nil {
			return 0, err
		}
		voluntary, involuntary, err := procfs.ParseSwitches(text)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", path, err)
		}
		sum += int64(voluntary + involuntary)
	}
	return sum, nil
}
