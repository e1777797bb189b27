//go:build unix && !aix && !solaris

package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/stile-ipc/stile/transport"
	"github.com/stile-ipc/stile/transport/sock"
)

// Dial finds the server of key, connects and shakes hands. It returns the
// connection and the settings the server gives its clients. The whole takes 5
// seconds at most.
func Dial(ctx context.Context, key Key, cfg DialConfig) (transport.Conn, []byte, error) {
	return dial(ctx, key, cfg, nil)
}

// Probe does what [Dial] does, notes each step, and hangs up; the server does
// not take it for a client. The error is Dial's.
func Probe(ctx context.Context, key Key, cfg DialConfig) (Report, error) {
	r := Report{Key: key}
	c, _, err := dial(ctx, key, cfg, &r)
	if c != nil {
		_ = c.Close()
	}
	return r, err
}

// dialer is one Dial under way.
type dialer struct {
	cfg  DialConfig
	env  env
	key  Key
	uids []int
	mem  error   // why there is no shared memory here
	rep  *Report // nil unless probing
}

func dial(ctx context.Context, key Key, cfg DialConfig, rep *Report) (transport.Conn, []byte, error) {
	if _, err := checkKey(key); err != nil {
		return nil, nil, err
	}
	e := cfg.env.orReal()
	d := &dialer{cfg: cfg, env: e, key: key, uids: trustedUIDs(e.uid(), cfg.AllowUIDs), rep: rep}
	if !cfg.NoSHM {
		d.mem = e.shm.available()
	}
	places := []string{absolute(cfg.Dir)}
	if cfg.Dir == "" {
		places = lookPlaces()
	}
	limited, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	var first error
	for _, p := range places {
		c, settings, err := d.try(limited, p)
		if err == nil {
			return c, settings, nil
		}
		if ctx.Err() != nil {
			return nil, nil, fmt.Errorf("local: dial %s: %w", key, ctx.Err())
		}
		if first == nil || errors.Is(first, ErrNoEntry) && !errors.Is(err, ErrNoEntry) {
			first = err
		}
		if limited.Err() != nil || !elsewhere(err) {
			break
		}
	}
	return nil, nil, fmt.Errorf("local: dial %s: %w", key, first)
}

// elsewhere reports whether, after err, the server may be found in another folder.
func elsewhere(err error) bool {
	for _, e := range []error{ErrNoEntry, ErrStale, ErrFolder, ErrOwner, ErrNotSocket} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// try looks in one folder.
func (d *dialer) try(ctx context.Context, dir string) (transport.Conn, []byte, error) {
	f, err := openFolder(dir, false, d.uids)
	if err != nil {
		return nil, nil, d.rep.note("folder", err, "")
	}
	defer f.close()
	_ = d.rep.note("folder", nil, "%s belongs to uid %d, mode %04o", f.path, f.uid, f.modes)
	name := entryName(d.key)
	if err := d.checkEntry(f, name); err != nil {
		return nil, nil, d.rep.note("entry", err, "")
	}
	uc, err := d.connect(ctx, f.at(name))
	if err != nil {
		return nil, nil, d.rep.note("connect", err, "")
	}
	_ = d.rep.note("connect", nil, "a process listens")
	c, settings, err := d.over(ctx, uc, f, name)
	if err != nil {
		_ = uc.Close()
		return nil, nil, err
	}
	return c, settings, nil
}

func (d *dialer) checkEntry(f *folder, name string) error {
	fi, err := os.Lstat(f.at(name))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %s does not exist", ErrNoEntry, f.shown(name))
	case err != nil:
		return fmt.Errorf("%w: %w", ErrFolder, err)
	case fi.Mode()&fs.ModeSymlink != 0:
		return fmt.Errorf("%w: %s is a symlink", ErrNotSocket, f.shown(name))
	case fi.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%w: %s (%v)", ErrNotSocket, f.shown(name), fi.Mode())
	case !slices.Contains(d.uids, owner(fi)):
		return fmt.Errorf("%w: %s belongs to uid %d", ErrOwner, f.shown(name), owner(fi))
	}
	if d.rep != nil {
		d.rep.Path = f.shown(name)
	}
	return d.rep.note("entry", nil, "%s is a socket of uid %d, mode %04o", f.shown(name), owner(fi), fi.Mode().Perm())
}

// connect waits while the server's backlog is full.
func (d *dialer) connect(ctx context.Context, path string) (*net.UnixConn, error) {
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		c, err := new(net.Dialer).DialContext(ctx, "unix", path)
		switch {
		case err == nil:
			return c.(*net.UnixConn), nil
		case errors.Is(err, syscall.ECONNREFUSED):
			return nil, fmt.Errorf("%w: nobody listens", ErrStale)
		case errors.Is(err, fs.ErrNotExist):
			return nil, fmt.Errorf("%w: gone before connecting", ErrNoEntry)
		case errors.Is(err, fs.ErrPermission):
			return nil, fmt.Errorf("%w: may not connect to the entry: %w", ErrUID, errors.Unwrap(err))
		case !errors.Is(err, syscall.EAGAIN):
			return nil, fmt.Errorf("local: connect: %w", errors.Unwrap(err))
		}
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil, fmt.Errorf("local: connect: server is busy: %w", ctx.Err())
		case <-t.C:
		}
	}
}

