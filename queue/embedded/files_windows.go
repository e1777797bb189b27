package embedded

import "os"

// openToSync opens for writing: only such files can be synced. Folders cannot be.
func openToSync(path string, dir bool) (*os.File, error) {
	if dir {
		return nil, nil
	}
	return os.OpenFile(path, os.O_RDWR, 0)
}
