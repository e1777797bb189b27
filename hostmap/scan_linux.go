package hostmap

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stile-ipc/stile/internal/procfs"
	"github.com/stile-ipc/stile/internal/usage"
)

// newHost is this host, of which nothing was seen yet.
func newHost() *Host { return &Host{Boot: usage.Boot(), Processes: []Process{}, Edges: []Edge{}} }

// Scan looks at the processes of this host, those of this user, or all if it may. What begins or ends meanwhile may be absent.
func Scan(ctx context.Context) (*Host, error) {
	h := newHost()
	procs, err := h.processes(ctx)
	if err != nil {
		return nil, err
	}
	unixes, tcps, err := h.sockets(procs, doors{})
	if err != nil {
		return nil, err
	}
	h.put(procs, unixes, tcps, h.pipes(procs))
	for i := range h.Processes {
		h.Processes[i].Threads = threadsOf(h.Processes[i].PID)
	}
	return h, nil
}

// put makes edges of what was seen.
func (h *Host) put(procs []proc, unixes []unixSocket, tcps []tcpSocket, pipes []pipe) {
	if all := build(procs, unixes, tcps, pipes); all != nil {
		h.Edges = all
	}
	for _, p := range procs {
		h.Processes = append(h.Processes, p.Process)
	}
	h.tidy()
}

// sockets asks for those of all network namespaces that processes have, which are called by where their doors are.
func (h *Host) sockets(procs []proc, d doors) (unixes []unixSocket, tcps []tcpSocket, err error) {
	namespaces := map[uint64]int{} // a process of each
	for _, p := range procs {
		if _, known := namespaces[p.Netns]; !known && p.Netns != 0 {
			namespaces[p.Netns] = p.PID
		}
	}
	h.Elsewhere, h.Namespace = 0, 0
	for id, pid := range namespaces {
		u, t, err := socketsOf(id, pid)
		switch {
		case errors.Is(err, fs.ErrPermission):
			h.Elsewhere++
		case errors.Is(err, fs.ErrNotExist): // the process has ended
		case err != nil:
			return nil, nil, err
		default:
			h.Namespace++
			unixes, tcps = append(unixes, u...), append(tcps, t...)
		}
	}
	d.rename(unixes, procs)
	return unixes, tcps, nil
}

// atMost is which part of the time a watch takes.
const atMost = 4

// lookEvery is how often processes are looked at, at most.
const lookEvery = time.Second

// Watch is Scan, and then looks at the sockets again and again: where somebody waits, or may, is in Pressure.
func Watch(ctx context.Context, long, every time.Duration) (*Host, error) {
	h := newHost()
	procs, err := h.processes(ctx)
	if err != nil {
		return nil, err
	}
	began, w := time.Now(), newWatch()
	looked := began
	w.know(procs)
	at := doors{}
	before := map[int]Threads{}
	for _, p := range procs {
		before[p.PID] = threadsOf(p.PID)
	}
	var unixes []unixSocket
	var tcps []tcpSocket
	var pipes []pipe
	for next := began; ; {
		asked := time.Now()
		if unixes, tcps, err = h.sockets(procs, at); err != nil {
			return nil, err
		}
		pipes = h.pipes(procs)
		w.sample(unixes, tcps, pipes)
		if w.wanting && time.Since(looked) > lookEvery { // for those of processes that have begun
			h.Seen, h.Hidden, looked = 0, 0, time.Now()
			if procs, err = h.processes(ctx); err != nil {
				return nil, err
			}
			w.know(procs)
		}
		next = next.Add(every)
		if earliest := asked.Add(atMost * time.Since(asked)); next.Before(earliest) { // there are many sockets
			next = earliest
		}
		if next.Sub(began) > long {
			break
		}
		select {
		case <-time.After(time.Until(next)):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	took := time.Since(began)
	h.put(procs, unixes, tcps, pipes)
	for i := range h.Processes {
		p := &h.Processes[i]
		p.Threads = threadsOf(p.PID).since(before[p.PID])
	}
	h.Watched, h.Samples, h.Pressure = took, w.samples, w.pressures(took)
	return h, nil
}

func (h *Host) processes(ctx context.Context) (all []proc, err error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	for _, dir := range dirs {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		p, err := processOf(dir)
		switch {
		case errors.Is(err, fs.ErrPermission):
			h.Hidden++
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ESRCH): // it has ended
		case err != nil:
			return nil, fmt.Errorf("%s: %w", dir, err)
		default:
			h.Seen++
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b proc) int { return a.PID - b.PID })
	return all, nil
}

func processOf(dir string) (p proc, err error) {
	if p.PID, err = strconv.Atoi(filepath.Base(dir)); err != nil {
		return p, err
	}
	text, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return p, err
	}
	stat, err := procfs.ParseStat(text)
	if err != nil {
		return p, err
	}
	if p.Start, err = stat.Started(); err != nil {
		return p, err
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return p, &fs.PathError{Op: "stat", Path: dir, Err: err}
	}
	p.UID = int(st.Uid)
	if exe, err := os.Readlink(dir + "/exe"); err == nil { // threads of the kernel have none
		p.Exe = strings.TrimSuffix(exe, " (deleted)")
	}
	p.Name = procfs.Program(stat.Name, p.Exe)
	if err := unix.Stat(dir+"/ns/net", &st); err != nil {
		return p, &fs.PathError{Op: "stat", Path: dir + "/ns/net", Err: err}
	}
	p.Netns = st.Ino
	p.OwnPID, p.Cgroup = ownPID(dir, p.PID), cgroupOf(dir)
	if err := p.files(dir); err != nil {
		return p, err
	}
	return p, p.maps(dir)
}

