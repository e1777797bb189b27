package hostmap

import (
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"
)

// pipes are those of processes, with how full they are.
func (h *Host) pipes(procs []proc) []pipe {
	all := pipesOf(procs)
	h.Unasked = 0
	for i := range all {
		p := &all[i]
		var err error
		if p.queue, err = fullness(p.readers[0], p.at); errors.Is(err, fs.ErrPermission) {
			h.Unasked++
		}
	}
	return all
}

// fullness asks how many bytes are in a pipe that a process has open, and how many there may be. For a moment it has the pipe open, too.
func fullness(pid int, end pipeEnd) (q queue, err error) {
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return q, err
	}
	defer unix.Close(process)
	fd, err := unix.PidfdGetfd(process, end.fd, 0)
	if err != nil {
		return q, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return q, err
	}
	if st.Ino != end.inode { // it is another file by now
		return q, fs.ErrNotExist
	}
	unread, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	if err != nil {
		return q, err
	}
	room, err := unix.FcntlInt(uintptr(fd), unix.F_GETPIPE_SZ, 0)
	if err != nil {
		return q, err
	}
	return queue{sent: uint64(max(unread, 0)), buffer: uint64(max(room, 0))}, nil
}
