package spans

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// TestLooks: all of a user's traces are looked at until there are too many; then some, of which processes that see them choose the same, and all again when there are few.
func TestLooks(t *testing.T) {
	here, there := seeded(1), seeded(2)
	r := rand.New(rand.NewPCG(3, 3))
	trace := func() (id TraceID) {
		binary.LittleEndian.PutUint64(id[:], r.Uint64())
		binary.LittleEndian.PutUint64(id[8:], r.Uint64())
		return id
	}
	window := func(n int) (looked, same int) {
		for range n {
			id := trace()
			a, b := here.LooksForUser(id), there.LooksForUser(id)
			if a {
				looked++
			}
			if a == b {
				same++
			}
		}
		here.Take()
		there.Take()
		return looked, same
	}
	if looked, _ := window(userLooks - 1); looked != userLooks-1 {
		t.Errorf("%d of %d", looked, userLooks-1)
	}
	for range 10 {
		if looked, same := window(100_000); looked > 2*userLooks+100 || looked < userLooks/16 || same != 100_000 {
			t.Errorf("%d of 100,000 are looked at, and %d alike", looked, same)
		}
	}
	for range 10 {
		window(10)
	}
	if looked, _ := window(100); looked != 100 {
		t.Errorf("%d of 100, after a while", looked)
	}
	here.Stop()
	if here.LooksForUser(trace()) {
		t.Error("one that has stopped looks")
	}
}

// TestRootLooks: of the traces that begin here, all are looked at until there are too many; then some, whichever; and every process does so that meets one.
func TestRootLooks(t *testing.T) {
	here, there := seeded(4), New()
	there.Start()
	window := func(n int) (looked int) {
		for range n {
			s := here.Root()
			if s == nil {
				continue
			}
			if s.Trace == (TraceID{}) || here.Looks(s.Trace) != there.Looks(s.Trace) {
				t.Fatalf("trace %x is looked at by one of two", s.Trace)
			}
			if here.Looks(s.Trace) {
				looked++
			}
		}
		here.Take()
		there.Take()
		return looked
	}
	if looked := window(rootLooks - 1); looked != rootLooks-1 {
		t.Errorf("%d of %d", looked, rootLooks-1)
	}
	for range 10 {
		if looked := window(Budget); looked > 2*rootLooks || looked < rootLooks/16 {
			t.Errorf("%d of %d are looked at", looked, Budget)
		}
	}
	n := 0
	for range 3 * maxLooks {
		if there.Looks(TraceID{1}) {
			n++
		}
		if there.Looks(TraceID{2}) {
			t.Fatal("a trace is looked at that is none of those")
		}
	}
	if n != maxLooks {
		t.Errorf("%d calls of others' traces are looked at", n)
	}
	there.Stop()
	if there.Looks(TraceID{1}) {
		t.Error("one that has stopped looks")
	}
}
