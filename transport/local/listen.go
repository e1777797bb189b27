//go:build unix && !aix && !solaris

package local

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/stile-ipc/stile/transport"
)

// Listener is what [Listen] returns.
//
// It has one socket per key and one goroutine accepting on each. A further
// goroutine per client shakes hands, at most 64 at once; Close ends them all and
// waits for them. Accepted connections are the caller's.
type Listener struct {
	cfg     ListenConfig
	env     env
	log     *slog.Logger
	folder  *folder
	uids    []int
	entries []entry

	slots    chan struct{}       // one per handshake under way
	ready    chan transport.Conn // unbuffered
	draining chan struct{}       // closed by Drain and Close: no new clients
	done     chan struct{}       // closed by Close
	drain    sync.Once
	close    sync.Once
	wg       sync.WaitGroup

	mu     sync.Mutex
	open   map[*net.UnixConn]struct{} // handshakes under way; nil once closed
	stats  Stats
	logged map[string]bool
}

type entry struct {
	key  Key
	name string // file name
	temp string // file name until published; empty afterwards
	id   fileID
	ln   *net.UnixListener
}

// Stats counts what became of the clients of a [Listener].
type Stats struct {
	Accepted  uint64 // shook hands and were given out by Accept
	SHM       uint64 // of these, over shared memory
	Fallbacks uint64 // over the socket although both sides wanted shared memory
	Probes    uint64 // only looked

	RefusedUID     uint64
	RefusedVersion uint64
	RefusedKey     uint64
	RefusedShut    uint64
	Failed         uint64 // garbage, silence, or gone in the middle
}

// Listen publishes an entry for each of cfg.Keys and serves the clients that
// come by it. An entry of the same key is replaced: the newest server wins. The
// listener is a *[Listener].
func Listen(cfg ListenConfig) (transport.Listener, error) {
	if len(cfg.Settings) > MaxSettings {
		return nil, fmt.Errorf("local: settings of %d bytes, at most %d", len(cfg.Settings), MaxSettings)
	}
	if len(cfg.Keys) == 0 {
		return nil, errors.New("local: no key to listen for")
	}
	for _, k := range cfg.Keys {
		if _, err := checkKey(k); err != nil {
			return nil, err
		}
	}
	e := cfg.env.orReal()
	l := &Listener{
		cfg: cfg, env: e, log: logger(cfg.Logger),
		uids:     trustedUIDs(e.uid(), cfg.AllowUIDs),
		slots:    make(chan struct{}, e.underWay),
		ready:    make(chan transport.Conn),
		draining: make(chan struct{}),
		done:     make(chan struct{}),
		open:     make(map[*net.UnixConn]struct{}),
		logged:   make(map[string]bool),
	}
	if err := l.openFolder(); err != nil {
		return nil, err
	}
	if err := l.publish(); err != nil {
		l.withdraw()
		l.folder.close()
		return nil, err
	}
	for _, en := range l.entries {
		l.wg.Go(func() { l.accept(en) })
	}
	return l, nil
}

func (l *Listener) openFolder() (err error) {
	dir := absolute(l.cfg.Dir)
	if l.cfg.Dir == "" {
		if dir, err = Dir(); err != nil {
			return err
		}
	} else if err = os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("%w: %w", ErrFolder, err)
	}
	l.folder, err = openFolder(dir, true, l.uids)
	return err
}

// publish binds every socket under a temporary name and renames them over what
// stands there, so that no client ever finds a name missing or not listening.
func (l *Listener) publish() error {
	unlock, held := l.folder.lock()
	defer unlock()
	if held {
		l.folder.sweep(l.env.uid())
	}
	for _, k := range l.cfg.Keys {
		if slices.ContainsFunc(l.entries, func(e entry) bool { return e.key == k }) {
			continue
		}
		if err := l.bind(k); err != nil {
			return err
		}
	}
	for i := range l.entries {
		e := &l.entries[i]
		if err := os.Rename(l.folder.at(e.temp), l.folder.at(e.name)); err != nil {
			return fmt.Errorf("local: publish %s: %w", l.folder.shown(e.name), err)
		}
		e.temp = ""
	}
	return nil
}

// maxSunPath is what fits a socket address everywhere, in bytes.
const maxSunPath = 103

