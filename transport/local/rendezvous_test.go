//go:build unix && !aix && !solaris

package local

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/stile-ipc/stile/transport"
)

// killed leaves the entry of a server that did not come to close it.
func killed(t *testing.T, path string) {
	t.Helper()
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	_ = ln.Close()
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func otherUID() int { return ownUID() + 4242 }

// badRendezvous says how to make each; use is the folder the client looks in.
var badRendezvous = []struct {
	name string
	make func(t *testing.T, dir, entry string) (use string)
	uid  int // if not 0, who the client takes itself for
	want error
}{
	{name: "no folder", want: ErrNoEntry, make: func(t *testing.T, dir, _ string) string {
		return filepath.Join(dir, "none")
	}},
	{name: "no entry", want: ErrNoEntry},
	{name: "killed server", want: ErrStale, make: func(t *testing.T, dir, entry string) string {
		killed(t, entry)
		return dir
	}},
	{name: "folder is a symlink", want: ErrFolder, make: func(t *testing.T, dir, _ string) string {
		rawListen(t, dir)
		link := filepath.Join(filepath.Dir(dir), "link")
		check(t, os.Symlink(dir, link))
		return link
	}},
	{name: "folder is a file", want: ErrFolder, make: func(t *testing.T, dir, _ string) string {
		f := filepath.Join(dir, "file")
		check(t, os.WriteFile(f, nil, 0o600))
		return f
	}},
	{name: "folder writable by group", want: ErrFolder, make: func(t *testing.T, dir, _ string) string {
		rawListen(t, dir)
		check(t, os.Chmod(dir, 0o770))
		return dir
	}},
	{name: "folder writable by all", want: ErrFolder, make: func(t *testing.T, dir, _ string) string {
		rawListen(t, dir)
		check(t, os.Chmod(dir, 0o1777))
		return dir
	}},
	{name: "folder of another", uid: otherUID(), want: ErrOwner, make: func(t *testing.T, dir, _ string) string {
		rawListen(t, dir)
		return dir
	}},
	{name: "entry is a symlink", want: ErrNotSocket, make: func(t *testing.T, dir, entry string) string {
		rawListen(t, dir)
		check(t, os.Rename(entry, entry+"x"))
		check(t, os.Symlink(entry+"x", entry))
		return dir
	}},
	{name: "entry is a dangling symlink", want: ErrNotSocket, make: func(t *testing.T, dir, entry string) string {
		check(t, os.Symlink("nowhere", entry))
		return dir
	}},
	{name: "entry is a file", want: ErrNotSocket, make: func(t *testing.T, dir, entry string) string {
		check(t, os.WriteFile(entry, nil, 0o600))
		return dir
	}},
	{name: "entry is a folder", want: ErrNotSocket, make: func(t *testing.T, dir, entry string) string {
		check(t, os.Mkdir(entry, 0o700))
		return dir
	}},
}

func TestBadRendezvous(t *testing.T) {
	for _, tt := range badRendezvous {
		t.Run(tt.name, func(t *testing.T) {
			noFDsLeft(t)
			dir := testDir(t)
			use := dir
			if tt.make != nil {
				use = tt.make(t, dir, filepath.Join(dir, entryName(testKey)))
			}
			cfg := DialConfig{}
			if tt.uid != 0 {
				cfg.env.uid = func() int { return tt.uid }
			}
			c, _, err := dialOnce(t, use, cfg)
			if c != nil || !errors.Is(err, tt.want) {
				t.Fatalf("got %v, %v, want %v", c, err, tt.want)
			}
			// What a client finds, the doctor can say.
			cfg.Dir = use
			r, perr := Probe(context.Background(), testKey, cfg)
			if !errors.Is(perr, tt.want) || len(r.Steps) == 0 || r.Steps[len(r.Steps)-1].OK {
				t.Errorf("probe: %v, %+v", perr, r)
			}
		})
	}
}

func TestServerRefusesBadFolder(t *testing.T) {
	noFDsLeft(t)
	dir := testDir(t)
	open := filepath.Join(dir, "open")
	link := filepath.Join(dir, "link")
	if err := errors.Join(os.Mkdir(open, 0o700), os.Chmod(open, 0o777), os.Symlink(dir, link)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		cfg  ListenConfig
		want error
	}{
		{ListenConfig{Dir: open}, ErrFolder},
		{ListenConfig{Dir: link}, ErrFolder},
		{ListenConfig{Dir: dir, env: env{uid: otherUID}}, ErrOwner},
	} {
		tt.cfg.Keys = []Key{testKey}
		if _, err := Listen(tt.cfg); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.cfg.Dir, err, tt.want)
		}
	}
	for _, cfg := range []ListenConfig{
		{Dir: dir},
		{Dir: dir, Keys: []Key{""}},
		{Dir: dir, Keys: []Key{testKey}, Settings: make([]byte, MaxSettings+1)},
	} {
		if _, err := Listen(cfg); err == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
}

