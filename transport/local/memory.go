package local

import (
	"net"
	"os"

	"github.com/stile-ipc/stile/transport"
	"github.com/stile-ipc/stile/transport/shm"
)

// sharedMemory makes connections over shared memory. Ownership is as in
// transport/shm: create owns ctl if it succeeds, and the caller closes files;
// attach owns fds always and ctl if it succeeds. Neither may read ctl before the
// connection is started, nor shut it down.
type sharedMemory interface {
	available() error
	create(ctl *net.UnixConn, info transport.Info) (transport.Conn, []*os.File, error)
	attach(ctl *net.UnixConn, fds []int, info transport.Info) (transport.Conn, error)
}

// kernelMemory is transport/shm.
type kernelMemory struct{}

func (kernelMemory) available() error { return shm.Available() }

func (kernelMemory) create(ctl *net.UnixConn, info transport.Info) (transport.Conn, []*os.File, error) {
	c, files, err := shm.Create(ctl, info, shm.Config{})
	if err != nil {
		return nil, nil, err
	}
	return c, files, nil
}

func (kernelMemory) attach(ctl *net.UnixConn, fds []int, info transport.Info) (transport.Conn, error) {
	c, err := shm.Attach(ctl, fds, info, shm.Config{})
	if err != nil {
		return nil, err
	}
	return c, nil
}
