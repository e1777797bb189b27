// Package filelock has locks on files that end with the process that has them.
package filelock

import "errors"

// ErrLocked: another process has the lock.
var ErrLocked = errors.New("another process has it")
