//go:build unix

package bench

import "syscall"

// childAttr puts a server out of the terminal's reach: Ctrl-C comes to this process
// alone, which then ends it.
func childAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
