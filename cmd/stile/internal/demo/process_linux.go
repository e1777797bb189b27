package demo

import "syscall"

// childAttr puts a program out of the terminal's reach, so that Ctrl-C comes to
// this process alone, and has the kernel kill it should this process die.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