func (l *Listener) bind(k Key) error {
	e := entry{key: k, name: entryName(k), temp: tempName()}
	path := l.folder.at(e.temp)
	if n := max(len(path), len(l.folder.at(e.name))); n > maxSunPath {
		return fmt.Errorf("%w: %s: a socket's path may have %d bytes and this would have %d; choose a shorter STILE_DIR",
			ErrFolder, l.folder.path, maxSunPath, n)
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return fmt.Errorf("local: listen in %s: %w", l.folder.path, err)
	}
	ln.SetUnlinkOnClose(false)
	e.ln = ln
	e.id, _ = l.folder.identify(e.temp)
	l.entries = append(l.entries, e)
	// Connecting needs write permission. Others are let near the socket only when
	// some of them are served; who they are is then checked for each.
	mode := os.FileMode(0o600)
	if len(l.uids) > 1 {
		mode = 0o666
	}
	if err := os.Chmod(path, mode); err != nil {
		return fmt.Errorf("local: chmod %s: %w", l.folder.shown(e.temp), err)
	}
	return nil
}

// withdraw removes the entries that are still ours and closes the sockets, in
// this order: while a socket is open no other file can have its identity.
func (l *Listener) withdraw() {
	unlock, _ := l.folder.lock()
	defer unlock()
	for _, e := range l.entries {
		name := e.name
		if e.temp != "" {
			name = e.temp
		}
		l.folder.removeIf(name, e.id)
		_ = e.ln.Close()
	}
}

// accept takes clients of one entry. Who is not allowed is sent away before it
// can use up a place.
func (l *Listener) accept(e entry) {
	for {
		uc, err := e.ln.AcceptUnix()
		if err != nil {
			if !l.pause(err) {
				return
			}
			continue
		}
		if !l.track(uc) {
			_ = uc.Close()
			return
		}
		cred, err := checkPeer(uc, l.uids, l.folder, l.env)
		if err != nil {
			l.refuse(uc, statusUID, err)
			l.finish(uc, cred, err)
			continue
		}
		select {
		case l.slots <- struct{}{}:
		case <-l.done:
			l.untrack(uc)
			_ = uc.Close()
			return
		}
		l.wg.Go(func() {
			defer func() { <-l.slots }()
			l.serve(uc, cred, e)
		})
	}
}

// pause waits a little after a failed accept, mostly for want of descriptors;
// false once the listener is closed.
func (l *Listener) pause(err error) bool {
	select {
	case <-l.draining:
		return false
	default:
	}
	l.once("accept", func() { l.log.Warn("local: cannot accept", "error", err) })
	t := time.NewTimer(20 * time.Millisecond)
	defer t.Stop()
	select {
	case <-l.draining:
		return false
	case <-t.C:
		return true
	}
}

// Accept waits for the next client that shook hands.
func (l *Listener) Accept() (transport.Conn, error) {
	select {
	case c := <-l.ready:
		l.count(func(s *Stats) {
			s.Accepted++
			if c.Info().Transport == infoSHM {
				s.SHM++
			}
		})
		return c, nil
	case <-l.done:
		return nil, fmt.Errorf("local: accept at %v: %w", l.Addr(), net.ErrClosed)
	}
}

// drainPatience bounds the handshakes under way when a listener drains.
const drainPatience = time.Second

// Drain takes the entries away and lets the handshakes under way come to their
// end: such a client may count itself connected, and have sent something. Accept
// must go on being called meanwhile. Drain returns when no further connection
// will come, then Accept returns an error as after Close.
func (l *Listener) Drain() {
	l.stopAccepting()
	l.mu.Lock()
	for uc := range l.open {
		_ = uc.SetDeadline(time.Now().Add(drainPatience))
	}
	l.mu.Unlock()
	l.wg.Wait()
	_ = l.Close()
}

func (l *Listener) stopAccepting() {
	l.drain.Do(func() {
		close(l.draining)
		l.withdraw()
	})
}

// Close takes the entries away, ends the handshakes under way and waits for
// them. Accepted connections go on.
func (l *Listener) Close() error {
	l.close.Do(func() {
		l.stopAccepting()
		close(l.done)
		l.mu.Lock()
		for uc := range l.open {
			_ = uc.Close()
		}
		l.open = nil
		l.mu.Unlock()
		l.wg.Wait()
		l.folder.close()
	})
	return nil
}

// Addr is the first entry's path.
func (l *Listener) Addr() net.Addr {
	return &net.UnixAddr{Name: l.folder.shown(l.entries[0].name), Net: "unix"}
}

// Stats returns the counts so far.
func (l *Listener) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stats
}

func (l *Listener) track(uc *net.UnixConn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open == nil {
		return false
	}
	l.open[uc] = struct{}{}
	return true
}

func (l *Listener) untrack(uc *net.UnixConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, uc)
}

// once runs log the first time it sees kind.
func (l *Listener) once(kind string, log func()) {
	l.mu.Lock()
	first := !l.logged[kind]
	l.logged[kind] = true
	l.mu.Unlock()
	if first {
		log()
	}
}
