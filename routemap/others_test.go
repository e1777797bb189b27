package routemap

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestOthers: windows in which others used more than a tenth of a processor are told, by host, whatever is merged and stored meanwhile.
func TestOthers(t *testing.T) {
	whole, parts := New(), New()
	for i, used := range []time.Duration{0, 900 * time.Millisecond, time.Second, 1001 * time.Millisecond, 20 * time.Second, -time.Second} {
		whole.AddOthers("a", 10*time.Second, used)
		part := New()
		part.AddOthers("a", 10*time.Second, used)
		if i%2 == 0 {
			rest, err := part.Store(nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := parts.Load(rest); err != nil {
				t.Fatal(err)
			}
		} else {
			parts.Merge(part)
		}
	}
	whole.AddOthers("b", time.Second, 0)
	parts.AddOthers("b", time.Second, 0)
	whole.AddOthers("c", 0, time.Second) // of no time nothing is known
	want := "[windows of 6 on a that are contaminated: others used more than 0.1 processors (on average 0.38, at most 2) windows of 1 on b that are contaminated: others used more than 0.1 processors (on average 0, at most 0)]"
	for _, m := range []*Map{whole, parts} {
		if got := fmt.Sprint(m.Report().Hosts); got != want {
			t.Error(got)
		}
		if n := m.Report().Hosts[0].Contaminated; n != 2 {
			t.Errorf("%d windows are contaminated", n)
		}
	}
	for i := range 2 * maxHosts {
		whole.AddOthers(strings.Repeat("x", i), time.Second, 0)
	}
	if n := len(whole.Report().Hosts); n > maxHosts+1 {
		t.Errorf("%d hosts", n)
	}
	if rest, err := whole.Store(nil); err != nil || New().Load(rest) != nil {
		t.Error("all hosts cannot be read again")
	}
}
