package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/stile-ipc/stile/cmd/stile/internal/bench"
)

// containerEnv has this binary become a container, which it describes as JSON, and
// then stile.
const containerEnv = "STILE_TEST_CONTAINER"

// container is a process in network, mount, process and IPC namespaces of its own.
type container struct {
	// ReadOnly has all be read-only but Volumes: /run, /tmp and the root too. There
	// is no /dev/shm.
	ReadOnly bool
	Volumes  []string
}

// enter makes this process's namespaces what c says.
func (c container) enter() error {
	mount := func(source, target, kind string, flags uintptr) error {
		if err := unix.Mount(source, target, kind, flags, ""); err != nil {
			return fmt.Errorf("mount %s: %w", target, err)
		}
		return nil
	}
	if err := loopbackUp(); err != nil {
		return err
	}
	if err := mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE); err != nil || !c.ReadOnly {
		return err
	}
	for _, v := range c.Volumes {
		if err := mount(v, v, "", unix.MS_BIND); err != nil {
			return err
		}
	}
	all := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(unix.AT_FDCWD, "/", unix.AT_RECURSIVE, all); err != nil {
		return fmt.Errorf("make all read-only: %w", err)
	}
	for _, v := range c.Volumes {
		if err := unix.MountSetattr(unix.AT_FDCWD, v, 0, &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}); err != nil {
			return fmt.Errorf("make %s writable: %w", v, err)
		}
	}
	if _, err := os.Stat("/dev/shm"); err == nil {
		return mount("none", "/dev/shm", "tmpfs", unix.MS_RDONLY)
	}
	return nil
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	return nil
}

// enterContainer becomes stile in a container, if this process is to.
func enterContainer() {
	text := os.Getenv(containerEnv)
	if text == "" {
		return
	}
	var c container
	err := json.Unmarshal([]byte(text), &c)
	if err == nil {
		err = c.enter()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "container:", err)
		os.Exit(exitFailure)
	}
	main()
}

// stile returns a command that runs stile in c.
func (c container) stile(t *testing.T, env []string, args ...string) *exec.Cmd {
	t.Helper()
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append([]string{containerEnv + "=" + string(text), "PATH=" + os.Getenv("PATH"), "GORACE=atexit_sleep_ms=0"}, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
	}
	if uid := os.Geteuid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}}
	}
	return cmd
}

// serve runs an echo server in c until the test ends. What it says on standard
// error can be read once stop has returned.
func (c container) serve(t *testing.T, env []string, address string) (stop func() string) {
	t.Helper()
	cmd := c.stile(t, env, "bench", "serve", "--json", "--until-eof", address)
	var said bytes.Buffer
	cmd.Stderr = &said
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal("start a container (it needs root, or user namespaces): ", err)
	}
	ended := false
	stop = func() string {
		if !ended {
			ended = true
			_ = in.Close()
			_, _ = io.Copy(io.Discard, out)
			if err := cmd.Wait(); err != nil {
				t.Errorf("the server: %v: %s", err, said.String())
			}
		}
		return said.String()
	}
	t.Cleanup(func() { stop() })
	var l bench.Listening
	if err := json.NewDecoder(bufio.NewReader(out)).Decode(&l); err != nil {
		t.Fatalf("the server did not start: %v: %s", err, stop())
	}
	return stop
}

// run runs stile in c and returns what it prints and its exit code.
func (c container) run(t *testing.T, env []string, args ...string) (text string, code int) {
	t.Helper()
	cmd := c.stile(t, env, args...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// TestContainers has a server and its client in two containers of one host that
// share a folder.
func TestContainers(t *testing.T) {
	ordinary := container{}
	for _, c := range []struct {
		name           string
		server, client func(volume string) container
		env            func(volume string) []string
		says           string // by doctor in the client's container
		code           int
		warns          string // by the server
	}{
		{
			name:   "a folder of doors that both mount",
			server: func(string) container { return ordinary },
			client: func(string) container { return ordinary },
			env:    func(v string) []string { return []string{"STILE_DIR=" + v + "/doors"} },
			says:   "would go through shared memory", code: exitOK,
		},
		{
			name:   "no /dev/shm, and nothing writable but that folder",
			server: func(v string) container { return container{ReadOnly: true, Volumes: []string{v}} },
			client: func(v string) container { return container{ReadOnly: true, Volumes: []string{v}} },
			env:    func(v string) []string { return []string{"STILE_DIR=" + v + "/doors"} },
			says:   "would go through shared memory", code: exitOK,
		},
		{
			name:   "a writable folder for temporary files",
			server: func(v string) container { return container{ReadOnly: true, Volumes: []string{v}} },
			client: func(string) container { return ordinary },
			env:    func(v string) []string { return []string{"TMPDIR=" + v} },
			says:   "would go through shared memory", code: exitOK,
		},
		{
			name:   "no place for a door",
			server: func(v string) container { return container{ReadOnly: true, Volumes: []string{v}} },
			client: func(string) container { return ordinary },
			env:    func(v string) []string { return []string{"TMPDIR=/nowhere"} },
			says:   "has no local door that this process can see", code: exitFinding,
			warns: "no folder to publish in",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			volume, err := os.MkdirTemp("", "v") // short, for unix sockets
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = os.RemoveAll(volume) }()
			target, env := "unix://"+filepath.Join(volume, "echo"), c.env(volume)
			stop := c.server(volume).serve(t, env, target)
			client := c.client(volume)
			text, code := doctorSettles(t, client, env, target, c.code)
			if code != c.code || !strings.Contains(text, c.says) {
				t.Errorf("doctor: exit %d, %s\nwant %d, %q", code, text, c.code, c.says)
			}
			text, code = client.run(t, env, "bench", "--target", target, "--window", "10ms", "--rounds", "1", "--callers", "1", "--sizes", "64,64KiB")
			if shm := strings.Contains(text, "\n  shm "); code > exitFinding || shm != (c.code == exitOK) || !strings.Contains(text, "\n  grpc ") {
				t.Errorf("bench: exit %d, %s", code, text)
			}
			if said := stop(); (c.warns != "") != (said != "") || !strings.Contains(said, c.warns) {
				t.Errorf("the server says %q, want %q", said, c.warns)
			}
		})
	}
}

// doctorSettles asks doctor, which may be early: a door opens just after its server
// listens.
func doctorSettles(t *testing.T, c container, env []string, target string, want int) (text string, code int) {
	t.Helper()
	for range 50 {
		if text, code = c.run(t, env, "doctor", target); code == want {
			break
		}
	}
	return text, code
}

// TestLoopbackOfAnotherContainer: the same address in two network namespaces is two
// servers, even where they share their doors.
func TestLoopbackOfAnotherContainer(t *testing.T) {
	env := []string{"STILE_DIR=" + filepath.Join(t.TempDir(), "doors")}
	const address = "127.0.0.1:47901" // in a namespace of its own
	container{}.serve(t, env, address)
	text, code := container{}.run(t, env, "doctor", address)
	if code != exitFinding || !strings.Contains(text, "would go over gRPC") {
		t.Errorf("exit %d, %s", code, text)
	}
}
