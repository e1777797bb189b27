package measure

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// tick is the unit of CPU time in /proc/PID/stat: USER_HZ, 100 on every Linux
// that Go runs on.
const tick = 10 * time.Millisecond

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
	return time.Duration(ticks) * tick, nil
}

// parseStat returns utime+stime, the 14th and 15th field of proc_pid_stat(5). The
// second one, the command in brackets, may itself hold blanks and brackets.
func parseStat(text []byte) (int64, error) {
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) < 13 {
		return 0, fmt.Errorf("%d fields after the command", len(fields))
	}
	var sum int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(string(f), 10, 64)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
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
		n, err := parseSwitches(text)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", path, err)
		}
		sum += n
	}
	return sum, nil
}

// parseSwitches returns the sum of voluntary_ctxt_switches and
// nonvoluntary_ctxt_switches.
func parseSwitches(text []byte) (int64, error) {
	var sum int64
	found := 0
	for line := range bytes.Lines(text) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		if !bytes.HasSuffix(name, []byte("voluntary_ctxt_switches")) {
			continue
		}
		n, err := strconv.ParseInt(string(bytes.TrimSpace(value)), 10, 64)
		if err != nil {
			return 0, err
		}
		sum += n
		found++
	}
	if found != 2 {
		return 0, fmt.Errorf("%d counts of context switches, want 2", found)
	}
	return sum, nil
}
