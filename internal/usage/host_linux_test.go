package usage

import (
	"os"
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

// TestThreads: how long threads waited to run is what the kernel says of all of them.
func TestThreads(t *testing.T) {
	var all threads
	if first := all.read(); first != 0 {
		t.Errorf("%s before it was asked", first)
	}
	if len(all.waited) == 0 {
		t.Fatal("there are no threads")
	}
	all.skip = 0
	for name := range all.waited {
		all.waited[name] -= time.Hour
	}
	n := time.Duration(len(all.waited))
	if got := all.read(); got < (n-1)*time.Hour { // one may have ended
		t.Errorf("%s of %d threads that waited an hour each", got, n)
	}
	all.skip = 1
	if got := all.read(); got != 0 {
		t.Errorf("%s although it does not look", got)
	}
	if _, err := readHead("/proc/self/nothing", nil); !os.IsNotExist(err) {
		t.Error(err)
	}
}
