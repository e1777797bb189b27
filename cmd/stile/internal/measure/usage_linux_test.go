package measure

import (
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/stile-ipc/stile/internal/procfs"
)

func TestUsageOfThisProcess(t *testing.T) {
	me := []int{os.Getpid()}
	before, err := UsageOf(me)
	if err != nil {
		t.Fatal(err)
	}
	var rusage syscall.Rusage
	burned := func() time.Duration {
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &rusage); err != nil {
			t.Fatal(err)
		}
		return time.Duration(rusage.Utime.Nano() + rusage.Stime.Nano())
	}
	for start := burned(); burned()-start < 200*time.Millisecond; {
	}
	// Each read of an empty pipe puts a thread to sleep, and so switches.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var ends [2]int
	if err := syscall.Pipe(ends[:]); err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(ends[0])
	pace := time.NewTicker(time.Millisecond)
	defer pace.Stop()
	wrote := make(chan struct{})
	go func() {
		defer close(wrote)
		for range 50 {
			<-pace.C
			_, _ = syscall.Write(ends[1], []byte{1})
		}
		_ = syscall.Close(ends[1])
	}()
	var one [1]byte
	for {
		if n, err := syscall.Read(ends[0], one[:]); n == 0 || err != nil {
			break
		}
	}
	<-wrote
	after, err := UsageOf(me)
	if err != nil {
		t.Fatal(err)
	}
	used := after.Since(before)
	if used.CPU < 150*time.Millisecond || after.CPU > burned()+2*procfs.Tick {
		t.Errorf("CPU %v of which %v since, getrusage %v", after.CPU, used.CPU, burned())
	}
	if used.Switches < 25 {
		t.Errorf("%d context switches, want 25 at least", used.Switches)
	}
	if twice, err := UsageOf([]int{os.Getpid(), os.Getpid()}); err != nil || twice.CPU < 2*after.CPU {
		t.Errorf("two processes: %v %v, one %v", twice, err, after)
	}
}

func TestUsageOfNoProcess(t *testing.T) {
	if _, err := UsageOf([]int{1 << 30}); err == nil {
		t.Error("a process that does not exist has used something")
	}
}

func TestParseProc(t *testing.T) {
	got, err := parseStat([]byte("7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 11 22 33 44 20 0 1"))
	if err != nil || got != 33 {
		t.Errorf("%d %v, want 11+22", got, err)
	}
	for _, text := range []string{"", "7 (a", "7 (a) S 1 2", "7 (a) S 1 7 7 0 -1 4194560 1 2 3 4 x 22 33"} {
		if got, err := parseStat([]byte(text)); err == nil {
			t.Errorf("%q: %d", text, got)
		}
	}
}
