package hub

import (
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/stile-ipc/stile/internal/procfs"
)

// programOf is the program that a process runs which began before a moment: its executable's name, or of that what the kernel tells anybody, 15 bytes. Empty: it has ended, cannot be seen, or
// another one has its number now.
func programOf(pid int64, until time.Time) string {
	dir := "/proc/" + strconv.FormatInt(pid, 10)
	text, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return ""
	}
	stat, err := procfs.ParseStat(text)
	if err != nil {
		return ""
	}
	if start, err := stat.Started(); err != nil || start.After(until) {
		return ""
	}
	exe, err := os.Readlink(dir + "/exe")
	if err != nil {
		exe = ""
	}
	return procfs.Program(stat.Name, strings.TrimSuffix(exe, " (deleted)"))
}
