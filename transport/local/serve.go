//go:build unix && !aix && !solaris

package local

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"time"

	"github.com/stile-ipc/stile/transport"
	"github.com/stile-ipc/stile/transport/sock"
)

// errLooked ends a handshake that asked for no connection.
var errLooked = errors.New("only looked")

// serve shakes hands with one client and hands the connection to Accept.
func (l *Listener) serve(uc *net.UnixConn, cred transport.Cred, e entry) {
	c, err := l.handshake(uc, cred, e)
	if err != nil {
		l.finish(uc, cred, err)
		return
	}
	l.untrack(uc)
	select {
	case l.ready <- c:
	case <-l.done:
		_ = c.Close()
	}
}

// finish ends a client that gets no connection: counted, and logged the first
// time for each reason.
func (l *Listener) finish(uc *net.UnixConn, cred transport.Cred, err error) {
	l.untrack(uc)
	_ = uc.Close()
	select {
	case <-l.done:
		return
	default:
	}
	kind := ""
	l.count(func(s *Stats) {
		switch {
		case errors.Is(err, io.EOF) && !errors.Is(err, ErrHandshake): // came and went without a word
		case errors.Is(err, errLooked):
			s.Probes++
		case errors.Is(err, ErrUID):
			s.RefusedUID, kind = s.RefusedUID+1, "uid"
		case errors.Is(err, ErrVersion):
			s.RefusedVersion, kind = s.RefusedVersion+1, "version"
		case errors.Is(err, ErrWrongKey):
			s.RefusedKey, kind = s.RefusedKey+1, "key"
		case errors.Is(err, ErrRefused):
			s.RefusedShut, kind = s.RefusedShut+1, "shut"
		default:
			s.Failed, kind = s.Failed+1, "handshake"
		}
	})
	if kind != "" {
		l.once("refused "+kind, func() {
			l.log.Warn("local: client refused; further ones for this reason are only counted",
				"error", err, "uid", cred.UID, "pid", cred.PID)
		})
	}
}

func (l *Listener) count(f func(*Stats)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f(&l.stats)
}

// refuse tells a client why it gets no connection, if it still listens.
func (l *Listener) refuse(uc *net.UnixConn, status uint8, err error) {
	a := answer{status: status, min: l.env.min, max: l.env.max, reason: err.Error()}
	if status == statusShut {
		a.reason = l.cfg.Shut
	}
	_ = uc.SetWriteDeadline(time.Now().Add(l.env.timeout))
	_, _ = uc.Write(a.encode())
}

// handshake speaks the server's side. If it fails, uc is still the caller's.
func (l *Listener) handshake(uc *net.UnixConn, cred transport.Cred, e entry) (transport.Conn, error) {
	if err := uc.SetDeadline(time.Now().Add(l.env.timeout)); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrHandshake, err)
	}
	body, err := readMessage(uc, magicHello, maxHelloBody)
	if errors.Is(err, io.EOF) && !errors.Is(err, ErrHandshake) {
		return nil, err
	}
	var h hello
	if err == nil {
		h, err = decodeHello(body)
	}
	if err != nil {
		l.refuse(uc, statusMalformed, err)
		return nil, err
	}
	a, err := l.decide(h)
	if err != nil {
		l.refuse(uc, a.status, err)
		return nil, err
	}

	path := l.folder.shown(e.name)
	client := transport.ClientInfo{Process: h.process, ReadsTimes: h.flags&flagTimes != 0, Traces: h.flags&flagTraces != 0}
	mem, files := l.offer(uc, h, madeBy(client, makeInfo(infoSHM, cred, path, unnamed)), &a)
	err = writeWithFiles(uc, a.encode(), files)
	for _, f := range files {
		_ = f.Close()
	}
	var k ack
	if err == nil {
		body, err = readMessage(uc, magicAck, maxAckBody)
	}
	if err == nil {
		k, err = decodeAck(body)
	}
	switch {
	case err != nil:
		err = fmt.Errorf("%w: %w", ErrHandshake, err)
	case k.status == ackSHM && mem == nil:
		err = fmt.Errorf("%w: client takes shared memory that was not offered", ErrHandshake)
	case h.flags&flagProbe != 0:
		err = errLooked
	case uc.SetDeadline(forever) != nil:
		err = fmt.Errorf("%w: connection closed", ErrHandshake)
	}
	if err != nil {
		if mem != nil {
			_ = mem.Close()
		}
		return nil, err
	}
	if k.status == ackSHM {
		_ = uc.Close() // the memory's connection has its own reference
		return mem, nil
	}
	if mem != nil {
		_ = mem.Close()
		l.count(func(s *Stats) { s.Fallbacks++ })
		fellBack.warn(l.log, "client", errors.New(k.reason))
	}
	return sock.New(uc, madeBy(client, makeInfo(infoSocket, cred, path, unnamed))), nil
}

// decide answers a hello that could be read.
func (l *Listener) decide(h hello) (answer, error) {
	v, ok := common(l.env.min, l.env.max, h.min, h.max)
	switch {
	case !ok:
		return answer{status: statusVersion}, fmt.Errorf("%w: client speaks %d to %d, server %d to %d",
			ErrVersion, h.min, h.max, l.env.min, l.env.max)
	case !slices.Contains(l.cfg.Keys, h.key):
		return answer{status: statusWrongKey}, fmt.Errorf("%w: %q", ErrWrongKey, printable([]byte(h.key)))
	case l.cfg.Shut != "":
		return answer{status: statusShut}, &RefusedError{Reason: l.cfg.Shut}
	}
	return answer{status: statusOK, version: v, min: l.env.min, max: l.env.max, settings: l.cfg.Settings}, nil
}

// offer makes the memory if both sides want it and writes that, or why not, into
// a. The connection over memory has its own reference to the socket, so that uc
// is still there if the client cannot map it.
func (l *Listener) offer(uc *net.UnixConn, h hello, info transport.Info, a *answer) (transport.Conn, []*os.File) {
	switch {
	case h.flags&flagSHM == 0:
		return nil, nil
	case l.cfg.NoSHM:
		a.reason = "shared memory is turned off at the server"
		return nil, nil
	}
	mem, files, err := l.create(uc, info)
	if err != nil {
		a.reason = err.Error()
		l.count(func(s *Stats) { s.Fallbacks++ })
		fellBack.warn(l.log, "server", err)
		return nil, nil
	}
	a.flags |= flagSHM
	return mem, files
}

func (l *Listener) create(uc *net.UnixConn, info transport.Info) (transport.Conn, []*os.File, error) {
	ctl, err := duplicate(uc)
	if err != nil {
		return nil, nil, err
	}
	mem, files, err := l.env.shm.create(ctl, info)
	if err != nil {
		_ = ctl.Close()
		return nil, nil, err
	}
	return mem, files, nil
}
