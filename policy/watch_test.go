package policy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	pb "google.golang.org/grpc/interop/grpc_testing"
)

// follower is a policy that follows a file, in virtual time.
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
func follow(t *testing.T, dir, text string) (*follower, error) {
	t.Helper()
	f := &follower{t: t, path: filepath.Join(dir, "policy.yaml"), copies: filepath.Join(dir, "copies"), rec: &tape{}}
	if text != "" {
		write(t, f.path, text)
	}
	var err error
	f.Policy, err = Open(f.path, WithLogger(slog.New(slog.DiscardHandler)), WithRecorder(f.rec), WithLastGoodDir(f.copies))
	return f, err
}

func mustFollow(t *testing.T, dir, text string) *follower {
	t.Helper()
	f, err := follow(t, dir, text)
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
	copies := WithLastGoodDir(t.TempDir())
	a, b := filepath.Join(t.TempDir(), "policy.yaml"), filepath.Join(t.TempDir(), "policy.yaml")
	write(t, a, version("v1"))
	p, err := Open(a, copies)
	if err != nil {
		t.Fatal(err)
	}
	p.Close()
	if _, err := Open(b, copies); err == nil {
		t.Error("another file's copy was put in force")
	}
}

// TestNoFolderForCopies is told, and nothing else.
func TestNoFolderForCopies(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "file"), "")
	path := filepath.Join(dir, "policy.yaml")
	write(t, path, version("v1"))
	p, err := Open(path, WithLastGoodDir(filepath.Join(dir, "file", "x")), WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if p.Count(Faulty) != 1 || p.Config().Stile.Version != "v1" {
		t.Errorf("told %d times", p.Count(Faulty))
	}
}

// TestCallsDuringReloads: while files good and bad come in turns, no call fails, and each sees one whole
// version.
func TestCallsDuringReloads(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		text := func(n int) string {
			return fmt.Sprintf("x-stile: {version: v%d}\nmethodConfig: [{name: [{}], timeout: %ds, x-stile: {breaker: {slidingWindowSize: %d}, limit: {maxRequests: %d}}}]\n", n, 10+n, 10+n, 10+n)
		}
		f := mustFollow(t, dir, text(0))
		defer f.Close()
		var odd atomic.Int64
		srv := &testServer{unary: func(ctx context.Context, req *pb.SimpleRequest) (*pb.SimpleResponse, error) {
			d, _ := ctx.Deadline()
			if left := time.Until(d).Round(time.Second); left < 10*time.Second || left > 210*time.Second {
				odd.Add(1)
			}
			time.Sleep(5 * time.Millisecond)
			return answer(ctx, req)
		}}
		client := dial(t, serve(t, srv), obeying(f.Policy)...)
		stop := make(chan struct{})
		done := make(chan error, 8)
		for range cap(done) {
			go func() {
				for {
					select {
					case <-stop:
						done <- nil
						return
					default:
					}
					if _, err := client.UnaryCall(context.Background(), &pb.SimpleRequest{}); err != nil {
						done <- err
						return
					}
					time.Sleep(50 * time.Millisecond)
				}
			}()
		}
		versions := 60
		if testing.Short() {
			versions = 20
		}
		for n := 1; n <= versions; n++ {
			if n%3 == 0 {
				write(t, f.path, "methodConfig: [")
			} else {
				write(t, f.path, text(n))
			}
			time.Sleep(2100 * time.Millisecond)
			want := n
			if n%3 == 0 {
				want--
			}
			if got := f.Status().Version; got != fmt.Sprintf("v%d", want) {
				t.Fatalf("%s is in force after version %d", got, n)
			}
		}
		close(stop)
		for range cap(done) {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if odd.Load() > 0 {
			t.Errorf("%d calls had a deadline of no version", odd.Load())
		}
	})
}
