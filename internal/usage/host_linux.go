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
	open  int               // files of them
	had   uint64            // as it was when they were listed
	reads int               // since then
	skip  int               // reads to leave out
	text  [64]byte
}

// maxOpen is how many files are kept open: those of other threads are opened each time.
const maxOpen = 64

// thread is how long one had waited when it was read last.
type thread struct {
	fd     int // that tells of it; negative: it is not kept open
	waited time.Duration
	known  bool // that it had
}

func (t *threads) read() (sum time.Duration) {
	if t.skip--; t.skip >= 0 {
		return 0
	}
	t.list()
	for name, one := range t.all {
		text, err := t.ask(name, one.fd)
		if err == syscall.EMFILE || err == syscall.ENFILE {
			continue
		}
		if err != nil { // it has ended; what it waited last is not known
			t.forget(name)
			continue
		}
		_, waited, found := bytes.Cut(text, []byte(" "))
		if !found {
			continue
		}
		is := time.Duration(number(waited))
		if one.known {
			sum += grown(is, one.waited)
		}
		t.all[name] = thread{one.fd, is, true}
	}
	t.skip = (len(t.all) - 1) / threadsEach
	return sum
}

// ask returns what the kernel says of a thread.
func (t *threads) ask(name string, fd int) ([]byte, error) {
	if fd >= 0 {
		return readAt(fd, t.text[:])
	}
	fd, err := open(schedstat(name))
	if err != nil {
		return nil, err
	}
	defer syscall.Close(fd)
	return readAt(fd, t.text[:])
}

func schedstat(name string) string { return "/proc/self/task/" + name + "/schedstat" }

func (t *threads) forget(name string) {
	if fd := t.all[name].fd; fd >= 0 {
		_ = syscall.Close(fd)
		t.open--
	}
	delete(t.all, name)
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
	dir, err := os.Open("/proc/self/task")
	if err != nil {
		return
	}
	defer dir.Close()
	t.had, t.reads = has, 0
	begun := t.all != nil // what is new has begun since, and had not waited then
	if !begun {
		t.all = map[string]thread{}
	}
	names, _ := dir.Readdirnames(-1) // as far as it went
	for _, name := range names {
		if _, known := t.all[name]; known {
			continue
		}
		one := thread{fd: -1, known: begun}
		if t.open < maxOpen {
			if fd, err := open(schedstat(name)); err == nil {
				one.fd = fd
				t.open++
			}
		}
		t.all[name] = one
	}
}

func (t *threads) close() {
	for name := range t.all {
		t.forget(name)
	}
	*t = threads{}
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
