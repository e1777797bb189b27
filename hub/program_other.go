//go:build !linux

package hub

import "time"

// programOf is not known on this system.
func programOf(int64, time.Time) string { return "" }
