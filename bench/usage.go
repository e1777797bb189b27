package main

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// usage is what one process has used since it started.
type usage struct {
	CPU      time.Duration `json:"cpu"`      // user and system
	Switches int64         `json:"switches"` // voluntary and involuntary
	Mallocs  uint64        `json:"mallocs"`  // heap objects
	RSS      int64         `json:"rss"`      // KiB, at this moment
}

// readUsage samples this process. At the beginning of a window the CPU time is
// read last and at its end first, so that the sampling itself is left out.
func readUsage(end bool) (usage, error) {
	var u usage
	steps := []func(*usage) error{readMemory, readRusage}
	if end {
		steps[0], steps[1] = steps[1], steps[0]
	}
	for _, step := range steps {
		if err := step(&u); err != nil {
			return usage{}, err
		}
	}
	return u, nil
}

func readRusage(u *usage) error {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return fmt.Errorf("getrusage: %w", err)
	}
	u.CPU = time.Duration(r.Utime.Nano() + r.Stime.Nano())
	u.Switches = r.Nvcsw + r.Nivcsw
	return nil
}

func readMemory(u *usage) error {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	u.Mallocs = m.Mallocs
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	_, rest, _ := bytes.Cut(status, []byte("VmRSS:"))
	if _, err := fmt.Sscanf(string(rest), "%d kB", &u.RSS); err != nil {
		return fmt.Errorf("VmRSS in /proc/self/status: %w", err)
	}
	return nil
}

// userHz is the unit of /proc/stat: 1/100 s on every Linux that Go runs on.
const userHz = 100

// busyTime returns the CPU time that the machine has spent on anything at all
// since it started, time stolen by other virtual machines included.
func busyTime() (time.Duration, error) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(stat), "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return 0, fmt.Errorf("/proc/stat begins with %q", line)
	}
	var ticks int64
	for i, field := range fields[1:9] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/stat: %w", err)
		}
		if i != 3 && i != 4 { // idle, iowait
			ticks += n
		}
	}
	return time.Duration(ticks) * (time.Second / userHz), nil
}
