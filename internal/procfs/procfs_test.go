package procfs

import "testing"

// TestStat: the name may have anything in it; what is not there, or no number, is an error.
func TestStat(t *testing.T) {
	const text = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 11 22 33 44 20 0 1 0 99"
	s, err := ParseStat([]byte(text))
	if err != nil || s.Name != "a) b (c" {
		t.Fatalf("%q, %v", s.Name, err)
	}
	for field, want := range map[int]int64{UserTime: 11, SystemTime: 22, StartTime: 99} {
		if got, err := s.Ticks(field); err != nil || got != want {
			t.Errorf("field %d: %d, %v; want %d", field, got, err, want)
		}
	}
	if _, err := s.Ticks(StartTime + 1); err == nil {
		t.Error("a field that is not there")
	}
	if _, err := s.Ticks(3); err == nil {
		t.Error("a field that is no number")
	}
	for _, text := range []string{"", "7 (a", "7 a) S"} {
		if s, err := ParseStat([]byte(text)); err == nil {
			t.Errorf("%q: %+v", text, s)
		}
	}
}

// TestSwitches: both counts are there, or it is an error.
func TestSwitches(t *testing.T) {
	voluntary, involuntary, err := ParseSwitches([]byte("Name:\tx\nvoluntary_ctxt_switches:\t40\nnonvoluntary_ctxt_switches:\t2\n"))
	if err != nil || voluntary != 40 || involuntary != 2 {
		t.Errorf("%d and %d, %v; want 40 and 2", voluntary, involuntary, err)
	}
	for _, text := range []string{"", "voluntary_ctxt_switches:\t40\n", "voluntary_ctxt_switches:\tx\nnonvoluntary_ctxt_switches:\t2\n"} {
		if a, b, err := ParseSwitches([]byte(text)); err == nil {
			t.Errorf("%q: %d and %d", text, a, b)
		}
	}
}

// TestProgram: a name that the kernel has cut is whole again; one that the process has given itself stays.
func TestProgram(t *testing.T) {
	for _, c := range []struct{ name, exe, want string }{
		{"a-very-long-nam", "/bin/a-very-long-name", "a-very-long-name"}, {"worker: 1", "/bin/server", "worker: 1"}, {"kthreadd", "", "kthreadd"}, {"x\xff", "", "x?"},
	} {
		if got := Program(c.name, c.exe); got != c.want {
			t.Errorf("%q of %q is %q, want %q", c.name, c.exe, got, c.want)
		}
	}
}
