// Package shoptest builds the shop's programs, and runs them for tests: each
// as a process of its own, stopped and waited for before the test ends.
package shoptest

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// watchdog ends a wait that would never end; nothing is expected to take so long.
const watchdog = time.Minute

// Programs lists the shop's programs, each after those that it calls.
var Programs = []string{"catalog", "inventory", "pricing", "mailer", "orders", "gateway"}

// Build compiles the programs into folder, with the race detector if the
// caller has it.
func Build(ctx context.Context, folder string) error {
	args := append([]string{"build", "-o", folder + string(filepath.Separator)}, buildFlags...)
	for _, name := range Programs {
		args = append(args, "github.com/stile-ipc/stile/examples/shop/"+name)
	}
	if out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("build the shop: %w\n%s", err, out)
	}
	return nil
}

// Config says how to start a shop. Its zero value starts one on TCP.
type Config struct {
	Bin   string              // folder that [Build] filled
	Data  string              // folder for databases and sockets
	Unix  bool                // listen on unix sockets, not on loopback TCP
	Env   []string            // added to the environment, as in "STILE=off"
	Args  map[string][]string // more flags, by program
	Calls map[string]string   // targets to call in place of the shop's own program, by its name
}

// Shop is a running shop.
type Shop struct {
	Client *http.Client // reaches the gateway at [Shop.URL]
	URL    string

	cfg       Config
	processes map[string]*Process
}

// Start starts the programs and returns when all are ready. They are stopped
// when the test ends.
func Start(t *testing.T, cfg Config) *Shop {
	t.Helper()
	shop := &Shop{cfg: cfg, processes: make(map[string]*Process, len(Programs))}
	sockets := cfg.Data
	if cfg.Unix {
		sockets = socketFolder(t)
	}
	for _, name := range Programs {
		listen := "127.0.0.1:0"
		if cfg.Unix {
			listen = "unix://" + filepath.Join(sockets, name+".sock")
		}
		shop.start(t, name, listen)
	}
	shop.URL, shop.Client = dial(shop.processes["gateway"].Address)
	t.Cleanup(shop.Client.CloseIdleConnections)
	return shop
}

func (s *Shop) start(t *testing.T, name, listen string) {
	t.Helper()
	args := append([]string{"--listen", listen}, s.flags(name)...)
	s.processes[name] = Run(t, filepath.Join(s.cfg.Bin, name), s.cfg.Env, append(args, s.cfg.Args[name]...)...)
}

// Restart starts a program that has ended, at the address it had.
func (s *Shop) Restart(t *testing.T, name string) {
	t.Helper()
	s.start(t, name, s.processes[name].Address)
}

// Process returns the named program's process.
func (s *Shop) Process(name string) *Process { return s.processes[name] }

// Stop asks every program to end, callers first, and fails the test unless all
// do, and without an error.
func (s *Shop) Stop(t *testing.T) {
	t.Helper()
	s.Client.CloseIdleConnections()
	for i := len(Programs) - 1; i >= 0; i-- {
		process := s.processes[Programs[i]]
		process.Terminate(t)
		if err := process.Wait(t); err != nil {
			t.Errorf("%s ended with %v\n%s", Programs[i], err, process.Log())
		}
	}
}

// flags gives program name its database, and the targets of the programs it calls.
func (s *Shop) flags(name string) []string {
	var callees []string
	switch name {
	case "catalog", "inventory":
		return []string{"--db", filepath.Join(s.cfg.Data, name+".db")}
	case "orders":
		callees = []string{"inventory", "pricing", "mailer"}
	case "gateway":
		callees = []string{"catalog", "inventory", "pricing", "orders"}
	}
	var args []string
	for _, callee := range callees {
		target, ok := s.cfg.Calls[callee]
		if !ok {
			target = s.processes[callee].Address
		}
		args = append(args, "--"+callee, target)
	}
	return args
}

// socketFolder is short: the path of a unix socket holds 107 bytes at most.
func socketFolder(t *testing.T) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "shop")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	return folder
}

func dial(address string) (string, *http.Client) {
	transport := &http.Transport{MaxIdleConnsPerHost: 16}
	client := &http.Client{Transport: transport, Timeout: watchdog}
	path, ok := strings.CutPrefix(address, "unix://")
	if !ok {
		return "http://" + address, client
	}
	transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
	return "http://shop", client
}

// Process is one running program.
type Process struct {
	Address string // from its ready line

	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
	err  error         // valid once done is closed

	mu      sync.Mutex
	log     bytes.Buffer
	changed chan struct{} // closed and replaced when the log grows
}

// Run starts a program and returns when it has printed its ready line. It is
// killed when the test ends, if it still runs.
func Run(t *testing.T, program string, env []string, args ...string) *Process {
	t.Helper()
	p := &Process{done: make(chan struct{}), changed: make(chan struct{})}
	p.cmd = exec.Command(program, args...)
	p.cmd.Env = slices.Concat(environment, os.Environ(), env)
	p.cmd.Stderr = p
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(stdout).ReadString('\n')
		ready <- line
		_, _ = io.Copy(io.Discard, stdout)
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
	})
	select {
	case line := <-ready:
		address, ok := strings.CutPrefix(strings.TrimSpace(line), "ready ")
		if !ok {
			_ = p.cmd.Process.Kill()
			<-p.done
			t.Fatalf("%s printed %q, not a ready line; %v\n%s", filepath.Base(program), line, p.err, p.Log())
		}
		p.Address = address
	case <-time.After(watchdog):
		t.Fatalf("%s is not ready\n%s", filepath.Base(program), p.Log())
	}
	return p
}

// PID returns the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Write takes what the program writes to standard error.
func (p *Process) Write(text []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.changed)
	p.changed = make(chan struct{})
	return p.log.Write(text)
}

// Log returns what the program has written to standard error.
func (p *Process) Log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// AwaitLog returns when text is in the log.
func (p *Process) AwaitLog(t *testing.T, text string) {
	t.Helper()
	limit := time.After(watchdog)
	for {
		p.mu.Lock()
		found, changed := strings.Contains(p.log.String(), text), p.changed
		p.mu.Unlock()
		if found {
			return
		}
		select {
		case <-changed:
		case <-limit:
			t.Fatalf("no %q in the log\n%s", text, p.Log())
		}
	}
}

// Terminate sends SIGTERM.
func (p *Process) Terminate(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatalf("terminate %s: %v", p.cmd.Path, err)
	}
}

// Kill ends the process without warning, and waits for that.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// Wait returns how the process ended: nil for status 0.
func (p *Process) Wait(t *testing.T) error {
	t.Helper()
	select {
	case <-p.done:
		return p.err
	case <-time.After(watchdog):
		t.Fatalf("%s does not end\n%s", p.cmd.Path, p.Log())
		return nil
	}
}
