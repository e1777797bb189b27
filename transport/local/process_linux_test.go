package local

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// task is what another process is to do.
type task struct {
	Dir   string
	UID   int
	Allow []int
}

// result is what came of it.
type result struct {
	Err     string // name of the sentinel, or the text of another error
	PeerUID int
	Keys    []Key
}

func init() {
	roles["dial"] = dialRole
	roles["serve"] = serveRole
	roles["keys"] = keysRole
}

const taskVar = "STILE_LOCAL_TEST_TASK"

func begin() (k task, err error) {
	if err = json.Unmarshal([]byte(os.Getenv(taskVar)), &k); err != nil || k.UID == 0 {
		return k, err
	}
	return k, errors.Join(syscall.Setgroups(nil), syscall.Setresgid(k.UID, k.UID, k.UID), syscall.Setresuid(k.UID, k.UID, k.UID))
}

func report(r result, err error) error {
	if err != nil {
		r.Err = err.Error()
		for name, e := range map[string]error{"ErrOwner": ErrOwner, "ErrUID": ErrUID, "ErrNoEntry": ErrNoEntry} {
			if errors.Is(err, e) {
				r.Err = name
			}
		}
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

func dialRole() error {
	k, err := begin()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, _, err := Dial(ctx, testKey, DialConfig{Dir: k.Dir, AllowUIDs: k.Allow, Logger: quiet})
	var r result
	if c != nil {
		r.PeerUID = c.Info().Peer.UID
		_ = c.Close()
	}
	return report(r, err)
}

// serveRole serves until its standard input ends.
func serveRole() error {
	k, err := begin()
	if err != nil {
		return err
	}
	l, err := Listen(ListenConfig{Dir: k.Dir, Keys: []Key{testKey}, AllowUIDs: k.Allow, Logger: quiet})
	if err := report(result{}, err); err != nil || l == nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
	_, _ = io.Copy(io.Discard, os.Stdin)
	return l.Close()
}

func keysRole() error {
	var r result
	for _, a := range []net.Addr{
		&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 7},
		&net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 7},
		&net.UnixAddr{Name: "@abstract", Net: "unix"},
	} {
		k, err := KeyOf(a)
		if err != nil {
			return report(r, err)
		}
		r.Keys = append(r.Keys, k)
	}
	return report(r, nil)
}

// child starts this binary in a role. It ends when stop is called, or with the test.
func child(t *testing.T, role string, k task, attr *syscall.SysProcAttr) (r result, stop func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	b, err := json.Marshal(k)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(os.Environ(), roleVar+"="+role, taskVar+"="+string(b))
	cmd.SysProcAttr = attr
	cmd.Stderr = os.Stderr
	in := must(cmd.StdinPipe())
	out := bufio.NewReader(must(cmd.StdoutPipe()))
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", role, err)
	}
	ended := false
	stop = func() {
		if !ended {
			ended = true
			_ = in.Close()
			_, _ = io.Copy(io.Discard, out)
			_ = cmd.Wait()
			cancel()
		}
	}
	t.Cleanup(stop)
	line, err := out.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &r)
	}
	if err != nil {
		t.Fatalf("%s: %v in %q", role, err, line)
	}
	return r, stop
}

const guest = 4242 // a uid nobody has

// Only root can become someone else; as anyone else TestPeerUID has to do.
func needRoot(t *testing.T) bool {
	if os.Geteuid() != 0 {
		t.Log("not root: checked with the kernel's word replaced only")
		return false
	}
	return true
}

