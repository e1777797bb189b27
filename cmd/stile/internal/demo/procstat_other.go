//go:build !linux

package demo

import "errors"

// errNoUsage says that this system does not tell what processes use.
var errNoUsage = errors.New("demo: CPU time and context switches are read from /proc, which only Linux has")

func usageOf([]int) (usage, error) { return usage{}, errNoUsage }
