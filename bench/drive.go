package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// patience is what a run may take beyond its warm-up and window.
const patience = 30 * time.Second

// grace is how long a server may take to end after its client has failed.
const grace = 5 * time.Second

// driver runs the pairs of processes of a plan, one pair at a time.
type driver struct {
	exe    string // this program
	dir    string // for sockets
	pairs  int
	stderr io.Writer // of the processes
}

// newDriver makes a folder for sockets; close removes it.
func newDriver(stderr io.Writer) (*driver, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "stile-bench-")
	if err != nil {
		return nil, err
	}
	return &driver{exe: exe, dir: dir, stderr: stderr}, nil
}

func (d *driver) close() error { return os.RemoveAll(d.dir) }

// runPlan returns the rows of the plan, cell by cell and in the order of the
// peers. It ends at the first run that fails.
func (d *driver) runPlan(ctx context.Context, p plan, progress io.Writer) ([]row, error) {
	type key struct{ cell, peer string }
	samples := make(map[key][]sample)
	for round := range p.rounds {
		for i, c := range p.cells {
			for _, peer := range p.orderOf(round, i) {
				s, err := d.runPair(ctx, peer, job{Peer: peer.name, Cell: c, Warmup: p.warmup, Window: p.window, Profiles: p.profiles})
				if err != nil {
					return nil, fmt.Errorf("%s, %s, round %d: %w", peer.name, c, round+1, err)
				}
				k := key{c.String(), peer.name}
				samples[k] = append(samples[k], *s)
				fmt.Fprintf(progress, "round %d/%d  %-26s %-10s p50 %.1f µs, %.0f calls/s\n",
					round+1, p.rounds, c, peer.name, s.P50, s.CallsPerS)
			}
		}
	}
	var rows []row
	for _, c := range p.cells {
		for _, peer := range p.peersIn(c) {
			rows = append(rows, rowOf(peer.name, c, samples[key{c.String(), peer.name}]))
		}
	}
	return rows, nil
}

// runPair runs one server and one client and returns what the client measured.
// Both processes have ended when it returns.
func (d *driver) runPair(ctx context.Context, p peer, j job) (_ *sample, err error) {
	d.pairs++
	j.Limit = j.Warmup + j.Window + patience
	j.Address = "127.0.0.1:0"
	if p.network == "unix" {
		j.Address = filepath.Join(d.dir, fmt.Sprintf("%d.sock", d.pairs))
	}
	// The client gives up first, and says where it hung.
	ctx, cancel := context.WithTimeout(ctx, j.Limit+patience)
	defer cancel()
	pipes, err := newControlPipes()
	if err != nil {
		return nil, err
	}
	defer pipes.close()
	server, err := d.command(ctx, p, j, "server", pipes.serverIn, pipes.serverOut)
	if err != nil {
		return nil, err
	}
	client, err := d.command(ctx, p, j, "client", pipes.clientIn, pipes.clientOut)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	client.Stdout = &out
	if err := server.Start(); err != nil {
		return nil, fmt.Errorf("start server: %w", err)
	}
	if err := client.Start(); err != nil {
		cancel()
		return nil, errors.Join(fmt.Errorf("start client: %w", err), server.Wait())
	}
	pipes.close() // each process now sees the other's end
	clientErr := client.Wait()
	if clientErr != nil {
		// The server ends by itself when the client's pipe closes, and may have more
		// to say about the cause.
		defer time.AfterFunc(grace, cancel).Stop()
	}
	if err := errors.Join(wrapExit("client", clientErr), wrapExit("server", server.Wait())); err != nil {
		return nil, err
	}
	s := new(sample)
	if err := json.Unmarshal(out.Bytes(), s); err != nil {
		return nil, fmt.Errorf("client's sample: %w", err)
	}
	return s, nil
}

func wrapExit(role string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", role, err)
}

// command prepares one process. When ctx ends it is killed by its id.
func (d *driver) command(ctx context.Context, p peer, j job, role string, in, out *os.File) (*exec.Cmd, error) {
	text, err := json.Marshal(j)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, d.exe)
	cmd.Env = append(ownEnv(), roleEnv+"="+role, jobEnv+"="+string(text),
		"STILE_DIR="+filepath.Join(d.dir, "doors")) // not seen by, and not seeing, others
	cmd.Env = append(cmd.Env, p.env...)
	cmd.Stderr = d.stderr
	cmd.ExtraFiles = []*os.File{in, out}
	return cmd, nil
}

// ownEnv is this process's environment without what a peer decides.
func ownEnv() []string {
	var env []string
	for _, kv := range os.Environ() {
		switch name, _, _ := strings.Cut(kv, "="); name {
		case "STILE", "STILE_DIR", "STILE_TRANSPORT", roleEnv, jobEnv:
		default:
			env = append(env, kv)
		}
	}
	return env
}

// controlPipes are the two pipes between the processes.
type controlPipes struct {
	serverIn, clientOut *os.File
	clientIn, serverOut *os.File
}

func newControlPipes() (p *controlPipes, err error) {
	p = new(controlPipes)
	if p.serverIn, p.clientOut, err = os.Pipe(); err != nil {
		return nil, err
	}
	if p.clientIn, p.serverOut, err = os.Pipe(); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// close gives up this process's ends. It may be called again.
func (p *controlPipes) close() {
	for _, f := range []*os.File{p.serverIn, p.clientOut, p.clientIn, p.serverOut} {
		if f != nil {
			_ = f.Close() // nothing was written through it
		}
	}
}
