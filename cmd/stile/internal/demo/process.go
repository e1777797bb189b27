package demo

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const (
	// readyLimit is how long a program may take to listen.
	readyLimit = 30 * time.Second
	// stopLimit is how long a program may take to end when told to, before it
	// is killed: more than the shop's own limit for draining.
	stopLimit = 15 * time.Second
	// logKept is how much of the end of a program's log is kept, in bytes.
	logKept = 16 << 10
)

// process is a running program of the shop.
type process struct {
	name    string
	address string // from its ready line: host:port or unix:///path

	toEnd bool // by set.mu: its end is no failure

	cmd  *exec.Cmd
	log  tail
	done chan struct{} // closed when the process has ended
	err  error         // how it ended; valid once done is closed
}

// startProcess starts a program and returns when it listens. The process ends by
// itself when this one dies, where the system knows how.
func startProcess(ctx context.Context, program string, env []string, args ...string) (*process, error) {
	p := &process{name: filepath.Base(program), cmd: exec.Command(program, args...), done: make(chan struct{})}
	p.cmd.Env = env
	p.cmd.Stderr = &p.log
	p.cmd.SysProcAttr = childAttr()
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	ready := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReaderSize(stdout, 1024).ReadString('\n')
		ready <- line
		_, _ = io.Copy(io.Discard, stdout)
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	limit := time.NewTimer(readyLimit)
	defer limit.Stop()
	select {
	case line := <-ready:
		address, ok := strings.CutPrefix(strings.TrimSpace(line), "ready ")
		if ok {
			p.address = address
			return p, nil
		}
		p.kill()
		return nil, fmt.Errorf("start %s: it printed %q in place of a ready line%s", p.name, strings.TrimSpace(line), p.last())
	case <-limit.C:
		p.kill()
		return nil, fmt.Errorf("start %s: not ready after %v%s", p.name, readyLimit, p.last())
	case <-ctx.Done():
		p.kill()
		return nil, context.Cause(ctx)
	}
}

// kill ends the process without warning and waits for that.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// stop asks the process to end, and kills it when it has not by the limit or
// when ctx ends. It is an error if it had to be killed or ended with one.
func (p *process) stop(ctx context.Context, within time.Duration) error {
	if err := askToEnd(p.cmd.Process); err != nil {
		p.kill()
	}
	limit := time.NewTimer(within)
	defer limit.Stop()
	select {
	case <-p.done:
	case <-limit.C:
		p.kill()
		return fmt.Errorf("stop %s: still running after %v, killed", p.name, within)
	case <-ctx.Done():
		p.kill()
		return context.Cause(ctx)
	}
	if p.err != nil && stopsGracefully {
		return fmt.Errorf("stop %s: %w%s", p.name, p.err, p.last())
	}
	return nil
}

// ended says how the process ended, which it should not have.
func (p *process) ended() error {
	err := p.err
	if err == nil {
		err = errors.New("exit status 0")
	}
	return fmt.Errorf("%s ended in the middle of the demo: %w%s", p.name, err, p.last())
}

// last returns the end of the log, to follow a message.
func (p *process) last() string {
	if text := p.log.String(); text != "" {
		return "; the end of its log:\n" + text
	}
	return ""
}

// tail keeps the last logKept bytes, at most twice that, of what is written to it.
type tail struct {
	mu   sync.Mutex
	text []byte
}

func (t *tail) Write(text []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, text...)
	if len(t.text) > 2*logKept {
		t.text = append([]byte(nil), t.text[len(t.text)-logKept:]...)
	}
	return len(text), nil
}

// String returns the last ten lines.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(string(t.text)), "\n")
	return strings.Join(lines[max(len(lines)-10, 0):], "\n")
}