// over checks the peer and shakes hands. If it fails, uc is still the caller's.
func (d *dialer) over(ctx context.Context, uc *net.UnixConn, f *folder, name string) (transport.Conn, []byte, error) {
	cred, err := checkPeer(uc, d.uids, f, d.env)
	if err != nil {
		return nil, nil, d.rep.note("peer", err, "")
	}
	_ = d.rep.note("peer", nil, "uid %d, pid %d", cred.UID, cred.PID)
	if d.rep != nil {
		d.rep.Peer = cred
	}
	if t, ok := ctx.Deadline(); ok {
		_ = uc.SetDeadline(t)
	}
	stop := context.AfterFunc(ctx, func() { _ = uc.SetDeadline(past) })
	defer stop()
	r := &fileReader{uc: uc}
	defer r.close()
	a, err := d.ask(uc, r)
	if err != nil {
		return nil, nil, d.rep.note("handshake", err, "")
	}
	_ = d.rep.note("handshake", nil, "version %d", a.version)
	c, why, err := d.take(uc, r, a, cred, f.shown(name))
	if err != nil {
		return nil, nil, d.rep.note("transport", err, "")
	}
	if !stop() {
		_ = c.Close()
		return nil, nil, d.rep.note("transport", fmt.Errorf("%w: %w", ErrHandshake, ctx.Err()), "")
	}
	_ = uc.SetDeadline(forever)
	if d.rep != nil {
		d.rep.Version, d.rep.Transport, d.rep.NoSHM = a.version, c.Info().Transport, why
	}
	_ = d.rep.note("transport", nil, "%s", c.Info().Transport)
	return c, a.settings, nil
}

// ask sends the hello and reads the answer.
func (d *dialer) ask(uc *net.UnixConn, r *fileReader) (answer, error) {
	h := hello{min: d.env.min, max: d.env.max, pid: uint32(os.Getpid()), key: d.key, process: d.cfg.Self.Process}
	if d.cfg.Self.ReadsTimes {
		h.flags |= flagTimes
	}
	if d.cfg.Self.Traces {
		h.flags |= flagTraces
	}
	if !d.cfg.NoSHM && d.mem == nil {
		h.flags |= flagSHM
	}
	if d.rep != nil {
		h.flags |= flagProbe
	}
	// A server that refuses us may have hung up already; its answer still waits.
	_, werr := uc.Write(h.encode())
	body, err := readMessage(r, magicAnswer, maxAnswerBody)
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = fmt.Errorf("%w: server hung up (%w)", ErrHandshake, io.EOF)
		}
		return answer{}, errors.Join(err, werr)
	}
	a, err := decodeAnswer(body)
	if err != nil {
		return answer{}, err
	}
	if err := d.judge(a); err != nil {
		return answer{}, err
	}
	if a.flags&flagSHM != 0 && h.flags&flagSHM == 0 {
		return answer{}, fmt.Errorf("%w: server gives shared memory nobody asked for", ErrHandshake)
	}
	return a, nil
}

// judge turns a refusal into its error.
func (d *dialer) judge(a answer) error {
	if a.status != statusOK && d.rep != nil {
		d.rep.Refusal = a.reason
	}
	switch a.status {
	case statusOK:
		if a.version < d.env.min || a.version > d.env.max {
			return fmt.Errorf("%w: server chose %d, we speak %d to %d", ErrVersion, a.version, d.env.min, d.env.max)
		}
		return nil
	case statusUID:
		return fmt.Errorf("%w: refused by server: %s", ErrUID, a.reason)
	case statusVersion:
		return fmt.Errorf("%w: we speak %d to %d, server %d to %d", ErrVersion, d.env.min, d.env.max, a.min, a.max)
	case statusWrongKey:
		return fmt.Errorf("%w: refused by server", ErrWrongKey)
	case statusMalformed:
		return fmt.Errorf("%w: refused by server: %s", ErrHandshake, a.reason)
	default: // statusShut, or a reason that is newer than we
		return &RefusedError{Reason: a.reason}
	}
}

// take maps the memory that was offered, or takes the socket, and tells the
// server which. why says why not memory.
func (d *dialer) take(uc *net.UnixConn, r *fileReader, a answer, cred transport.Cred, path string) (c transport.Conn, why string, err error) {
	k := ack{status: ackSocket}
	switch {
	case a.flags&flagSHM != 0:
		if c, err = d.attach(uc, r, makeInfo(infoSHM, cred, unnamed, path)); err == nil {
			k.status = ackSHM
			break
		}
		k.reason = err.Error()
		fellBack.warn(logger(d.cfg.Logger), "client", err)
	case d.cfg.NoSHM:
		k.reason = "shared memory is turned off at the client"
	case d.mem != nil:
		k.reason = d.mem.Error()
		fellBack.warn(logger(d.cfg.Logger), "client", d.mem)
	default:
		k.reason = a.reason
	}
	if c == nil {
		c = sock.New(uc, makeInfo(infoSocket, cred, unnamed, path))
	}
	if _, err := uc.Write(k.encode()); err != nil {
		_ = c.Close()
		return nil, "", fmt.Errorf("%w: acknowledge: %w", ErrHandshake, err)
	}
	return c, k.reason, nil
}

func (d *dialer) attach(uc *net.UnixConn, r *fileReader, info transport.Info) (transport.Conn, error) {
	if r.bad != nil {
		r.close()
		return nil, r.bad
	}
	return d.env.shm.attach(uc, r.release(), info)
}
