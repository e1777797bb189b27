package usage

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestParseHost: what the kernel says of all processors is read; what is none of that is nothing.
func TestParseHost(t *testing.T) {
	const ms10 = 10 * time.Millisecond
	for text, want := range map[string]Host{
		"cpu  100 20 30 400 5 6 7 8 9 0\ncpu0 1 2 3 4 5 6 7 8 9 0\n": {User: 120 * ms10, System: 43 * ms10, Idle: 405 * ms10, Steal: 8 * ms10},
		"cpu  1 0 0 0 0 0 0 0":       {User: ms10},
		"cpu0 1 2 3 4 5 6 7 8 9 0\n": {}, "cpu  1 2 3 4\n": {}, "": {}, "cpu": {},
		"cpu  -1 99999999999999999999999 x 4 0 0 0 0 0 0": {Idle: 4 * ms10},
	} {
		got, known := parseHost([]byte(text))
		if got != want || known != (want != Host{}) {
			t.Errorf("%q: %+v, %v", text, got, known)
		}
	}
}

// TestMeter: what this process uses is found, in it and in its host, and once.
func TestMeter(t *testing.T) {
	m := NewMeter()
	defer m.Close()
	var sum Used
	for began := time.Now(); sum.User+sum.System < 100*time.Millisecond || sum.Host.Total() == 0; {
		if time.Since(began) > time.Minute {
			t.Fatalf("%+v in a minute", sum)
		}
		for end := time.Now().Add(20 * time.Millisecond); time.Now().Before(end); {
		}
		u := m.Read()
		sum.Add(&u)
	}
	is := m.now()
	if is.user+is.system < sum.User+sum.System || is.voluntary+is.involuntary < sum.Voluntary+sum.Involuntary {
		t.Errorf("%+v of %+v", sum, is)
	}
	if again := m.Read(); again.User+again.System > is.user+is.system-sum.User-sum.System+time.Second || again.From.Before(sum.From.Add(sum.Took)) {
		t.Errorf("%+v after %+v", again, sum)
	}
}

// TestThreads: how long threads waited to run is what the kernel says of all of them, those that begin later, too. What was open is closed.
func TestThreads(t *testing.T) {
	opened := func() int {
		t.Helper()
		all, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, fd := range all {
			if at, _ := os.Readlink("/proc/self/fd/" + fd.Name()); strings.HasSuffix(at, "/schedstat") {
				n++
			}
		}
		return n
	}
	if n := opened(); n != 0 {
		t.Fatalf("%d files are open", n)
	}
	var all threads
	defer all.close()
	if first := all.read(); first != 0 {
		t.Errorf("%s before it was asked", first)
	}
	if len(all.all) == 0 || opened() != len(all.all) {
		t.Fatalf("%d threads, %d files", len(all.all), opened())
	}
	all.skip = 0
	for name, one := range all.all {
		all.all[name] = thread{one.fd, one.waited - time.Hour, true}
	}
	n := time.Duration(len(all.all))
	if got := all.read(); got < (n-1)*time.Hour { // one may have ended
		t.Errorf("%s of %d threads that waited an hour each", got, n)
	}
	all.skip = 1
	if got := all.read(); got != 0 {
		t.Errorf("%s although it does not look", got)
	}
	begun, end := make(chan int), make(chan struct{})
	for range 2 {
		go func() {
			runtime.LockOSThread() // and ends with it, if it is not the first
			begun <- syscall.Gettid()
			<-end
		}()
	}
	name := strconv.Itoa(max(<-begun, <-begun))
	all.reads, all.skip = listEvery, 0
	if all.read(); all.all[name] == (thread{}) {
		t.Errorf("thread %s is not known", name)
	}
	close(end)
	for began := time.Now(); all.all[name] != (thread{}); all.skip = 0 {
		if all.read(); time.Since(began) > time.Minute {
			t.Fatalf("thread %s, which has ended, is known after a minute", name)
		}
	}
	if opened() != len(all.all) {
		t.Errorf("%d threads, %d files", len(all.all), opened())
	}
	all.close()
	if n := opened(); n != 0 {
		t.Errorf("%d files are left open", n)
	}
	if all.read() != 0 || len(all.all) == 0 {
		t.Error("it cannot begin anew")
	}
}

// TestNoHost: a meter that is to leave the host out does, and begins anew when it is not any more.
func TestNoHost(t *testing.T) {
	m := NewMeter()
	defer m.Close()
	m.NoHost = true
	time.Sleep(2 * tick)
	if u := m.Read(); u.Host != (Host{}) {
		t.Errorf("%+v", u.Host)
	}
	m.NoHost = false
	if u := m.Read(); u.Host != (Host{}) {
		t.Errorf("%+v of a time in which nobody looked", u.Host)
	}
	for began := time.Now(); m.Read().Host.Total() == 0; time.Sleep(tick) {
		if time.Since(began) > time.Minute {
			t.Fatal("it does not look again")
		}
	}
}
