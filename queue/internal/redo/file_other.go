//go:build !linux

package redo

import "os"

// dataFile is a file whose size does not change.
type dataFile struct{ *os.File }
