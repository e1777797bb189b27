//go:build unix && !aix && !solaris

package local

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Dir is the folder a server publishes in: STILE_DIR, else XDG_RUNTIME_DIR/stile,
// else /run/stile-<uid> if that can be made, else stile-<uid> in the temporary
// folder. It is made with mode 0700 where missing, and refused when it is a
// symlink, someone else's, or writable by group or others. Clients look in the
// same places and make nothing. The folder must not be on a file system that
// several hosts share: the other hosts' entries look dead and would be swept.
func Dir() (string, error) {
	var tried []error
	for _, p := range servePlaces() {
		err := os.MkdirAll(p, 0o700)
		if err == nil {
			var f *folder
			if f, err = openFolder(p, true, []int{ownUID()}); err == nil {
				f.close()
				if err = unix.Access(p, unix.W_OK); err == nil { // it may be on a read-only file system
					return p, nil
				}
				err = fmt.Errorf("%w: write in %s: %w", ErrFolder, p, err)
			}
		}
		tried = append(tried, err)
	}
	return "", fmt.Errorf("local: no folder to publish in: %w", errors.Join(tried...))
}

// servePlaces lists where a server may publish, best first. A place that was
// chosen by STILE_DIR or XDG_RUNTIME_DIR has no substitute.
func servePlaces() []string {
	if d := os.Getenv("STILE_DIR"); d != "" {
		return []string{absolute(d)}
	}
	if d := os.Getenv("XDG_RUNTIME_DIR"); d != "" {
		return []string{filepath.Join(absolute(d), "stile")}
	}
	name := "stile-" + strconv.Itoa(ownUID())
	return []string{"/run/" + name, filepath.Join(absolute(os.TempDir()), name)}
}

// lookPlaces lists where a client looks: also where a server of our uid would
// have published whose environment lacks (or has) XDG_RUNTIME_DIR.
func lookPlaces() []string {
	places := servePlaces()
	if os.Getenv("STILE_DIR") != "" {
		return places
	}
	uid := strconv.Itoa(ownUID())
	for _, p := range []string{
		"/run/user/" + uid + "/stile", "/run/stile-" + uid,
		filepath.Join(absolute(os.TempDir()), "stile-"+uid), "/tmp/stile-" + uid,
	} {
		if !slices.Contains(places, p) {
			places = append(places, p)
		}
	}
	return places
}

func absolute(p string) string {
	if a, err := filepath.Abs(p); err == nil {
		return a
	}
	return p
}

// folder is an open, checked rendezvous folder. All names are looked up through
// the open descriptor, so that what was checked is what is used, and a long path
// does not exceed what a socket address holds.
type folder struct {
	path  string
	fd    int
	via   string // path that leads through fd, or path itself
	modes fs.FileMode
	uid   int
}

// openFolder opens and checks path; it must belong to one of uids. A reader's
// folder need not be listable.
func openFolder(path string, serve bool, uids []int) (*folder, error) {
	fi, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w: %w", ErrNoEntry, err)
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrFolder, err)
	case fi.Mode()&fs.ModeSymlink != 0:
		return nil, fmt.Errorf("%w: %s is a symlink", ErrFolder, path)
	case !fi.IsDir():
		return nil, fmt.Errorf("%w: %s is not a folder", ErrFolder, path)
	}
	flags := unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	if serve {
		flags |= unix.O_RDONLY
	} else {
		flags |= openLook
	}
	fd, err := unix.Open(path, flags, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: open %s: %w", ErrFolder, path, err)
	}
	f := &folder{path: path, fd: fd, via: throughFD(fd, path)}
	if err := f.check(uids); err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

func (f *folder) check(uids []int) error {
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil {
		return fmt.Errorf("%w: stat %s: %w", ErrFolder, f.path, err)
	}
	f.modes, f.uid = fs.FileMode(st.Mode&0o777), int(st.Uid)
	if !slices.Contains(uids, f.uid) {
		return fmt.Errorf("%w: folder %s belongs to uid %d", ErrOwner, f.path, f.uid)
	}
	if f.modes&0o022 != 0 {
		return fmt.Errorf("%w: %s is writable by others (mode %04o)", ErrFolder, f.path, f.modes)
	}
	return nil
}

// private reports whether nobody but uid (and root) can reach what is inside.
func (f *folder) private(uid int) bool { return f.uid == uid && f.modes&0o077 == 0 }

func (f *folder) at(name string) string    { return f.via + "/" + name }
func (f *folder) shown(name string) string { return filepath.Join(f.path, name) }
func (f *folder) close()                   { _ = unix.Close(f.fd) }

// identify returns what name is now; ok is false when there is no such file.
func (f *folder) identify(name string) (id fileID, ok bool) {
	fi, err := os.Lstat(f.at(name))
	if err != nil {
		return fileID{}, false
	}
	return identity(fi), true
}

// lock keeps other servers from publishing, sweeping and removing meanwhile. It
// gives up after a second: whoever can open the folder could hold the lock for
// ever. Without it only the rare race of two servers of one address is open.
func (f *folder) lock() (unlock func(), held bool) {
	const tries, pause = 100, 10 * time.Millisecond
	for range tries {
		err := unix.Flock(f.fd, unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = unix.Flock(f.fd, unix.LOCK_UN) }, true
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			break
		}
		time.Sleep(pause)
	}
	return func() {}, false
}

// removeIf removes name if it is still id.
func (f *folder) removeIf(name string, id fileID) {
	if now, ok := f.identify(name); ok && now == id {
		_ = os.Remove(f.at(name))
	}
}

// maxSweep bounds the entries looked at when a server starts.
const maxSweep = 1024

// sweep removes sockets of uid that nobody listens on any more: killed servers
// leave them. The lock must be held: between bind and listen of another server
// its socket looks dead too.
func (f *folder) sweep(uid int) {
	d, err := os.Open(f.via)
	if err != nil {
		return
	}
	defer d.Close()
	entries, _ := d.ReadDir(maxSweep)
	for _, e := range entries {
		if e.Type() != fs.ModeSocket || !ours(e.Name()) {
			continue
		}
		fi, err := os.Lstat(f.at(e.Name()))
		if err != nil || owner(fi) != uid || !dead(f.at(e.Name())) {
			continue
		}
		f.removeIf(e.Name(), identity(fi))
	}
}

// ours reports whether a file name is one that entryName or tempName makes: a
// folder may hold other programs' sockets.
func ours(name string) bool {
	for _, p := range []string{"tcp-", "unix-", "abstract-", "bytes-", hashed, tempPrefix} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

// dead reports whether connecting to the socket at path is refused.
func dead(path string) bool {
	syscall.ForkLock.RLock()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	if err := unix.SetNonblock(fd, true); err != nil {
		return false
	}
	return errors.Is(unix.Connect(fd, &unix.SockaddrUnix{Name: path}), unix.ECONNREFUSED)
}

const tempPrefix = ".new-"

func tempName() string { return tempPrefix + rand.Text()[:16] }
