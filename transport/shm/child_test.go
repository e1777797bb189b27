//go:build linux

package shm

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/stile-ipc/stile/transport"
	"github.com/stile-ipc/stile/transport/wire"
)

// childEnv names the role of a test binary that was started as the peer.
const childEnv = "STILE_SHM_TEST_CHILD"

// The child finds the control socket and the segment's files from fd 3 on.
const childFDs = 3

// child is a peer process with the attached end of a connection.
type child struct {
	conn *Conn // our end, not started
	cmd  *exec.Cmd
	out  *bufio.Reader // what it prints
	in   io.Closer     // closing it asks the child to end in good order
}

// startChild starts this test binary as a peer in the given role. It is killed
// with the test, and our end closed.
func startChild(t testing.TB, role string, cfg Config) *child {
	t.Helper()
	ours, theirs := controlPair(t)
	c, files, err := Create(ours, transport.Info{}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctl, err := theirs.File()
	if err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+role)
	cmd.ExtraFiles = append([]*os.File{ctl}, files...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ctl.Close()
	closeFiles(files)
	p := &child{c, cmd, bufio.NewReader(stdout), stdin}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = c.Close()
	})
	if line, err := p.out.ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("child said %q: %v", line, err)
	}
	return p
}

// kill ends the child as kill -9 does and waits until it is gone.
func (p *child) kill(t testing.TB) {
	t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = p.cmd.Wait()
}

// runChild is the main function of a peer process.
func runChild(role string) {
	f := os.NewFile(childFDs, "control")
	nc, err := net.FileConn(f)
	if err != nil {
		panic(err)
	}
	f.Close()
	ctl := nc.(*net.UnixConn)
	unix.CloseOnExec(childFDs)
	c, err := Attach(ctl, []int{childFDs + 1, childFDs + 2, childFDs + 3}, transport.Info{}, Config{})
	if err != nil {
		panic(err)
	}
	switch role {
	case "echo":
		e := newEchoer(c)
		c.Start(e)
		fmt.Println("ready")
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			_ = c.Close()
		}()
		<-e.closed
	case "deaf": // attached, and never looks
		fmt.Println("ready")
		_, _ = io.Copy(io.Discard, os.Stdin)
	default:
		panic("unknown role " + role)
	}
	s := c.Stats()
	var ru unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &ru)
	fmt.Println(s.Doorbells, s.Parks, s.Polls, s.Spin.Nanoseconds(), ru.Nvcsw+ru.Nivcsw,
		ru.Utime.Nano()+ru.Stime.Nano())
}

// echoer sends every frame back from one of a few parked workers, as a server
// with a pool would.
type echoer struct {
	c      *Conn
	work   chan echoFrame
	closed chan struct{}
	wg     sync.WaitGroup
}

type echoFrame struct {
	h wire.Header
	b *wire.Buf
}

const echoWorkers = 64

func newEchoer(c *Conn) *echoer {
	e := &echoer{c: c, work: make(chan echoFrame, 4096), closed: make(chan struct{})}
	for range echoWorkers {
		e.wg.Go(func() {
			for f := range e.work {
				_ = c.Write(nil, f.h, nil, f.b.B)
				f.b.Release()
			}
		})
	}
	return e
}

func (e *echoer) HandleFrame(h wire.Header, b *wire.Buf) { e.work <- echoFrame{h, b} }

func (e *echoer) HandleClose(error) {
	close(e.work)
	e.wg.Wait()
	close(e.closed)
}

// callers is a Handler for synchronous calls: one waiting caller a stream.
type callers struct {
	slots  []slot
	closed chan error
}

type slot struct {
	done atomic.Bool
	wake chan struct{}
	got  []byte
	_    [64]byte
}

func newCallers(n int) *callers {
	cs := &callers{slots: make([]slot, n), closed: make(chan error, 1)}
	for i := range cs.slots {
		cs.slots[i].wake = make(chan struct{}, 1)
	}
	return cs
}

func (cs *callers) HandleFrame(h wire.Header, b *wire.Buf) {
	s := &cs.slots[h.Stream-1]
	s.got = append(s.got[:0], b.B...)
	b.Release()
	s.done.Store(true)
	s.wake <- struct{}{}
}

func (cs *callers) HandleClose(err error) {
	for i := range cs.slots {
		close(cs.slots[i].wake)
	}
	cs.closed <- err
}

// call sends payload on stream i+1 and waits for its echo, polling if told so.
// It tells whether there was one.
func (cs *callers) call(c *Conn, i int, payload []byte, poll bool) (bool, error) {
	s := &cs.slots[i]
	s.done.Store(false)
	err := c.Write(nil, wire.Header{Type: wire.TypeStream, Stream: uint64(i + 1)}, nil, payload)
	if err != nil {
		return false, err
	}
	if poll {
		c.Poll(&s.done)
	}
	_, ok := <-s.wake
	return ok, nil
}
