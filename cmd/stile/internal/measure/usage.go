// Package measure counts durations, and what processes use.
package measure

import "time"

// Usage is what processes have used since they started.
type Usage struct {
	CPU      time.Duration // user and system, in steps of 10 ms a process
	Switches int64         // voluntary and involuntary, of the threads that still run
}

// Since returns what was used from before to u.
func (u Usage) Since(before Usage) Usage {
	return Usage{u.CPU - before.CPU, u.Switches - before.Switches}
}
