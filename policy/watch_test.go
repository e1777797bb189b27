package policy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	pb "google.golang.org/grpc/interop/grpc_testing"
)

// follower is a policy that follows a file or a feed, in virtual time.
type follower struct {
	*Policy
	t      *testing.T
	path   string
	copies string
	rec    *tape
}

func version(v string) string {
	return "x-stile: {version: " + v + "}\nmethodConfig: [{name: [{}], timeout: 1s}]\n"
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// follow opens a file with this text; empty: there is none.
func follow(t *testing.T, dir, text string, opts ...Option) (*follower, error) {
	t.Helper()
	f := &follower{t: t, path: filepath.Join(dir, "policy.yaml"), copies: filepath.Join(dir, "copies"), rec: &tape{}}
	if text != "" {
		write(t, f.path, text)
	}
	var err error
	all := []Option{WithLogger(slog.New(slog.DiscardHandler)), WithRecorder(f.rec), WithLastGoodDir(f.copies)}
	f.Policy, err = Open(f.path, append(all, opts...)...)
	return f, err
}

func mustFollow(t *testing.T, dir, text string, opts ...Option) *follower {
	t.Helper()
	f, err := follow(t, dir, text, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// wants sees which version is in force, and whether there is a fault with this text.
func (f *follower) wants(version, fault string) {
	f.t.Helper()
	synctest.Wait()
	s := f.Status()
	if s.Version != version || f.Config().Stile.Version != version || (fault == "") != (s.Error == "") || !strings.Contains(s.Error, fault) {
		f.t.Errorf("status %+v, want version %s with fault %q", s, version, fault)
	}
}

func TestFollow(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := mustFollow(t, dir, version("v1"))
		defer f.Close()
		f.wants("v1", "")
		write(t, f.path, version("v2"))
		time.Sleep(4900 * time.Millisecond)
		f.wants("v2", "")
		write(t, f.path, "x-stile: {version: v3, colour: blue}\nmethodConfig: [{timeout: 1}]\n")
		time.Sleep(10 * time.Second)
		f.wants("v2", "x-stile.colour")
		refused := f.rec.of(Refused)
		var faults Problems
		if len(refused) != 1 || !errors.As(refused[0].Err, &faults) || len(faults) < 2 || f.Count(Refused) != 1 {
			t.Errorf("told %+v", refused)
		}
		if err := os.Remove(f.path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		f.wants("v2", "no such file")
		next := f.path + ".next"
		write(t, next, version("v4"))
		if err := os.Rename(next, f.path); err != nil { // as editors do
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		f.wants("v4", "")
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		write(t, f.path, version("v5"))
		time.Sleep(10 * time.Second)
		f.wants("v4", "")
	})
}

// TestFollowLinks: Kubernetes mounts a folder whose files are links through a link that it swaps.
func TestFollowLinks(t *testing.T) {
	dir := t.TempDir()
	for _, v := range []string{"v1", "v2"} {
		if err := os.Mkdir(filepath.Join(dir, v), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, v, "policy.yaml"), version(v))
	}
	link := func(to, at string) {
		t.Helper()
		if err := errors.Join(os.Symlink(to, at+".new"), os.Rename(at+".new", at)); err != nil {
			t.Fatal(err)
		}
	}
	data := filepath.Join(dir, "..data")
	link("v1", data)
	link("..data/policy.yaml", filepath.Join(dir, "policy.yaml"))
	synctest.Test(t, func(t *testing.T) {
		f := mustFollow(t, dir, "")
		defer f.Close()
		f.wants("v1", "")
		link("v2", data)
		time.Sleep(5 * time.Second)
		f.wants("v2", "")
	})
}

// TestHalfWritten: a file that is being written is not put in force, although what is there can be read.
func TestHalfWritten(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := mustFollow(t, dir, version("v1"))
		defer f.Close()
		whole := version("v2") + strings.Repeat("# more\n", 10)
		for n := 0; n <= len(whole); n += 7 { // a slow writer in place
			write(t, f.path, whole[:n])
			time.Sleep(700 * time.Millisecond)
			if v := f.Config().Stile.Version; v != "v1" {
				t.Fatalf("%d bytes of %d are in force as %q", n, len(whole), v)
			}
		}
		if f.Count(Refused) > 0 {
			t.Error("a file that was being written was refused")
		}
		write(t, f.path, whole)
		time.Sleep(3 * time.Second)
		f.wants("v2", "")
	})
}