func TestDir(t *testing.T) {
	base := testDir(t)
	t.Setenv("XDG_RUNTIME_DIR", base)
	t.Setenv("STILE_DIR", "")
	if _, _, err := Dial(context.Background(), testKey, DialConfig{}); !errors.Is(err, ErrNoEntry) {
		t.Errorf("dial: %v", err)
	}
	want := filepath.Join(base, "stile")
	if _, err := os.Lstat(want); err == nil {
		t.Error("a client made the folder")
	}
	got, err := Dir()
	if err != nil || got != want {
		t.Fatalf("got %q, %v, want %q", got, err, want)
	}
	if fi, err := os.Lstat(got); err != nil || fi.Mode() != os.ModeDir|0o700 {
		t.Errorf("made %v, %v", fi.Mode(), err)
	}
	t.Setenv("STILE_DIR", filepath.Join(base, "a", "b"))
	if got, err := Dir(); err != nil || got != filepath.Join(base, "a", "b") {
		t.Errorf("got %q, %v", got, err)
	}
	bad := filepath.Join(base, "bad")
	if err := errors.Join(os.Mkdir(bad, 0o700), os.Chmod(bad, 0o707)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("STILE_DIR", bad)
	if _, err := Dir(); !errors.Is(err, ErrFolder) {
		t.Errorf("got %v, want %v", err, ErrFolder)
	}
}

// A client finds a server that was started without the client's XDG_RUNTIME_DIR.
func TestDialLooksInAllPlaces(t *testing.T) {
	noFDsLeft(t)
	base := testDir(t)
	tmp := filepath.Join(base, "tmp")
	if err := os.Mkdir(tmp, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("STILE_DIR", "")
	t.Setenv("TMPDIR", tmp)
	t.Setenv("XDG_RUNTIME_DIR", base)
	places := lookPlaces()
	l := listen(t, ListenConfig{Dir: places[len(places)-2]})
	if filepath.Dir(l.folder.path) != tmp {
		t.Fatalf("unexpected places %v", places)
	}
	acceptAll(t, l)
	killed(t, filepath.Join(must(Dir()), entryName(testKey)))
	c, _, err := Dial(context.Background(), testKey, DialConfig{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestEntryModes(t *testing.T) {
	for _, tt := range []struct {
		allow []int
		want  os.FileMode
	}{{nil, 0o600}, {[]int{otherUID()}, 0o666}} {
		dir := testDir(t)
		l := listen(t, ListenConfig{Dir: dir, AllowUIDs: tt.allow})
		fi, err := os.Lstat(l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if fi.Mode() != os.ModeSocket|tt.want {
			t.Errorf("allowing %v: mode %v, want %v", tt.allow, fi.Mode(), tt.want)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if left, _ := os.ReadDir(dir); len(left) != 0 {
			t.Errorf("left behind: %v", left)
		}
	}
}

func TestReplaceInPlace(t *testing.T) {
	noFDsLeft(t)
	dir := testDir(t)
	old := listen(t, ListenConfig{Dir: dir, Settings: []byte("old")})
	acceptAll(t, old)
	reach := func(want string) {
		t.Helper()
		c, settings, err := dialOnce(t, dir, DialConfig{})
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
		if string(settings) != want {
			t.Fatalf("reached %q, want %q", settings, want)
		}
	}
	reach("old")
	young := listen(t, ListenConfig{Dir: dir, Settings: []byte("new")})
	acceptAll(t, young)
	reach("new")
	if err := old.Close(); err != nil { // leaves the other's entry alone
		t.Fatal(err)
	}
	reach("new")
	if err := errors.Join(young.Close(), young.Close()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := dialOnce(t, dir, DialConfig{}); !errors.Is(err, ErrNoEntry) {
		t.Errorf("after close: %v", err)
	}
	if _, err := young.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept after close: %v", err)
	}
}

func TestCloseLeavesForeignEntries(t *testing.T) {
	dir := testDir(t)
	l := listen(t, ListenConfig{Dir: dir})
	path := l.Addr().String()
	if err := errors.Join(os.Remove(path), os.WriteFile(path, []byte("mine"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "mine" {
		t.Errorf("foreign file is gone: %q, %v", b, err)
	}
}

func TestSweep(t *testing.T) {
	noFDsLeft(t)
	dir := testDir(t)
	other := listen(t, ListenConfig{Dir: dir, Keys: []Key{"tcp-192.0.2.9:1"}})
	acceptAll(t, other)
	stays := []string{"their.sock", "tcp-file", entryName(testKey), entryName("tcp-192.0.2.9:1")}
	killed(t, filepath.Join(dir, "their.sock"))
	if err := os.WriteFile(filepath.Join(dir, "tcp-file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{entryName(testKey), "tcp-192.0.2.9:2", "unix-1:2", tempName()} {
		killed(t, filepath.Join(dir, n))
	}
	l := listen(t, ListenConfig{Dir: dir})
	acceptAll(t, l)
	c, _, err := dialOnce(t, dir, DialConfig{})
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	left := map[string]bool{}
	for _, e := range must(os.ReadDir(dir)) {
		left[e.Name()] = true
	}
	for _, n := range stays {
		if !left[n] {
			t.Errorf("%s was removed", n)
		}
	}
	if len(left) != len(stays) {
		t.Errorf("left %v, want %v", left, stays)
	}
	if s := other.Stats(); s != (Stats{}) {
		t.Errorf("sweeping showed in another server's stats: %+v", s)
	}
}

// Many servers of one address start and stop at once: each ends cleanly and
// none takes away what is another's.
func TestPublishRace(t *testing.T) {
	noFDsLeft(t)
	dir := testDir(t)
	first := listen(t, ListenConfig{Dir: dir, Keys: []Key{testKey, "tcp-192.0.2.1:8"}})
	acceptAll(t, first)
	done := make(chan error, 4)
	for range cap(done) {
		go func() {
			var errs error
			for range 20 {
				l, err := Listen(ListenConfig{Dir: dir, Keys: []Key{testKey}, Logger: quiet})
				if err != nil {
					errs = errors.Join(errs, err)
					continue
				}
				errs = errors.Join(errs, l.Close())
			}
			done <- errs
		}()
	}
	for range cap(done) {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	left := must(os.ReadDir(dir))
	if len(left) != 1 { // the race's last closed its entry; first's other key stays
		t.Errorf("left: %v", left)
	}
}

func TestManyKeysOneListener(t *testing.T) {
	noFDsLeft(t)
	keys := []Key{testKey, "tcp-192.0.2.1:8", testKey, "abstract-\x00weird/Name@1"}
	l := listen(t, ListenConfig{Dir: testDir(t), Keys: keys})
	for _, k := range keys {
		c, s := pair(t, l, k, DialConfig{})
		exchange(t, c, s)
		for _, end := range []transport.Conn{c, s} {
			if err := end.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	if len(l.entries) != 3 {
		t.Errorf("%d entries", len(l.entries))
	}
}

func TestPathTooLong(t *testing.T) {
	f := &folder{path: "/long", via: "/" + string(make([]byte, 100))}
	l := &Listener{folder: f}
	if err := l.bind(testKey); !errors.Is(err, ErrFolder) {
		t.Errorf("got %v", err)
	}
}
