//go:build unix

package usage

import (
	"syscall"
	"time"
)

func (p *process) rusage() {
	var r syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &r) != nil {
		return
	}
	p.user, p.system = time.Duration(r.Utime.Nano()), time.Duration(r.Stime.Nano())
	p.voluntary, p.involuntary = uint64(r.Nvcsw), uint64(r.Nivcsw)
}
