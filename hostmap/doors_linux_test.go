package hostmap

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/stile-ipc/stile/routemap"
)

// TestDoors: a socket that was bound through a folder's descriptor and renamed, as local doors are, is called by where it is now; and when it is there no more, by what it was.
func TestDoors(t *testing.T) {
	for name, c := range map[string]struct{ bind, publish string }{
		"a local door":           {".new-ABCDEFGHIJKLMN27", "tcp-127.0.0.1_50051"},
		"one that is as it was":  {"plain", "plain"},
		"renamed by another way": {"other", "later"},
	} {
		t.Run(name, func(t *testing.T) {
			path := t.TempDir()
			dir, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer dir.Close()
			bound := fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), c.bind)
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: bound, Net: "unix"})
			if err != nil {
				t.Fatal(err)
			}
			l.SetUnlinkOnClose(false)
			defer l.Close()
			beside, err := net.Listen("unix", filepath.Join(path, "beside"))
			if err != nil {
				t.Fatal(err)
			}
			defer beside.Close()
			public := filepath.Join(path, c.publish)
			if err := os.Rename(filepath.Join(path, c.bind), public); err != nil {
				t.Fatal(err)
			}
			pid := startChild(t, []net.Listener{l}, public)
			check := func(want string) {
				t.Helper()
				h, err := Scan(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				n := 0
				for _, e := range h.Edges {
					if e.From.PID == pid && e.To.PID == os.Getpid() && e.Transport == routemap.UnixStream && e.Via == want {
						n++
					}
				}
				if n != 1 {
					t.Errorf("%q is there %d times:\n%s", want, n, said(h.Edges))
				}
			}
			check(public)
			if err := os.Remove(public); err != nil {
				t.Fatal(err)
			}
			gone := bound // nothing better is known
			if temporary.MatchString(c.bind) {
				gone = LocalDoor
			}
			check(gone)
		})
	}
}

// TestDoorsBound: only what a name leads to through a descriptor is looked for, and what is no folder is not opened.
func TestDoorsBound(t *testing.T) {
	for name, want := range map[string]bool{"/proc/self/fd/7/x": true, "/proc/self/fd/../x": false, "/proc/self/fd/7": false, "/proc/self/fd/7/x/y": false, "/run/x": false, "@/proc/self/fd/7/x": false, "": false} {
		if _, _, is := (bound{name: name}).split(); is != want {
			t.Errorf("%s: %v", name, is)
		}
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if path := fileIn(fmt.Sprintf("/proc/self/fd/%d", r.Fd()), 0); path != "" {
		t.Error(path)
	}
}
