//go:build unix && !linux

package demo

import "syscall"

// childAttr puts a program out of the terminal's reach, so that Ctrl-C comes to
// this process alone.
func childAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
