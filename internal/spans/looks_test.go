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
			a, b := here.Looks(id), there.Looks(id)
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
	if looked, _ := window(maxLooks - 1); looked != maxLooks-1 {
		t.Errorf("%d of %d", looked, maxLooks-1)
	}
	for range 10 {
		if looked, same := window(100_000); looked > 2*maxLooks+100 || looked < maxLooks/16 || same != 100_000 {
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
	if here.Looks(trace()) {
		t.Error("one that has stopped looks")
	}
}