// files finds sockets and pipes.
func (p *proc) files(dir string) error {
	fds, err := os.ReadDir(dir + "/fd")
	if err != nil {
		return err
	}
	for _, fd := range fds {
		to, err := os.Readlink(dir + "/fd/" + fd.Name())
		if err != nil {
			continue // it is closed
		}
		kind, rest, _ := strings.Cut(to, ":[")
		inode, err := strconv.ParseUint(strings.TrimSuffix(rest, "]"), 10, 64)
		if err != nil {
			continue
		}
		switch kind {
		case "socket":
			p.sockets = append(p.sockets, inode)
		case "pipe":
			n, err := strconv.Atoi(fd.Name())
			if err != nil {
				continue
			}
			reads, writes := access(dir + "/fdinfo/" + fd.Name())
			p.pipes = append(p.pipes, pipeEnd{inode, n, reads, writes})
		}
	}
	return nil
}

// access tells what a file is open for.
func access(fdinfo string) (reads, writes bool) {
	text, err := os.ReadFile(fdinfo)
	if err != nil {
		return false, false // it is closed
	}
	for line := range strings.Lines(string(text)) {
		if flags, is := strings.CutPrefix(line, "flags:"); is {
			n, err := strconv.ParseUint(strings.TrimSpace(flags), 8, 64)
			if err != nil {
				return false, false
			}
			mode := n & unix.O_ACCMODE
			return mode == unix.O_RDONLY || mode == unix.O_RDWR, mode == unix.O_WRONLY || mode == unix.O_RDWR
		}
	}
	return false, false
}

// maps finds memory that is shared and can be written.
func (p *proc) maps(dir string) error {
	f, err := os.Open(dir + "/maps")
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if !bytes.Contains(lines.Bytes(), []byte(" rw-s ")) {
			continue
		}
		words := strings.Fields(lines.Text()) // address, permissions, offset, device, inode, name
		if len(words) < 5 || words[4] == "0" {
			continue
		}
		if p.shares == nil {
			p.shares = map[string]string{}
		}
		p.shares[words[3]+" "+words[4]] = strings.TrimSuffix(strings.Join(words[5:], " "), " (deleted)")
	}
	return lines.Err()
}

// socketsOf asks the kernel for the sockets of the network namespace that a process has.
func socketsOf(netns uint64, pid int) (unixes []unixSocket, tcps []tcpSocket, err error) {
	var own unix.Stat_t
	if err := unix.Stat("/proc/self/ns/net", &own); err != nil {
		return nil, nil, err
	}
	if own.Ino == netns {
		return sockets(netns)
	}
	err = inNamespace(pid, func() (err error) {
		unixes, tcps, err = sockets(netns)
		return err
	})
	return unixes, tcps, err
}

// inNamespace runs f in a process's network namespace, on a thread of its own.
func inNamespace(pid int, f func() error) error {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return err
	}
	defer ns.Close()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // unlocked once it is back: it may be the main thread, which stands for the process and never ends
		back, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			done <- err
			return
		}
		defer back.Close()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- os.NewSyscallError("setns", err)
			return
		}
		err = f()
		if again := unix.Setns(int(back.Fd()), unix.CLONE_NEWNET); again != nil {
			done <- os.NewSyscallError("setns", again)
			return
		}
		runtime.UnlockOSThread()
		done <- err
	}()
	return <-done
}

// socketName is a unix socket's path, or an abstract name behind an @.
func socketName(s string) string {
	mark := ""
	if strings.HasPrefix(s, "\x00") {
		mark, s = "@", s[1:]
	}
	s, _, _ = strings.Cut(s, "\x00")
	return mark + strings.ToValidUTF8(s, "?")
}

func addrPort(ip []byte, port uint16) netip.AddrPort {
	addr, _ := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(addr.Unmap(), port)
}
