package demo

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
)

// programs are the shop's, each after those that it calls.
var programs = []string{"catalog", "inventory", "pricing", "mailer", "orders", "gateway"}

// calls are the programs that a program calls.
var calls = map[string][]string{
	"orders":  {"inventory", "pricing", "mailer"},
	"gateway": {"catalog", "inventory", "pricing", "orders"},
}

// ErrNoShop says that the shop's programs are not where they should be.
var ErrNoShop = errors.New("the shop's programs are not built")

// FindShop returns an error that wraps [ErrNoShop] unless folder holds the six
// programs.
func FindShop(folder string) error {
	for _, name := range programs {
		info, err := os.Stat(executable(folder, name))
		if err == nil && !info.Mode().IsRegular() {
			err = fmt.Errorf("%s is not a file", executable(folder, name))
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrNoShop, err)
		}
	}
	return nil
}

func executable(folder, name string) string {
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	return filepath.Join(folder, name)
}

// setConfig says how to start a set of the six programs.
type setConfig struct {
	bin      string              // folder with the programs
	data     string              // folder for databases, the same for all sets
	network  string              // "unix" or "tcp"
	sockets  string              // folder for unix sockets
	stile    string              // value of STILE: "on" or "off"
	dir      string              // value of STILE_DIR
	policy   string              // value of SHOP_POLICY; empty: none
	faults   string              // folder for control files of faults, named as the programs; empty: none
	traces   string              // OTLP endpoint for what is traced; empty: there is none
	hub      string              // that is told what was counted; empty: there is none
	inFlight int                 // requests at most
	args     map[string][]string // more flags, by program
}

// set is six running programs.
type set struct {
	cfg       setConfig
	fail      func(error) // called when a program ends that should not
	send      request
	processes []*process // in the order of programs
	transport *http.Transport

	mu       sync.Mutex
	stopping bool
	watchers sync.WaitGroup
}

// startSet starts the programs, and returns when all listen. fail is called when
// one of them ends before it should.
func startSet(ctx context.Context, cfg setConfig, fail func(error)) (*set, error) {
	s := &set{cfg: cfg, fail: fail}
	for _, name := range programs {
		p, err := s.startProgram(ctx, name)
		if err != nil {
			s.kill()
			return nil, err
		}
		s.processes = append(s.processes, p)
	}
	s.send, s.transport = requester(s.process("gateway").address, cfg.inFlight)
	return s, nil
}

// startProgram starts a program whose end is watched.
func (s *set) startProgram(ctx context.Context, name string) (*process, error) {
	p, err := startProcess(ctx, executable(s.cfg.bin, name), s.cfg.environment(name), s.args(name)...)
	if err != nil {
		return nil, err
	}
	s.watchers.Go(func() {
		<-p.done
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.stopping && !p.toEnd {
			s.fail(p.ended())
		}
	})
	return p, nil
}

// killProgram ends one program without warning. It must not be called beside other methods.
func (s *set) killProgram(name string) {
	p := s.process(name)
	s.mu.Lock()
	p.toEnd = true
	s.mu.Unlock()
	p.kill()
}

// restart starts a program that was killed, and returns when it listens where it did.
// It must not be called beside other methods.
func (s *set) restart(ctx context.Context, name string) error {
	p, err := s.startProgram(ctx, name)
	if err != nil {
		return err
	}
	s.processes[slices.Index(programs, name)] = p
	return nil
}

// environment is this process's, but for what would have the program do otherwise
// than c says.
func (c setConfig) environment(name string) []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "STILE=") || strings.HasPrefix(v, "STILE_DIR=") || strings.HasPrefix(v, "STILE_HUB=") || strings.HasPrefix(v, "SHOP_") || strings.HasPrefix(v, "OTEL_")
	})
	env = append(env, "STILE="+c.stile, "STILE_DIR="+c.dir)
	if c.policy != "" {
		env = append(env, "SHOP_POLICY="+c.policy, "XDG_STATE_HOME="+filepath.Join(c.data, "state"))
	}
	if c.faults != "" {
		env = append(env, "SHOP_FAULTS="+filepath.Join(c.faults, name))
	}
	if c.traces != "" {
		env = append(env, "OTEL_EXPORTER_OTLP_ENDPOINT="+c.traces, "OTEL_BSP_MAX_QUEUE_SIZE=65536")
	}
	if c.hub != "" {
		env = append(env, "STILE_HUB="+c.hub)
	}
	return env
}

// args are the flags of a program, for the address it had if it has run before.
func (s *set) args(name string) []string {
	cfg := s.cfg
	listen := "127.0.0.1:0"
	if i := slices.Index(programs, name); i < len(s.processes) {
		listen = s.processes[i].address
	} else if cfg.network == "unix" {
		listen = "unix://" + filepath.Join(cfg.sockets, name)
	}
	args := []string{"--listen", listen}
	if name == "catalog" || name == "inventory" {
		args = append(args, "--db", filepath.Join(cfg.data, name+".db"))
	}
	for _, callee := range calls[name] {
		args = append(args, "--"+callee, s.process(callee).address)
	}
	return append(args, cfg.args[name]...)
}

func (s *set) process(name string) *process { return s.processes[slices.Index(programs, name)] }

func (s *set) pids() []int {
	pids := make([]int, len(s.processes))
	for i, p := range s.processes {
		pids[i] = p.cmd.Process.Pid
	}
	return pids
}

// stop ends the programs one after the other, callers first, each when it has
// done what it was doing.
func (s *set) stop(ctx context.Context) error {
	s.expectEnd()
	var errs []error
	for _, p := range slices.Backward(s.processes) {
		errs = append(errs, p.stop(ctx, stopLimit))
	}
	s.watchers.Wait()
	return errors.Join(errs...)
}

// kill ends all programs at once.
func (s *set) kill() {
	s.expectEnd()
	for _, p := range s.processes {
		_ = p.cmd.Process.Kill()
	}
	for _, p := range s.processes {
		<-p.done
	}
	s.watchers.Wait()
}

func (s *set) expectEnd() {
	s.mu.Lock()
	s.stopping = true
	s.mu.Unlock()
	if s.transport != nil {
		s.transport.CloseIdleConnections()
	}
}
