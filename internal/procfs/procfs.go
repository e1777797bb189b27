// Package procfs reads what Linux tells of processes in /proc.
package procfs

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Tick is the unit of times in /proc: USER_HZ, 100 on every Linux that Go runs on.
const Tick = 10 * time.Millisecond

// Stat is what /proc/PID/stat says.
type Stat struct {
	Name string // of the program, as the kernel has it: 15 bytes at most

	fields [][]byte // from the third of proc_pid_stat(5) on
}

// Fields of Stat, by their numbers in proc_pid_stat(5).
const (
	UserTime   = 14
	SystemTime = 15
	StartTime  = 22 // after the host was booted
)

// ParseStat reads /proc/PID/stat. The name, in brackets, may itself hold blanks and brackets.
func ParseStat(text []byte) (Stat, error) {
	begin, end := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if begin < 0 || end < begin {
		return Stat{}, fmt.Errorf("no name in brackets: %.40q", text)
	}
	return Stat{string(text[begin+1 : end]), bytes.Fields(text[end+1:])}, nil
}

// Ticks is a field that is a time, in units of Tick.
func (s *Stat) Ticks(field int) (int64, error) {
	const first = 3
	if len(s.fields) <= field-first {
		return 0, fmt.Errorf("%d fields after the name", len(s.fields))
	}
	return strconv.ParseInt(string(s.fields[field-first]), 10, 64)
}

// ParseSwitches reads how often a thread has switched from /proc/PID/task/TID/status.
func ParseSwitches(status []byte) (voluntary, involuntary uint64, err error) {
	counts := map[string]*uint64{"voluntary_ctxt_switches": &voluntary, "nonvoluntary_ctxt_switches": &involuntary}
	for line := range bytes.Lines(status) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		to := counts[string(name)]
		if to == nil {
			continue
		}
		if *to, err = strconv.ParseUint(string(bytes.TrimSpace(value)), 10, 63); err != nil {
			return 0, 0, err
		}
		delete(counts, string(name))
	}
	if len(counts) > 0 {
		return 0, 0, fmt.Errorf("%d counts of context switches are not there", len(counts))
	}
	return voluntary, involuntary, nil
}

// ParseOwnPID reads from /proc/PID/status which number a process has in its own PID namespace.
func ParseOwnPID(status []byte) (int, error) {
	for line := range bytes.Lines(status) {
		if numbers, is := bytes.CutPrefix(line, []byte("NSpid:")); is {
			if all := bytes.Fields(numbers); len(all) > 0 {
				return strconv.Atoi(string(all[len(all)-1]))
			}
		}
	}
	return 0, fmt.Errorf("no NSpid: Linux has it since 4.1")
}

// Program is what a program is called: as the kernel has it, or by the file that it runs, if the former is the beginning of that.
func Program(name, exe string) string {
	if base := filepath.Base(exe); strings.HasPrefix(base, name) {
		name = base
	}
	return strings.ToValidUTF8(name, "?")
}
