package routemap

import (
	"math"
	"slices"
)

// maxLeast is of how many things the numbers are kept to tell how many there are: exactly up to it, then within some 6 % (its root).
const maxLeast = 256

// leastNumbers are the least numbers of things that were seen, in order. If these are random, as many things as often as one likes are counted by them, also together
// with those that were seen elsewhere.
type leastNumbers []uint64

func (l *leastNumbers) add(all ...uint64) {
	for _, n := range all {
		at, known := slices.BinarySearch(*l, n)
		if known || at >= maxLeast {
			continue
		}
		if *l = slices.Insert(*l, at, n); len(*l) > maxLeast {
			*l = (*l)[:maxLeast]
		}
	}
}

// count is how many were seen.
func (l leastNumbers) count() uint64 {
	if len(l) < maxLeast {
		return uint64(len(l))
	}
	return uint64((maxLeast - 1) / (float64(l[maxLeast-1]) / math.MaxUint64))
}

// Seen notes a process that a node stands for, by a number that is random, and the same whenever the process is seen.
func (m *Map) Seen(n Node, process uint64) {
	m.node(n).seen.add(process)
	m.fit(false)
}
