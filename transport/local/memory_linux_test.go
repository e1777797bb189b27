package local

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/stile-ipc/stile/transport"
	"github.com/stile-ipc/stile/transport/shm"
	"github.com/stile-ipc/stile/transport/sock"
)

func memfd(t *testing.T, size int64, seals int) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("offered", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "offered")
	t.Cleanup(func() { _ = f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		t.Fatal(err)
	}
	return f
}

// What a server may offer as shared memory to harm its client. The client says
// why it takes none of it and goes on over the socket.
func TestBadMemoryOffered(t *testing.T) {
	noFDsLeft(t)
	const sealed = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL
	ctl, far := socketPair(t)
	real, files, err := shm.Create(ctl, transport.Info{}, shm.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, _ = real.Close(), far.Close()
		for _, f := range files {
			_ = f.Close()
		}
	})
	plain := must(os.Create(filepath.Join(t.TempDir(), "plain")))
	t.Cleanup(func() { _ = plain.Close() })
	if err := plain.Truncate(1 << 20); err != nil {
		t.Fatal(err)
	}
	many := make([]*os.File, 0, 20)
	for range cap(many) {
		many = append(many, files[1])
	}
	for name, offer := range map[string][]*os.File{
		"nothing":              nil,
		"memory only":          files[:1],
		"one too many":         {files[0], files[1], files[2], files[2]},
		"far too many":         many,
		"doorbell is memory":   {files[0], files[0], files[2]},
		"memory is a doorbell": {files[1], files[1], files[2]},
		"a file":               {plain, files[1], files[2]},
		"unsealed":             {memfd(t, 1<<20, unix.F_SEAL_SHRINK), files[1], files[2]},
		"sealed but empty":     {memfd(t, 0, sealed), files[1], files[2]},
		"sealed but truncated": {memfd(t, 100, sealed), files[1], files[2]},
		"sealed garbage":       {memfd(t, 1<<20, sealed), files[1], files[2]},
	} {
		t.Run(name, func(t *testing.T) {
			noFDsLeft(t)
			dir := testDir(t)
			served := make(chan transport.Conn, 1)
			reason := make(chan ack, 1)
			ln := rawListen(t, dir)
			go func() {
				uc, err := ln.AcceptUnix()
				if err != nil {
					return
				}
				_, _ = readMessage(uc, magicHello, maxHelloBody)
				_ = writeWithFiles(uc, answer{status: statusOK, version: 1, flags: flagSHM}.encode(), offer)
				body, _ := readMessage(uc, magicAck, maxAckBody)
				k, _ := decodeAck(body)
				reason <- k
				served <- sock.New(uc, transport.Info{})
			}()
			c, _, err := dialOnce(t, dir, DialConfig{})
			if err != nil {
				t.Fatal(err)
			}
			if k := <-reason; k.status != ackSocket || k.reason == "" {
				t.Errorf("ack %+v", k)
			} else {
				t.Log(k.reason)
			}
			s := <-served
			exchange(t, c, s)
			_, _ = c.Close(), s.Close()
		})
	}
}

// Descriptors that a client sends along are not kept.
func TestFilesFromClient(t *testing.T) {
	noFDsLeft(t)
	l := listen(t, ListenConfig{Dir: testDir(t)})
	acceptAll(t, l)
	uc := rawDial(t, l.folder.path)
	f := memfd(t, 4096, 0)
	b := hello{min: 1, max: 1, key: testKey}.encode()
	if err := writeWithFiles(uc, b, []*os.File{f, f, f}); err != nil {
		t.Fatal(err)
	}
	if _, err := readMessage(uc, magicAnswer, maxAnswerBody); err != nil {
		t.Fatal(err)
	}
	all := strings.Join(openFDs(t), "\n")
	if n := strings.Count(all, "memfd:offered"); n != 1 {
		t.Errorf("%d times open:\n%s", n, all)
	}
}

func socketPair(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	conns := make([]*net.UnixConn, 2)
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		conns[i] = must(net.FileConn(f)).(*net.UnixConn)
		_ = f.Close()
	}
	return conns[0], conns[1]
}
