package hostmap

import (
	"bufio"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/stile-ipc/stile/routemap"
)

const childEnv = "HOSTMAP_TEST_CHILD" // unix socket's path and TCP's address: this process connects, says so, and waits for its input to end

func TestMain(m *testing.M) {
	if at := os.Getenv(childEnv); at != "" {
		child(strings.Fields(at))
	}
	goleak.VerifyTestMain(m)
}

func child(at []string) {
	if len(at) == 3 {
		pour(at)
	}
	u, err := net.Dial("unix", at[0])
	if err != nil {
		panic(err)
	}
	if len(at) == 1 {
		wait(u)
	}
	t, err := net.Dial("tcp", at[1])
	if err != nil {
		panic(err)
	}
	if _, err := t.Write([]byte("12345")); err != nil {
		panic(err)
	}
	if _, err := unix.Mmap(3, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		panic(err)
	}
	wait(u, t)
}

// wait says that all is connected, and ends the process when its input does. Until then nothing that it has is closed for it.
func wait(has ...net.Conn) {
	_, _ = os.Stdout.WriteString("connected\n")
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	runtime.KeepAlive(has)
	os.Exit(0)
}

// startChild starts a process that does as child says of some places, and returns when it has connected to the listeners.
func startChild(t *testing.T, listeners []net.Listener, at string, files ...*os.File) (pid int) {
	t.Helper()
	return startCmd(t, exec.Command(os.Args[0]), listeners, at, files...)
}

func startCmd(t *testing.T, cmd *exec.Cmd, listeners []net.Listener, at string, files ...*os.File) (pid int) {
	t.Helper()
	cmd.Env = append(os.Environ(), childEnv+"="+at)
	cmd.ExtraFiles = files
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	for _, l := range listeners {
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(line, err)
	}
	return cmd.Process.Pid
}

// TestScan: what a process has with this one is found, each way that it is, and no other.
func TestScan(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	u, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	fd, err := unix.MemfdCreate("hostmap-test", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "memory")
	defer file.Close()
	if err := file.Truncate(4096); err != nil {
		t.Fatal(err)
	}
	memory, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(memory) }()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	defer r.Close()
	pid := startChild(t, []net.Listener{u, l}, path+" "+l.Addr().String(), file, r)
	_ = r.Close()
	if _, err := w.Write([]byte("seven b")); err != nil {
		t.Fatal(err)
	}
	h, err := Scan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var ours []Edge
	me, it := End{PID: os.Getpid()}, End{PID: pid}
	for _, e := range h.Edges {
		if e.From == me && e.To == it || e.From == it && e.To == me {
			ours = append(ours, e)
		}
	}
	want := []Edge{
		{From: me, To: it, Transport: routemap.Pipe, Count: 2, Directed: true, Unread: 7, Known: "fd"},
		{From: it, To: me, Transport: routemap.Pipe, Count: 1, Directed: true, Known: "fd"},
		{From: it, To: me, Transport: routemap.SHM, Via: "/memfd:hostmap-test", Count: 1, Directed: true, Known: "maps"},
		{From: it, To: me, Transport: routemap.TCPLoopback, Via: l.Addr().String(), Count: 1, Directed: true, Unread: 5, Known: "sock_diag"},
		{From: it, To: me, Transport: routemap.UnixStream, Via: path, Count: 1, Directed: true, Known: "sock_diag"},
	}
	for _, w := range want {
		n := 0
		for _, e := range ours {
			if e == w {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%+v is there %d times", w, n)
		}
	}
	if len(ours) != len(want) {
		t.Errorf("%d edges, want %d:\n%s", len(ours), len(want), said(ours))
	}
	names := map[int]string{}
	for _, p := range h.Processes {
		names[p.PID] = p.Name
		if p.PID == it.PID && (time.Since(p.Start).Abs() > 10*time.Minute || p.Netns == 0 || p.Cgroup == "" || p.Voluntary == 0) {
			t.Errorf("%+v", p)
		}
	}
	if names[me.PID] != filepath.Base(os.Args[0]) || names[it.PID] != names[me.PID] || h.Seen < 2 || h.Namespace < 1 {
		t.Errorf("%+v", h.Processes)
	}
}

// TestNamespaces: what a process of other namespaces, of the network and of PIDs, has with this one is found, too, where that namespace may be looked at; where it may not, that is told.
func TestNamespaces(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	u, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	cmd := exec.Command(os.Args[0])
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWPID}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
	}
	pid := startCmd(t, cmd, []net.Listener{u}, path)
	h, err := Scan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var own, its uint64
	for _, p := range h.Processes {
		switch p.PID {
		case os.Getpid():
			own = p.Netns
			if p.OwnPID != p.PID {
				t.Errorf("the process %d calls itself %d", p.PID, p.OwnPID)
			}
		case pid:
			its = p.Netns
			if p.OwnPID != 1 {
				t.Errorf("the first of a PID namespace calls itself %d", p.OwnPID)
			}
		}
	}
	from := End{PID: pid}
	if os.Getuid() != 0 { // its end is in a namespace that only root may look into
		from = End{Address: Unseen}
	}
	found := 0
	for _, e := range h.Edges {
		if e.Transport == routemap.UnixStream && e.Via == path && e.From == from && e.To == (End{PID: os.Getpid()}) {
			found++
		}
	}
	if found != 1 || own == 0 || own == its || os.Getuid() == 0 && (h.Namespace < 2 || its == 0) || os.Getuid() != 0 && h.Elsewhere == 0 {
		t.Errorf("found %d times; namespaces %d and %d; %d looked at, %d not:\n%s", found, own, its, h.Namespace, h.Elsewhere, said(h.Edges))
	}
}