func TestLastGood(t *testing.T) {
	bad := "methodConfig: 7\n"
	for _, c := range []struct {
		name  string
		text  string            // of the file at the second start; empty: it is missing
		spoil func(copy string) // between both
		want  string            // version in force; empty: Open fails with fault
		fault string
	}{
		{"a bad file", bad, nil, "v1", "methodConfig"},
		{"no file", "", nil, "v1", "no such file"},
		{"a good file", version("v2"), nil, "v2", ""},
		{"no copy", bad, func(at string) { os.Remove(at) }, "", "methodConfig"},
		{"a damaged copy", bad, func(at string) { truncate(t, at) }, "", "damaged"},
		{"a copy that others may write", bad, func(at string) { os.Chmod(at, 0o666) }, "", "others may write it"},
		{"a link", bad, func(at string) { os.Rename(at, at+"x"); os.Symlink(at+"x", at) }, "", "not a file of ours"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				first := mustFollow(t, dir, version("v1"))
				time.Sleep(1500 * time.Millisecond) // the copy comes with the second look
				first.Close()
				entries, err := os.ReadDir(first.copies)
				if err != nil || len(entries) != 1 {
					t.Fatalf("copies %v, %v", entries, err)
				}
				at := filepath.Join(first.copies, entries[0].Name())
				if info, err := os.Stat(at); err != nil || info.Mode().Perm() != 0o600 {
					t.Errorf("the copy is %v, %v", info.Mode(), err)
				}
				if c.spoil != nil {
					c.spoil(at)
				}
				os.Remove(first.path)
				f, err := follow(t, dir, c.text)
				if c.want == "" {
					if err == nil || !strings.Contains(err.Error(), c.fault) {
						t.Errorf("opened with %v", err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				f.wants(c.want, c.fault)
				if from := f.Status().Source; (from == SourceLastGood) != (c.fault != "") {
					t.Errorf("in force from %s", from)
				}
				write(t, f.path, version("v3"))
				time.Sleep(5 * time.Second)
				f.wants("v3", "")
			})
		})
	}
}

func truncate(t *testing.T, path string) {
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, string(data[:len(data)-3]))
}

// TestCopyIsOfOnePath: the copy of one file never stands in for another.
func TestCopyIsOfOnePath(t *testing.T) {
	c := copies{dir: t.TempDir()}
	if err := c.save("/a/policy.yaml", version("v1")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.load("/b/policy.yaml"); err == nil {
		t.Error("another file's copy is used")
	}
	a, err := c.path("/a/policy.yaml")
	b, berr := c.path("/b/policy.yaml")
	if err := errors.Join(err, berr, os.Rename(a, b)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.load("/b/policy.yaml"); err == nil {
		t.Error("another file's copy is used after a rename")
	}
}

// TestNoFolderForCopies is told, and nothing else.
func TestNoFolderForCopies(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "file"), "")
	path := filepath.Join(dir, "policy.yaml")
	write(t, path, version("v1"))
	synctest.Test(t, func(t *testing.T) {
		p, err := Open(path, WithLastGoodDir(filepath.Join(dir, "file", "x")), WithLogger(slog.New(slog.DiscardHandler)))
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		time.Sleep(5 * time.Second)
		if p.Count(Faulty) != 1 || p.Config().Stile.Version != "v1" {
			t.Errorf("told %d times", p.Count(Faulty))
		}
	})
}

// TestCopyIsMadeAgain: a copy that would not be used does not count as one.
func TestCopyIsMadeAgain(t *testing.T) {
	spoils := map[string]func(at string) error{
		"others may write it": func(at string) error { return os.Chmod(at, 0o666) },
		"a link":              func(at string) error { return errors.Join(os.Rename(at, at+"x"), os.Symlink(at+"x", at)) },
		"damaged":             func(at string) error { return os.Truncate(at, 70) },
		"gone":                os.Remove,
	}
	for name, spoil := range spoils {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			c, path := copies{dir: filepath.Join(dir, "copies")}, filepath.Join(dir, "policy.yaml")
			at, err := c.path(path)
			if err := errors.Join(err, c.save(path, version("v1")), spoil(at)); err != nil {
				t.Fatal(err)
			}
			if _, err := c.load(path); err == nil {
				t.Error("the spoiled copy is used")
			}
			if err := c.save(path, version("v1")); err != nil {
				t.Fatal(err)
			}
			if data, err := c.load(path); err != nil || string(data) != version("v1") {
				t.Errorf("kept %q, %v", data, err)
			}
		})
	}
}

func TestCopyOfLongName(t *testing.T) {
	dir := t.TempDir()
	c, path := copies{dir: filepath.Join(dir, "copies")}, filepath.Join(dir, strings.Repeat("p", 255))
	if err := c.save(path, version("v1")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.load(path); err != nil {
		t.Error(err)
	}
}

func TestWithoutLastGood(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := mustFollow(t, dir, version("v1"), WithoutLastGood())
		f.Close()
		if _, err := os.Stat(f.copies); !errors.Is(err, os.ErrNotExist) || f.Count(Faulty) > 0 {
			t.Errorf("the folder of copies: %v; told %d times", err, f.Count(Faulty))
		}
		if _, err := follow(t, dir, "methodConfig: 7\n", WithoutLastGood()); err == nil {
			t.Error("a file with a fault was opened")
		}
	})
}

