package usage

import (
	"bytes"
	"os"
	"runtime/metrics"
	"syscall"
	"time"
)

// threadsEach is how many threads are read each time: of more, all are read each second time, or seldomer.
const threadsEach = 48

// listEvery is after how many reads threads are listed anew, though Go has as many as before: others may begin some.
const listEvery = 25

// threads tells how long the threads of this process were ready to run and did not. What the kernel says of each is kept open: that is read in a quarter of the
// time that it takes to open it, too.
type threads struct {
	all   map[string]thread // by name in /proc; nil: not listed yet
	count []metrics.Sample  // of Go's threads
	had   uint64            // as it was when they were listed
	reads int               // since then
	skip  int               // reads to leave out
	text  [64]byte
}

// thread is an open file that tells of one, and how long it had waited when it was read last.
type thread struct {
	fd     int
	waited time.Duration
}

func (t *threads) read() (sum time.Duration) {
	if t.skip--; t.skip >= 0 {
		return 0
	}
	first := t.all == nil
	t.list()
	for name, one := range t.all {
		text, err := readAt(one.fd, t.text[:])
		if err != nil { // it has ended; what it waited last is not known
			_ = syscall.Close(one.fd)
			delete(t.all, name)
			continue
		}
		is := one.waited
		if _, waited, found := bytes.Cut(text, []byte(" ")); found {
			is = time.Duration(number(waited))
		}
		if !first {
			sum += grown(is, one.waited)
		}
		t.all[name] = thread{one.fd, is}
	}
	t.skip = (len(t.all) - 1) / threadsEach
	return sum
}

// list finds threads that have begun.
func (t *threads) list() {
	if t.count == nil {
		t.count = []metrics.Sample{{Name: "/sched/threads/total:threads"}}
	}
	metrics.Read(t.count)
	var has uint64
	if t.count[0].Value.Kind() == metrics.KindUint64 {
		has = t.count[0].Value.Uint64()
	}
	if t.reads++; t.all != nil && t.reads < listEvery && has == t.had {
		return
	}
	t.had, t.reads = has, 0
	if t.all == nil {
		t.all = map[string]thread{}
	}
	dir, err := os.Open("/proc/self/task")
	if err != nil {
		return
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1) // as far as it went
	for _, name := range names {
		if _, known := t.all[name]; known {
			continue
		}
		if fd, err := open("/proc/self/task/" + name + "/schedstat"); err == nil {
			t.all[name] = thread{fd: fd}
		}
	}
}

func (t *threads) close() {
	for _, one := range t.all {
		_ = syscall.Close(one.fd)
	}
	t.all = nil
}

// hostLook is how long a look at the host may take: what takes longer, as with many processors, is done seldomer.
const hostLook = 150 * time.Microsecond

// hostMeter tells what the host uses. What is read stays open.
type hostMeter struct {
	fd    int
	open  bool // fd is
	was   Host
	least time.Duration // that a look took
	skip  int
	text  [512]byte
}

func (h *hostMeter) read() Host {
	if h.skip--; h.skip >= 0 {
		return Host{}
	}
	if !h.open {
		fd, err := open("/proc/stat")
		if err != nil {
			return Host{}
		}
		h.fd, h.open = fd, true
	}
	began := time.Now()
	text, err := readAt(h.fd, h.text[:])
	if err != nil {
		return Host{}
	}
	is, known := parseHost(text)
	if took := time.Since(began); h.least == 0 || took < h.least {
		h.least = took
	}
	h.skip = int(h.least / hostLook)
	was := h.was
	h.was = is
	if !known || was == (Host{}) {
		return Host{}
	}
	return Host{grown(is.User, was.User), grown(is.System, was.System), grown(is.Idle, was.Idle), grown(is.Steal, was.Steal)}
}

// close forgets what the host used: the next read begins anew.
func (h *hostMeter) close() {
	if h.open {
		_ = syscall.Close(h.fd)
	}
	*h = hostMeter{}
}

// tick is the unit of /proc/stat, on all of Linux's processors.
const tick = 10 * time.Millisecond

// parseHost reads the first line of /proc/stat. Interrupts are the system's, and who waits for a disk is idle.
func parseHost(text []byte) (h Host, known bool) {
	line, _, _ := bytes.Cut(text, []byte("\n"))
	f := bytes.Fields(line)
	if len(f) < 9 || string(f[0]) != "cpu" {
		return h, false
	}
	at := func(i int) time.Duration { return time.Duration(number(f[i])) * tick }
	return Host{User: at(1) + at(2), System: at(3) + at(6) + at(7), Idle: at(4) + at(5), Steal: at(8)}, true
}

// number reads the digits that text begins with.
func number(text []byte) (n int64) {
	for _, c := range text {
		if c < '0' || c > '9' {
			break
		}
		if n > 1<<58 {
			return 0
		}
		n = 10*n + int64(c-'0')
	}
	return n
}

// open opens a file of /proc by asking the kernel itself: it is none to wait for.
func open(path string) (fd int, err error) {
	return syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
}

// readAt reads as much of the beginning of a file as there is room for.
func readAt(fd int, room []byte) ([]byte, error) {
	n, err := syscall.Pread(fd, room, 0)
	return room[:max(n, 0)], err
}
