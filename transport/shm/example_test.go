//go:build linux

package shm_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/stile-ipc/stile/transport"
	"github.com/stile-ipc/stile/transport/shm"
	"github.com/stile-ipc/stile/transport/wire"
)

type printer chan struct{}

func (p printer) HandleFrame(h wire.Header, b *wire.Buf) {
	fmt.Printf("stream %d: %s\n", h.Stream, b.B)
	b.Release()
	close(p)
}

func (p printer) HandleClose(error) {}

// The accepting side makes the memory and sends its files over the control
// socket; the connecting side maps them.
func ExampleCreate() {
	dir, err := os.MkdirTemp("", "stile")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	addr := &net.UnixAddr{Name: filepath.Join(dir, "door"), Net: "unix"}
	l, err := net.ListenUnix("unix", addr)
	if err != nil {
		panic(err)
	}
	defer l.Close()
	client, err := net.DialUnix("unix", nil, addr)
	if err != nil {
		panic(err)
	}
	server, err := l.AcceptUnix()
	if err != nil {
		panic(err)
	}

	created, files, err := shm.Create(server, transport.Info{}, shm.Config{})
	if err != nil {
		panic(err)
	}
	defer created.Close()
	var fds []int
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	if _, _, err := server.WriteMsgUnix([]byte{0}, unix.UnixRights(fds...), nil); err != nil {
		panic(err)
	}
	for _, f := range files {
		f.Close()
	}

	attached, err := shm.Attach(client, receiveFDs(client), transport.Info{}, shm.Config{})
	if err != nil {
		panic(err)
	}
	defer attached.Close()

	p := make(printer)
	created.Start(p)
	attached.Start(make(printer))
	err = attached.Write(nil, wire.Header{Type: wire.TypeStream, Stream: 1}, []byte("over "), []byte("the fence"))
	if err != nil {
		panic(err)
	}
	<-p
	// Output: stream 1: over the fence
}

func receiveFDs(c *net.UnixConn) []int {
	oob := make([]byte, unix.CmsgSpace(3*4))
	_, n, _, _, err := c.ReadMsgUnix(make([]byte, 1), oob)
	if err != nil {
		panic(err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil {
		panic(err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil {
		panic(err)
	}
	return fds
}
