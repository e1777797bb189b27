package hub

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// tick is the unit of times in /proc, on all that Go runs on.
const tick = 10 * time.Millisecond

// programOf is the program that a process runs which began before a moment: its executable's name, or of that what the kernel tells anybody, 15 bytes. Empty: it has ended, cannot be seen, or
// another one has its number now.
func programOf(pid int64, until time.Time) string {
	dir := "/proc/" + strconv.FormatInt(pid, 10)
	text, err := os.ReadFile(dir + "/stat")
	begin, end := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if err != nil || begin < 0 || end < begin {
		return ""
	}
	var up unix.Timespec
	fields := strings.Fields(string(text[end+1:])) // from the third of proc_pid_stat(5) on
	const starttime = 22 - 3
	if len(fields) <= starttime || unix.ClockGettime(unix.CLOCK_BOOTTIME, &up) != nil {
		return ""
	}
	ticks, err := strconv.ParseInt(fields[starttime], 10, 64)
	if err != nil || time.Now().Add(time.Duration(ticks)*tick-time.Duration(up.Nano())).After(until) {
		return ""
	}
	name := string(text[begin+1 : end])
	if exe, err := os.Readlink(dir + "/exe"); err == nil {
		if base := strings.TrimSuffix(filepath.Base(exe), " (deleted)"); strings.HasPrefix(base, name) {
			name = base
		}
	}
	return strings.ToValidUTF8(name, "?")
}
