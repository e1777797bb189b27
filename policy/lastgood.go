package policy

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"

	"github.com/stile-ipc/stile/internal/xdg"
)

// copies keeps the last good version of files and feeds, each under its path or name. The first line of a
// copy has its checksum and that name: a copy that a power cut has damaged is none.
type copies struct {
	dir string // empty: the default
	off bool
}

const (
	copyMark    = "# stile policy copy " // begins a copy
	maxCopyBase = 100                    // bytes of the file's name in that of its copy; systems allow 255 in all
)

func (c copies) folder() (string, error) {
	if c.dir != "" {
		return c.dir, nil
	}
	state, err := xdg.StateHome()
	if err != nil {
		return "", err
	}
	return filepath.Join(state, "stile", "policy"), nil
}

// path is where the copy of the file at path is.
func (c copies) path(path string) (string, error) {
	dir, err := c.folder()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(path))
	base := strings.Map(plain, filepath.Base(path))
	return filepath.Join(dir, base[:min(len(base), maxCopyBase)]+"."+hex.EncodeToString(sum[:8])), nil
}

// plain is r, if every system allows it in a file's name: a feed's may have others.
func plain(r rune) rune {
	if r < utf8.RuneSelf && (unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("._-", r)) {
		return r
	}
	return '_'
}

func copyHead(path, data string) string {
	sum := sha256.Sum256([]byte(data))
	return fmt.Sprintf("%s%s %q\n", copyMark, hex.EncodeToString(sum[:]), path)
}

// save keeps data as the last good version of the file at path. After a crash there is the old copy or
// the new one.
func (c copies) save(path, data string) error {
	if c.off {
		return nil
	}
	at, err := c.path(path)
	if err != nil {
		return fmt.Errorf("policy: %w", err)
	}
	if old, err := c.load(path); err == nil && string(old) == data {
		return nil
	}
	dir := filepath.Dir(at)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("policy: %w", err)
	}
	f, err := os.CreateTemp(dir, ".new-*") // 0600
	if err != nil {
		return fmt.Errorf("policy: %w", err)
	}
	_, err = f.WriteString(copyHead(path, data) + data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), at)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("policy: %w", err), os.Remove(f.Name()))
	}
	return syncDir(dir)
}

// syncDir makes a rename outlive a power cut, where folders can be synced.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("policy: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, syscall.EINVAL) {
		return fmt.Errorf("policy: %w", err)
	}
	return nil
}

// errNoCopy is why there is no last good version.
var errNoCopy = errors.New("policy: there is no last good copy")

// load returns the last good version of the file at path.
func (c copies) load(path string) ([]byte, error) {
	if c.off {
		return nil, errNoCopy
	}
	at, err := c.path(path)
	if err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	info, err := os.Lstat(at)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, errNoCopy
	case err != nil:
		return nil, fmt.Errorf("policy: %w", err)
	case !info.Mode().IsRegular() || info.Size() > 2*maxFileSize:
		return nil, fmt.Errorf("policy: the last good copy %s is not a file of ours", at)
	}
	if err := ownFile(info); err != nil {
		return nil, fmt.Errorf("policy: the last good copy %s is not used: %w", at, err)
	}
	whole, err := os.ReadFile(at)
	if err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	head, data, _ := bytes.Cut(whole, []byte("\n"))
	if string(head)+"\n" != copyHead(path, string(data)) {
		return nil, fmt.Errorf("policy: the last good copy %s is damaged", at)
	}
	return data, nil
}
