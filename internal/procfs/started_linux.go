package procfs

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Started is when a process began, by the wall clock now, to 10 ms; too early, never too late, if this thread is taken off meanwhile.
func (s *Stat) Started() (time.Time, error) {
	ticks, err := s.Ticks(StartTime)
	if err != nil {
		return time.Time{}, err
	}
	now := time.Now() // before the other clock is read
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &up); err != nil {
		return time.Time{}, os.NewSyscallError("clock_gettime", err)
	}
	return now.Add(time.Duration(ticks)*Tick - time.Duration(up.Nano())).UTC(), nil
}