func TestOtherUIDs(t *testing.T) {
	if !needRoot(t) {
		return
	}
	noFDsLeft(t)
	t.Run("client", func(t *testing.T) {
		for _, tt := range []struct {
			serverAllows, clientAllows []int
			want                       string
		}{
			{[]int{guest}, []int{0}, ""},
			{[]int{guest}, nil, "ErrOwner"}, // root is not trusted for being root
			{[]int{guest + 1}, []int{0}, "ErrUID"},
			{nil, []int{0}, "ErrUID"}, // by the entry's mode already
		} {
			dir := testDir(t)
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			l := listen(t, ListenConfig{Dir: dir, AllowUIDs: tt.serverAllows})
			acceptAll(t, l)
			r, stop := child(t, "dial", task{Dir: dir, UID: guest, Allow: tt.clientAllows}, nil)
			stop()
			if (tt.want == "") != (r.Err == "") || !strings.Contains(r.Err, tt.want) {
				t.Errorf("%+v: got %q", tt, r.Err)
			}
			if tt.want == "ErrUID" && tt.serverAllows != nil && l.Stats() != (Stats{RefusedUID: 1}) {
				t.Errorf("%+v: stats %+v", tt, l.Stats())
			}
		}
	})
	t.Run("server", func(t *testing.T) {
		for _, tt := range []struct {
			serverAllows, clientAllows []int
			chown                      bool // the entry is made to look like ours
			want                       error
		}{
			{[]int{0}, []int{guest}, false, nil},
			{[]int{0}, nil, false, ErrOwner},
			{[]int{0}, nil, true, ErrUID},
			{nil, []int{guest}, false, ErrUID}, // the server does not serve root
		} {
			dir := testDir(t)
			if err := os.Chown(dir, guest, guest); err != nil {
				t.Fatal(err)
			}
			r, stop := child(t, "serve", task{Dir: dir, UID: guest, Allow: tt.serverAllows}, nil)
			if r.Err != "" {
				t.Fatal(r.Err)
			}
			if tt.chown {
				if err := errors.Join(os.Chown(dir, 0, 0), os.Lchown(filepath.Join(dir, entryName(testKey)), 0, 0)); err != nil {
					t.Fatal(err)
				}
			}
			c, _, err := dialOnce(t, dir, DialConfig{AllowUIDs: tt.clientAllows})
			if !errors.Is(err, tt.want) {
				t.Errorf("%+v: got %v", tt, err)
			}
			if c != nil {
				if c.Info().Peer.UID != guest {
					t.Errorf("peer %+v", c.Info().Peer)
				}
				_ = c.Close()
			}
			stop()
		}
	})
}

func TestForeignOwners(t *testing.T) {
	if !needRoot(t) {
		return
	}
	for _, what := range []string{"folder", "entry"} {
		dir := testDir(t)
		rawListen(t, dir)
		path := dir
		if what == "entry" {
			path = filepath.Join(dir, entryName(testKey))
		}
		if err := os.Lchown(path, 65534, 65534); err != nil {
			t.Fatal(err)
		}
		if _, _, err := dialOnce(t, dir, DialConfig{}); !errors.Is(err, ErrOwner) {
			t.Errorf("%s: got %v", what, err)
		}
		if what == "folder" {
			if _, err := Listen(ListenConfig{Dir: dir, Keys: []Key{testKey}}); !errors.Is(err, ErrOwner) {
				t.Errorf("server: got %v", err)
			}
		}
	}
}

// A server killed without a chance to clean up leaves an entry that clients see
// through and the next server replaces.
func TestKilledServer(t *testing.T) {
	dir := testDir(t)
	for range 3 {
		ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
		cmd := exec.CommandContext(ctx, "/proc/self/exe")
		cmd.Env = append(os.Environ(), roleVar+"=serve", fmt.Sprintf("%s={\"Dir\":%q}", taskVar, dir))
		in := must(cmd.StdinPipe())
		out := bufio.NewReader(must(cmd.StdoutPipe()))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		_, _ = out.ReadString('\n')
		c, _, err := dialOnce(t, dir, DialConfig{})
		if err != nil {
			t.Fatal(err)
		}
		m := newMailbox()
		c.Start(m)
		_ = cmd.Process.Kill()
		select {
		case <-m.closed:
		case <-time.After(patience):
			t.Fatal("client does not see the death")
		}
		_, _ = c.Close(), cmd.Wait()
		_ = in.Close()
		cancel()
		if _, _, err := dialOnce(t, dir, DialConfig{}); !errors.Is(err, ErrStale) {
			t.Fatalf("got %v, want %v", err, ErrStale)
		}
	}
}

// The same loopback address in another network namespace is another server; an
// address that means the same everywhere is the same.
func TestNetworkNamespaces(t *testing.T) {
	attr := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if os.Geteuid() != 0 {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
	}
	here, _ := child(t, "keys", task{}, nil)
	there, _ := child(t, "keys", task{}, attr)
	if here.Err != "" || there.Err != "" {
		t.Fatal(here.Err, there.Err)
	}
	own, _ := child(t, "keys", task{}, nil)
	if !slices.Equal(own.Keys, here.Keys) {
		t.Errorf("two processes of one namespace: %q, %q", here.Keys, own.Keys)
	}
	for i, same := range []bool{false, true, false} {
		if (here.Keys[i] == there.Keys[i]) != same {
			t.Errorf("keys %q and %q", here.Keys[i], there.Keys[i])
		}
	}
}

func TestUIDMap(t *testing.T) {
	for m, want := range map[string]bool{
		"         0          0 4294967295\n":  true,
		"         0       1000          1\n":  false,
		"0 1000 1\n1 100000 65536\n":          false,
		"0 0 65536\n65536 65536 4294901759\n": true,
		"":                                    false,
	} {
		if got := mapsAll([]byte(m)); got != want {
			t.Errorf("%q: %v", m, got)
		}
	}
}