func TestFolderOfCopies(t *testing.T) {
	home, state := t.TempDir(), t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("USERPROFILE", home) // HOME of Windows
	for _, c := range []struct{ dir, xdg, want string }{
		{"", state, filepath.Join(state, "stile", "policy")},
		{"", "", filepath.Join(home, ".local", "state", "stile", "policy")},
		{"", "relative", filepath.Join(home, ".local", "state", "stile", "policy")},
		{"given", state, "given"},
	} {
		t.Setenv("XDG_STATE_HOME", c.xdg)
		if got, err := (copies{dir: c.dir}).folder(); err != nil || got != c.want {
			t.Errorf("%+v: %s, %v", c, got, err)
		}
	}
}

// reloadText is version n of a file that is rewritten: a timeout of 10+n s where n is even, and faults
// beside a timeout that fails every call where n is odd.
func reloadText(n int) string {
	switch n % 4 {
	case 1:
		return fmt.Sprintf("x-stile: {version: v%d, colour: blue}\nmethodConfig: [{name: [{}], timeout: 0.001s}]\n", n)
	case 3:
		return "methodConfig: [{name: [{}], timeout: 0.001s}"
	}
	const entry = "x-stile: {version: v%d}\nmethodConfig: [{name: [{}], timeout: %ds, x-stile: {breaker: {slidingWindowSize: %d}, limit: {maxRequests: %d}}}]\n"
	return fmt.Sprintf(entry, n, 10+n, 10+n, 10+n)
}

func (f *follower) number() (n int) {
	if _, err := fmt.Sscanf(f.Config().Stile.Version, "v%d", &n); err != nil {
		f.t.Error(err)
	}
	return n
}

// callsDuringReloads checks that no call fails while versions good and bad come in turns, and that each has the
// deadline of a good version that was in force since it began. bring brings version n into force, or to be refused.
func callsDuringReloads(t *testing.T, f *follower, bring func(n int)) {
	srv := &testServer{unary: func(ctx context.Context, req *pb.SimpleRequest) (*pb.SimpleResponse, error) {
		deadline, _ := ctx.Deadline()
		left := time.Until(deadline)
		n := int((left - 10*time.Second) / time.Second)
		if first := int(req.GetResponseSize()); left%time.Second != 0 || n%2 != 0 || n < first || n > f.number() {
			t.Errorf("a call that began with v%d had %v", first, left)
		}
		time.Sleep(5 * time.Millisecond)
		return answer(ctx, req)
	}}
	client := dial(t, serve(t, srv), obeying(f.Policy)...)
	var stop atomic.Bool
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			for !stop.Load() {
				if _, err := client.UnaryCall(context.Background(), &pb.SimpleRequest{ResponseSize: int32(f.number())}); err != nil {
					t.Error(err)
				}
				time.Sleep(20 * time.Millisecond)
			}
		})
	}
	const versions = 200
	for n := 1; n <= versions; n++ {
		bring(n)
		if got := f.number(); got != n-n%2 || (n%2 == 1) != (f.Status().Error != "") {
			t.Errorf("after version %d, v%d is in force: %+v", n, got, f.Status())
		}
	}
	stop.Store(true)
	callers.Wait()
	if f.Count(Refused) != versions/2 || f.Count(Applied) != versions/2+1 {
		t.Errorf("refused %d, applied %d", f.Count(Refused), f.Count(Applied))
	}
}

func TestCallsDuringReloads(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		const every = 100 * time.Millisecond
		f := mustFollow(t, dir, reloadText(0), WithPollInterval(every))
		defer f.Close()
		callsDuringReloads(t, f, func(n int) {
			write(t, f.path, reloadText(n))
			time.Sleep(2*every + every/10)
		})
	})
}

// TestHalfAtStart: half a file that can be read at the start does not take the place of the copy.
func TestHalfAtStart(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := mustFollow(t, dir, "x-stile: {version: half}\n")
		defer f.Close()
		time.Sleep(500 * time.Millisecond)
		write(t, f.path, version("whole"))
		time.Sleep(5 * time.Second)
		f.wants("whole", "")
		data, err := f.following.copies.load(f.path)
		if err != nil || string(data) != version("whole") {
			t.Errorf("kept %q, %v", data, err)
		}
		if n := f.Count(Applied); n != 2 {
			t.Errorf("%d versions were put in force", n)
		}
	})
}
