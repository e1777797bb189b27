//go:build unix

package demo

import (
	"os"
	"syscall"
)

// stopsGracefully reports whether a program that askToEnd was called for ends
// with status 0.
const stopsGracefully = true

func askToEnd(p *os.Process) error { return p.Signal(syscall.SIGTERM) }
