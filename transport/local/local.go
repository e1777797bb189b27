// Package local finds a server on the same host and turns a connection to it
// into a [transport.Conn].
//
// Beside each address it serves, a server leaves an entry in a folder: a unix
// socket whose name is made from the address (its [Key]). A client that is about
// to call that address looks for the entry, checks whose it is, connects and
// shakes hands (hello.go draws it). What comes out carries frames through shared
// memory where that can be had and over the socket itself otherwise.
//
// # Who is trusted
//
// Only processes of the same uid, and of those listed in AllowUIDs; uid 0 is no
// exception. The client checks the owner of the folder and of the entry and then
// the uid the kernel gives for the process that listens behind it (that is the
// uid at the time of listen(2): a server that gives up root must do so before).
// The server checks the uid the kernel gives for each client before it reads a
// byte. Nobody else may be able to write to the folder.
//
// Where the kernel names no peer (some BSDs), file permissions must do: the
// folder has to be closed to group and others and AllowUIDs empty, otherwise
// peers are refused. On Windows neither exists, and every entry point returns
// [ErrUnsupported].
package local

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/stile-ipc/stile/transport"
	"github.com/stile-ipc/stile/transport/wire"
)

// Why there is no local way to a server. Errors of Dial, Probe and Listen wrap
// one of these, or come from ctx or the system as they are.
var (
	// ErrNoEntry: nothing is published for the key. The server may start later.
	ErrNoEntry = errors.New("local: no entry")
	// ErrStale: the entry's server is gone (it was killed).
	ErrStale = errors.New("local: entry is stale")
	// ErrOwner: folder or entry belong to a uid that is not allowed.
	ErrOwner = errors.New("local: owner not allowed")
	// ErrFolder: the folder is a symlink, not a folder, or writable by others.
	ErrFolder = errors.New("local: folder not usable")
	// ErrNotSocket: the entry is something else than a socket, e.g. a symlink.
	ErrNotSocket = errors.New("local: entry is not a socket")
	// ErrUID: the process at the other end runs under a uid that is not allowed.
	// Either side may have found so.
	ErrUID = errors.New("local: peer uid not allowed")
	// ErrVersion: the peers have no protocol version in common.
	ErrVersion = errors.New("local: no common version")
	// ErrWrongKey: the server behind the entry does not serve the key.
	ErrWrongKey = errors.New("local: wrong key")
	// ErrRefused is wrapped by a [RefusedError].
	ErrRefused = errors.New("local: refused")
	// ErrHandshake: the peer sent something that is no handshake, or hung up or
	// fell silent within it.
	ErrHandshake = errors.New("local: handshake failed")
	// ErrAddress: the address is of a kind that has no local rendezvous.
	ErrAddress = errors.New("local: address has no rendezvous")
	// ErrUnsupported: the platform has no way to know local peers.
	ErrUnsupported = errors.New("local: not supported on this platform")
)

// RefusedError is a server's own refusal (ListenConfig.Shut). It wraps [ErrRefused].
type RefusedError struct{ Reason string }

func (e *RefusedError) Error() string { return fmt.Sprintf("%v: %s", ErrRefused, e.Reason) }
func (e *RefusedError) Unwrap() error { return ErrRefused }

// Limits of what goes through a handshake, in bytes.
const (
	MaxSettings = 4 << 10
	maxKey      = 512
	maxReason   = 512
)

// Key names one server address on this host.
type Key string

// ListenConfig says what to publish and whom to let in.
type ListenConfig struct {
	Dir       string // empty: Dir()
	Keys      []Key  // at least one; see KeysFor
	AllowUIDs []int  // uids served besides our own; needs a Dir they can enter
	Settings  []byte // opaque, at most MaxSettings, given to each client
	NoSHM     bool   // always use the socket
	Shut      string // if not empty, refuse every client with this reason
	Logger    *slog.Logger

	env env
}

// DialConfig says where to look and whom to trust.
type DialConfig struct {
	Dir       string // empty: the places Dir may have chosen for the server
	AllowUIDs []int  // uids trusted as servers besides our own
	NoSHM     bool   // always use the socket
	Logger    *slog.Logger
	Self      transport.ClientInfo // what is said to the server

	env env
}

// env is what tests replace. Its zero value stands for the real thing.
type env struct {
	min, max uint16        // versions spoken
	timeout  time.Duration // of a whole handshake
	underWay int           // handshakes at once
	shm      sharedMemory
	uid      func() int
	cred     func(*net.UnixConn) (transport.Cred, error) // nil: the kernel's word
}

const (
	// handshakeTimeout bounds a whole handshake, however slow the peer.
	handshakeTimeout = 5 * time.Second
	// maxUnderWay bounds the handshakes a listener does at once; further clients
	// wait in the socket's backlog.
	maxUnderWay = 64
)

func (e env) orReal() env {
	if e.max == 0 {
		e.min, e.max = wire.VersionMin, wire.VersionMax
	}
	if e.timeout == 0 {
		e.timeout = handshakeTimeout
	}
	if e.shm == nil {
		e.shm = kernelMemory{}
	}
	if e.uid == nil {
		e.uid = ownUID
	}
	if e.underWay == 0 {
		e.underWay = maxUnderWay
	}
	return e
}

// Report is what [Probe] found, step by step.
type Report struct {
	Key       Key
	Path      string // of the entry, once found
	Steps     []Step // in order; the last one tells why if the probe failed
	Peer      transport.Cred
	Version   uint16 // agreed
	Transport string // "shm" or "unix": what Dial would use
	NoSHM     string // why not shared memory, when Transport is "unix"
	Refusal   string // the server's own reason
}

// Step is one thing looked at.
type Step struct {
	Name   string // "folder", "entry", "connect", "peer", "handshake", "transport"
	OK     bool
	Detail string
}

func (r *Report) note(name string, err error, format string, args ...any) error {
	if r == nil {
		return err
	}
	s := Step{Name: name, OK: err == nil, Detail: fmt.Sprintf(format, args...)}
	if err != nil {
		s.Detail = err.Error()
	}
	r.Steps = append(r.Steps, s)
	return err
}

func logger(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.Default()
	}
	return l
}
