//go:build unix

package policy

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// TestPipeInsteadOfFile: opening a pipe waits for a writer, and there is none.
func TestPipeInsteadOfFile(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := mustFollow(t, dir, version("v1"))
		if err := errors.Join(os.Remove(f.path), syscall.Mkfifo(f.path, 0o600)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		f.wants("v1", "not a regular file")
		f.Close()
	})
}

// fileOf is a file of a user.
type fileOf struct {
	fs.FileInfo
	uid  uint32
	mode fs.FileMode
}

func (f fileOf) Mode() fs.FileMode { return f.mode }
func (f fileOf) Sys() any          { return &syscall.Stat_t{Uid: f.uid} }

func TestOwnFile(t *testing.T) {
	me := uint32(os.Geteuid())
	for _, c := range []struct {
		uid  uint32
		mode fs.FileMode
		ok   bool
	}{
		{me, 0o600, true},
		{me, 0o644, true},
		{me, 0o620, false},
		{me, 0o602, false},
		{me + 1, 0o600, false},
	} {
		if err := ownFile(fileOf{uid: c.uid, mode: c.mode}); (err == nil) != c.ok {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
