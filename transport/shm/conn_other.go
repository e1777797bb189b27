//go:build !linux

package shm

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync/atomic"

	"github.com/stile-ipc/stile/transport"
	"github.com/stile-ipc/stile/transport/wire"
)

// Available tells whether shared memory works here: it does on Linux only.
func Available() error {
	return fmt.Errorf("%w on %s", ErrUnavailable, runtime.GOOS)
}

// Create fails with ErrUnavailable.
func Create(*net.UnixConn, transport.Info, Config) (*Conn, []*os.File, error) {
	return nil, nil, Available()
}

// Attach fails with ErrUnavailable.
func Attach(*net.UnixConn, []int, transport.Info, Config) (*Conn, error) {
	return nil, Available()
}

// Conn cannot be made on this system.
type Conn struct{ info transport.Info }

var _ transport.Conn = (*Conn)(nil)

var errNoConn = errors.Join(ErrUnavailable, transport.ErrClosed)

// Start ends the connection.
func (c *Conn) Start(h transport.Handler) { h.HandleClose(errNoConn) }

// Write fails.
func (c *Conn) Write(<-chan struct{}, wire.Header, []byte, []byte) error { return errNoConn }

// Relieve does nothing.
func (c *Conn) Relieve() {}

// Poll returns at once.
func (c *Conn) Poll(*atomic.Bool) {}

// Fail does nothing.
func (c *Conn) Fail(error) {}

// Close does nothing.
func (c *Conn) Close() error { return nil }

// Info returns the zero value.
func (c *Conn) Info() transport.Info { return c.info }

// Stats returns the zero value.
func (c *Conn) Stats() Stats { return Stats{} }
