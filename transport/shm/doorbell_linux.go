package shm

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const eventfdName = "anon_inode:[eventfd]"

var one = []byte{1, 0, 0, 0, 0, 0, 0, 0}

// ring writes the peer's doorbell. The counter is never read by anyone: each
// write is an edge for the peer's poller. A full counter (a peer that plays with
// it) makes the write fail, which is the peer's loss.
func ring(fd int) {
	for {
		if _, err := unix.Write(fd, one); !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// unstick ends a ring call that blocks. It can only block if the peer cleared
// O_NONBLOCK, which belongs to both sides, and filled the counter.
func unstick(fd int) {
	_ = unix.SetNonblock(fd, true)
	_, _ = unix.Preadv2(fd, [][]byte{make([]byte, 8)}, -1, unix.RWF_NOWAIT)
}

// checkDoorbell makes sure that fd, offered by the peer, is an eventfd.
func checkDoorbell(fd int) error {
	if name, err := fdName(fd); err != nil || name != eventfdName {
		return fmt.Errorf("%w: doorbell is %q (%v)", ErrLayout, name, err)
	}
	return nil
}

// bed is where the connection's goroutine sleeps: its own doorbell in the
// network poller, edge-triggered. The *os.File keeps the descriptor open, and
// deadlines wake the sleeper from inside the process without a system call.
type bed struct {
	f   *os.File
	raw syscall.RawConn
}

// newBed takes ownership of fd, also when it fails.
func newBed(fd int) (bed, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return bed{}, fmt.Errorf("doorbell: %w", err)
	}
	f := os.NewFile(uintptr(fd), "stile-doorbell")
	raw, err := f.SyscallConn()
	if err == nil {
		err = f.SetReadDeadline(time.Time{}) // fails if the poller does not take it
	}
	if err != nil {
		_ = f.Close()
		return bed{}, fmt.Errorf("doorbell: %w", err)
	}
	return bed{f, raw}, nil
}

// sleep calls up until it returns true: at once, and after each ring or wake.
// What happens during up is not lost: up is then called again.
func (b bed) sleep(up func(fd uintptr) bool) error {
	for {
		err := b.raw.Read(up)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		if err := b.f.SetReadDeadline(time.Time{}); err != nil {
			return err
		}
	}
}

// wake makes sleep call up once more.
func (b bed) wake() { _ = b.f.SetReadDeadline(time.Unix(1, 0)) }
