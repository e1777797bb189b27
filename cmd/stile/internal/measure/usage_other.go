//go:build !linux

package measure

import "errors"

// errNoUsage says that this system does not tell what processes use.
var errNoUsage = errors.New("CPU time and context switches are read from /proc, which only Linux has")

// UsageOf fails: this system does not tell.
func UsageOf([]int) (Usage, error) { return Usage{}, errNoUsage }
