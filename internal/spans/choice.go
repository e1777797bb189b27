package spans

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
)

// Budget is how many traces are begun in a window, about; all that there are below it.
const Budget = 500

const (
	mostSparse = 1 << 24 // one in so many is chosen at least
	leastPart  = 64
)

// choice chooses which roots are traced: one in every, which is a power of 2, and more when a window had too many. Who is asked does not know how long a call will take.
type choice struct {
	random func() uint64
	every  atomic.Uint32 // 0: none is chosen
	chosen atomic.Uint32 // in this window
	most   atomic.Uint32 // that are chosen until every grows

	mu   sync.Mutex
	part uint32 // how many more are then chosen
	seen uint64 // roots of this window, of which chosen ones were told with another every
	told uint32 // of chosen, those in seen
}

// draw chooses for a root, and says how many it stands for.
func (c *choice) draw() (weight uint32, chosen bool) {
	every := c.every.Load()
	if every == 0 || c.random()&uint64(every-1) != 0 {
		return 0, false
	}
	if c.chosen.Add(1) >= c.most.Load() {
		c.grow()
	}
	return every, true
}

// grow makes the rest of a window that has its budget sparser: each part of the budget is half as large, and one in four as many is chosen. So a window has hardly
// more than two budgets, however many roots there are.
func (c *choice) grow() {
	c.mu.Lock()
	defer c.mu.Unlock()
	chosen, every := c.chosen.Load(), c.every.Load()
	if chosen < c.most.Load() || every == 0 {
		return
	}
	c.seen += uint64(chosen-c.told) * uint64(every)
	c.told = chosen
	c.part = max(c.part/2, leastPart)
	c.most.Store(chosen + c.part)
	c.every.Store(min(4*every, mostSparse))
}

// next begins a window. The last one had as many spans, and full tells that there was no room for more.
func (c *choice) next(spans int, full bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	every := c.every.Load()
	if every == 0 {
		return
	}
	chosen := c.chosen.Swap(0)
	seen := c.seen + uint64(chosen-c.told)*uint64(every)
	c.seen, c.told, c.part = 0, 0, Budget
	c.most.Store(Budget)
	want := sparser(1, seen, Budget)
	if chosen > 0 { // some spans may be of others' traces, for which these must not be given up
		all := seen / uint64(chosen) * uint64(spans) // if every root were chosen
		most := min(64*want, mostSparse)
		want = min(sparser(want, all, rootsUpTo*3/4), most)
		if full {
			want = min(max(want, 2*every), most)
		}
	}
	c.every.Store(want)
}

// sparser is the least power of 2, from one on, by which n has to be divided to be no more than most.
func sparser(from uint32, n, most uint64) uint32 {
	for from < mostSparse && n/uint64(from) > most {
		from *= 2
	}
	return from
}

// start has all roots chosen, stop none.
func (c *choice) start() { c.set(1) }
func (c *choice) stop()  { c.set(0) }

func (c *choice) set(every uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen, c.told, c.part = 0, 0, Budget
	c.chosen.Store(0)
	c.most.Store(Budget)
	c.every.Store(every)
}

// id returns a random one that is not 0.
func (c *choice) id() uint64 {
	for {
		if id := c.random(); id != 0 {
			return id
		}
	}
}

func random() uint64 { return rand.Uint64() }
