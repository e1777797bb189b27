package usage

import (
	"bytes"
	"os"
	"syscall"
	"time"
)

// threadsEach is how many threads are read each time: of more, all are read each second time, or seldomer.
const threadsEach = 48

// threads tells how long the threads of this process were ready to run and did not.
type threads struct {
	waited map[string]time.Duration // by a thread's name in /proc
	skip   int                      // reads to leave out
	text   [64]byte
}

func (t *threads) read() (sum time.Duration) {
	if t.skip--; t.skip >= 0 {
		return 0
	}
	dir, err := os.Open("/proc/self/task")
	if err != nil {
		return 0
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return 0
	}
	t.skip = (len(names) - 1) / threadsEach
	first := t.waited == nil
	waited := make(map[string]time.Duration, len(names))
	for _, name := range names {
		is, was := t.of(name)
		waited[name] = is
		if !first {
			sum += grown(is, was) // what a thread that has ended waited last is not known
		}
	}
	t.waited = waited
	return sum
}

func (t *threads) of(name string) (is, was time.Duration) {
	was = t.waited[name]
	text, err := readHead("/proc/self/task/"+name+"/schedstat", t.text[:])
	if err != nil { // it has ended
		return was, was
	}
	fields := bytes.Fields(text)
	if len(fields) < 2 {
		return was, was
	}
	return time.Duration(number(fields[1])), was
}

// hostLook is how long a look at the host may take: what takes longer, as with many processors, is done seldomer.
const hostLook = 150 * time.Microsecond

// hostMeter tells what the host uses.
type hostMeter struct {
	was   Host
	least time.Duration // that a look took
	skip  int
	text  [512]byte
}

func (h *hostMeter) read() Host {
	if h.skip--; h.skip >= 0 {
		return Host{}
	}
	began := time.Now()
	text, err := readHead("/proc/stat", h.text[:])
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

// number reads digits; of anything else it is nothing.
func number(text []byte) (n int64) {
	for _, c := range text {
		if c < '0' || c > '9' || n > 1<<58 {
			return 0
		}
		n = 10*n + int64(c-'0')
	}
	return n
}

// readHead reads as much of a file as there is room for. It asks the kernel itself, in half the time: the file is none to wait for.
func readHead(path string, room []byte) ([]byte, error) {
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer syscall.Close(fd)
	n, err := syscall.Read(fd, room)
	return room[:max(n, 0)], err
}
