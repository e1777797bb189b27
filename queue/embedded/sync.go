package embedded

import (
	"errors"
	"io/fs"
	"path/filepath"
	"sync"
	"time"
)

// settled is how long ago a file was changed that is not expected to be changed again with the same time and size.
const settled = time.Second

// syncer puts a tree of files on disk, each when it has changed. It knows nothing of what they hold.
type syncer struct {
	mu   sync.Mutex
	done map[string]state // that are on disk
}

// state tells a file's contents apart, roughly.
type state struct {
	size int64
	time time.Time
}

// sync returns when what all files and folders held when it was called is on disk.
func (s *syncer) sync(root string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := make(map[string]state, len(s.done))
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && (d.IsDir() || d.Type().IsRegular()) {
			err = s.one(path, d, seen)
		}
		if errors.Is(err, fs.ErrNotExist) { // gone since
			return nil
		}
		return err
	})
	if err == nil {
		s.done = seen
	}
	return err
}

func (s *syncer) one(path string, d fs.DirEntry, seen map[string]state) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	now := state{info.Size(), info.ModTime()}
	if s.done[path] != now {
		if err := syncPath(path, d.IsDir()); err != nil {
			return err
		}
	}
	if time.Since(now.time) > settled {
		seen[path] = now
	}
	return nil
}

func syncPath(path string, dir bool) error {
	f, err := openToSync(path, dir)
	if f == nil || err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
