//go:build !unix

package demo

import (
	"os"
	"syscall"
)

const stopsGracefully = false

func childAttr() *syscall.SysProcAttr { return nil }

func askToEnd(p *os.Process) error { return p.Kill() }
