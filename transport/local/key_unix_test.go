//go:build unix && !aix && !solaris

package local

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
)

func TestKeyOfSocketFile(t *testing.T) {
	dir := testDir(t)
	path := filepath.Join(dir, "s")
	addr := func(p string) net.Addr { return &net.UnixAddr{Name: p, Net: "unix"} }
	if _, err := KeyOf(addr(path)); !errors.Is(err, ErrNoEntry) {
		t.Errorf("missing: %v", err)
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	keys, err := KeysForListener(ln)
	if err != nil || len(keys) != 1 {
		t.Fatalf("%q, %v", keys, err)
	}
	// Seen by another path it is the same.
	link := filepath.Join(filepath.Dir(dir), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	if k := keyOf(t, addr(filepath.Join(link, "s"))); k != keys[0] {
		t.Errorf("%q, want %q", k, keys[0])
	}
	// Another server at the path, while the first still runs, is another.
	if err := os.Rename(path, path+"old"); err != nil {
		t.Fatal(err)
	}
	again, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if k := keyOf(t, addr(path)); k == keys[0] {
		t.Errorf("%q for both", k)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := KeyOf(addr(file)); !errors.Is(err, ErrAddress) {
		t.Errorf("a file: %v", err)
	}
}
