//go:build !unix || aix || solaris

package local

import (
	"context"
	"fmt"
	"os"
	"syscall"

	"github.com/stile-ipc/stile/transport"
)

// Listener cannot be made on this platform.
type Listener struct{}

// Stats counts what became of the clients of a [Listener].
type Stats struct {
	Accepted, SHM, Fallbacks, Probes                            uint64
	RefusedUID, RefusedVersion, RefusedKey, RefusedShut, Failed uint64
}

// Stats returns the zero value.
func (*Listener) Stats() Stats { return Stats{} }

// Dir fails with [ErrUnsupported].
func Dir() (string, error) { return "", ErrUnsupported }

// Listen fails with [ErrUnsupported].
func Listen(ListenConfig) (transport.Listener, error) { return nil, ErrUnsupported }

// Dial fails with [ErrUnsupported].
func Dial(context.Context, Key, DialConfig) (transport.Conn, []byte, error) {
	return nil, nil, ErrUnsupported
}

// Probe fails with [ErrUnsupported].
func Probe(_ context.Context, key Key, _ DialConfig) (Report, error) {
	r := Report{Key: key}
	return r, r.note("folder", ErrUnsupported, "")
}

func socketKey(path string) (Key, error) {
	return "", fmt.Errorf("%w: %s", ErrUnsupported, path)
}

func takesOnly6(syscall.Conn) bool { return false }

func ownUID() int { return os.Geteuid() }
