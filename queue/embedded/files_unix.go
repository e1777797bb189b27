//go:build unix

package embedded

import "os"

func openToSync(path string, _ bool) (*os.File, error) { return os.Open(path) }
