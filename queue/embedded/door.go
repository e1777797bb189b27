package embedded

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// Other processes of the same user come in by a unix socket in the server's folder, and speak NATS's protocol there.
const (
	doorDir     = "door" // 0700: who cannot enter it cannot connect
	doorName    = "nats.sock"
	maxVisits   = 1024
	acceptAgain = 100 * time.Millisecond
	maxSunPath  = 103 // bytes of a socket's path that all systems take
)

func doorPath(dir string) string { return filepath.Join(dir, doorDir, doorName) }

// door lets other processes in.
type door struct {
	listener net.Listener
	server   *server.Server
	log      *slog.Logger
	all      sync.WaitGroup

	mu     sync.Mutex
	visits map[net.Conn]struct{} // nil: the door is shut
}

// openDoor listens. The caller has the folder's lock, so a socket that is there is a dead process's.
func openDoor(dir string, s *server.Server, log *slog.Logger) (*door, error) {
	path := doorPath(dir)
	if len(path) > maxSunPath {
		log.Warn("queue: other processes cannot use it: the path of its socket is too long", "path", path, "most", maxSunPath)
		return nil, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	if err := os.Chmod(filepath.Dir(path), 0o700); err != nil { // it may be older than this process
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	d := &door{listener: l, server: s, log: log, visits: map[net.Conn]struct{}{}}
	d.all.Go(d.accept)
	return d, nil
}

func (d *door) accept() {
	for {
		c, err := d.listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			d.log.Warn("queue: another process cannot be let in now", "error", err)
			time.Sleep(acceptAgain) // there may be no descriptors for a while
			continue
		}
		if !d.enter(c) {
			c.Close()
			continue
		}
		d.all.Go(func() {
			defer d.leave(c)
			d.visit(c)
		})
	}
}

// visit carries bytes between a process and the server until either ends.
func (d *door) visit(c net.Conn) {
	in, err := d.server.InProcessConn()
	if err != nil {
		d.log.Warn("queue: another process was not let in", "error", err)
		return
	}
	var back sync.WaitGroup
	back.Go(func() {
		defer c.Close()
		_, _ = io.Copy(c, in) // the end of either is told to both by closing
	})
	_, _ = io.Copy(in, c)
	in.Close()
	back.Wait()
}

func (d *door) enter(c net.Conn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.visits == nil {
		return false
	}
	if len(d.visits) >= maxVisits {
		d.log.Warn("queue: another process was not let in: there are as many as may be", "most", maxVisits)
		return false
	}
	d.visits[c] = struct{}{}
	return true
}

func (d *door) leave(c net.Conn) {
	c.Close()
	d.mu.Lock()
	delete(d.visits, c)
	d.mu.Unlock()
}

// shut sends all away. A nil door is shut.
func (d *door) shut() {
	if d == nil {
		return
	}
	d.listener.Close()
	d.mu.Lock()
	for c := range d.visits {
		c.Close()
	}
	d.visits = nil
	d.mu.Unlock()
	d.all.Wait()
}

// ErrAway is what Visit returns while no process has the folder's server.
var ErrAway = errors.New("no process has it open")

// Visit connects to the server that another process, of the same user, has started on a folder. The connection is the caller's; it comes back
// when that server does.
func Visit(dir string, opts ...nats.Option) (*nats.Conn, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("embedded: %w", err)
	}
	if n := len(doorPath(dir)); n > maxSunPath {
		return nil, fmt.Errorf("embedded: %s: the path of its socket has %d bytes, at most %d can be used: choose a folder with a shorter path", dir, n, maxSunPath)
	}
	visit := &visitor{path: doorPath(dir)}
	nc, err := nats.Connect("nats://127.0.0.1", append([]nats.Option{nats.SetCustomDialer(visit)}, opts...)...)
	if err != nil && visit.err != nil {
		err = fmt.Errorf("%w: %w", ErrAway, visit.err)
	}
	if err != nil {
		return nil, fmt.Errorf("embedded: %s: %w", dir, err)
	}
	return nc, nil
}

// Dial makes a connection to the server that another process has started on a folder. It is the caller's.
func Dial(dir string) (net.Conn, error) {
	c, err := dialDoor(doorPath(dir))
	if err != nil {
		return nil, fmt.Errorf("embedded: %s: %w: %w", dir, ErrAway, err)
	}
	return c, nil
}

func dialDoor(path string) (net.Conn, error) {
	c, err := net.Dial("unix", path)
	if err != nil {
		return nil, err
	}
	if err := ours(c); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// visitor dials a door, wherever it is asked to.
type visitor struct {
	path string
	err  error // the first dial's: NATS does not tell it
}

func (v *visitor) Dial(_, _ string) (c net.Conn, err error) {
	c, v.err = dialDoor(v.path)
	return c, v.err
}
