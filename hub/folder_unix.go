//go:build unix

package hub

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// ownFolder returns the folder of a queue that a process of this user has open. Who listens in it is looked at when it is connected to.
func ownFolder(path string) (string, error) {
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("%s is no absolute path", path)
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	if err := owned(real, fs.ModeDir); err != nil {
		return "", err
	}
	for name, kind := range map[string]fs.FileMode{"redo": fs.ModeDir, "door": fs.ModeDir, filepath.Join("door", "nats.sock"): fs.ModeSocket} {
		if err := owned(filepath.Join(real, name), kind); err != nil {
			return "", fmt.Errorf("no queue is open there: %w", err)
		}
	}
	return real, nil
}

// owned tells what is wrong with a file: of another kind, or not this user's alone to change.
func owned(path string, kind fs.FileMode) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !ok || info.Mode().Type() != kind:
		return fmt.Errorf("%s is of the kind %s", path, info.Mode().Type())
	case int(stat.Uid) != os.Getuid():
		return fmt.Errorf("%s is of the user %d, and the hub of %d", path, stat.Uid, os.Getuid())
	case info.Mode().Perm()&0o002 != 0:
		return fmt.Errorf("%s can be changed by others", path)
	}
	return nil
}
