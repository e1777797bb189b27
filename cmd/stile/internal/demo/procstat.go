package demo

import "time"

// usage is what processes have used since they started.
type usage struct {
	cpu      time.Duration // user and system, in steps of 10 ms a process
	switches int64         // voluntary and involuntary, of the threads that still run
}

func (u usage) since(before usage) usage {
	return usage{u.cpu - before.cpu, u.switches - before.switches}
}
