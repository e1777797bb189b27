package shm

import (
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// spinYield is how long a spin keeps the processor from other goroutines.
	spinYield = 20 * time.Microsecond
	// spaceSpin bounds a spin for space: the time to read a few large frames.
	spaceSpin = 20 * time.Microsecond
	// spinChecks looks at the ring with spinPause between lie between two looks
	// at the clock, about half a microsecond.
	spinChecks = 16
	spinPause  = 2

	// A score from 0 to maxScore tells whether spinning has paid. From scoreLoss
	// on the next wait spins; below, one in probeEvery does nevertheless.
	maxScore   = 32
	scoreWin   = 8
	scoreLoss  = 4
	scoreHint  = 1
	probeEvery = 16
	// wakeCost is added to the bound when a sleep is judged: it was that much
	// longer for the wake-up.
	wakeCost = 50 * time.Microsecond

	// longYield is more than a peer needs for a call, and less than the
	// scheduler's time slice.
	longYield = 300 * time.Microsecond
	minSkip   = 64
	maxSkip   = 4096
)

// tick is for how long, or twice that, a connection that waits for frames counts as
// lively.
const tick = time.Millisecond

// lively counts the connections of this process that wait for frames. Each that spins
// keeps a processor from the goroutines of all others, so that of many none shall.
var lively tally

// tally counts who comes within a tick.
type tally struct {
	// state holds the number of the tick (40 bits: 34 years), how many came in the one
	// before, and how many in this one (12 bits each).
	state atomic.Uint64
}

const (
	tallyBits = 12
	tallyMax  = 1<<tallyBits - 1
)

// come counts somebody who came last in tick *last, and says how many come, in this
// tick or in the one before.
func (t *tally) come(last *uint64, at time.Duration) int {
	for {
		s := t.state.Load()
		n, before, here := s>>(2*tallyBits), s>>tallyBits&tallyMax, s&tallyMax
		switch at := uint64(at / tick); {
		case at <= n && *last == n:
			return int(max(before, here))
		case at <= n: // or another goroutine, that looked at the clock later, was faster
		case at == n+1:
			n, before, here = at, here, 0
		default:
			n, before, here = at, 0, 0
		}
		here = min(here+1, tallyMax)
		if t.state.CompareAndSwap(s, n<<(2*tallyBits)|before<<tallyBits|here) {
			*last = n
			return int(max(before, here))
		}
	}
}

var epoch = time.Now()

func now() time.Duration { return time.Since(epoch) }

// spinner decides how long to wait for a frame before sleeping. The holder of
// the receive lock owns it.
type spinner struct {
	limit  time.Duration // 0: never
	shared bool          // the limit is 0 because there is one processor for all
	most   int           // lively connections of this process, beyond which none spins
	came   uint64        // the tick in which this one was counted
	score  int
	waits  int           // waits that did not spin
	since  time.Duration // when the goroutine went to sleep, 0 if it did not
	tried  bool          // a spin failed since the last sleep
	skip   int           // yields to the kernel to leave out
	skips  int           // the last value skip was set to
}

// newSpinner decides whether spinning can pay at all: the peer and we need a
// processor each.
func newSpinner(limit time.Duration) spinner {
	if limit == 0 {
		limit = defaultSpin
	}
	shared := limit > 0
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err == nil && set.Count() == 1 {
		limit = 0
	}
	if limit < 0 || runtime.GOMAXPROCS(0) == 1 || runtime.NumCPU() == 1 {
		limit = 0
	}
	return spinner{
		limit: limit, shared: shared && limit == 0,
		most: max(2, runtime.GOMAXPROCS(0)/2), score: maxScore,
	}
}

// budget is how long the next wait may spin.
func (s *spinner) budget() time.Duration {
	if s.score >= scoreLoss || s.limit == 0 {
		return s.limit
	}
	if s.waits++; s.waits%probeEvery == 0 {
		return s.limit
	}
	return 0
}

func (s *spinner) won() { s.score = min(s.score+scoreWin, maxScore) }

func (s *spinner) lost() {
	s.score = max(s.score-scoreLoss, 0)
	s.tried = true
}

// asleep and awoken bracket a sleep. A short one that no spin came before hints
// that a spin would have paid: so spinning comes back soon after a bad time.
func (s *spinner) asleep() {
	if s.limit != 0 {
		s.since = now()
		lively.come(&s.came, s.since)
	}
}

func (s *spinner) awoken() {
	if s.since != 0 && !s.tried && now()-s.since < s.limit+wakeCost {
		s.score = min(s.score+scoreHint, maxScore)
	}
	s.since, s.tried = 0, false
}

// yield yields to the kernel, and tells whether it did. Where it gave a third
// process a whole time slice, it is left out for a while.
func (s *spinner) yield() bool {
	if s.skip > 0 {
		s.skip--
		return false
	}
	start := now()
	_, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
	if now()-start > longYield {
		s.skips = min(max(2*s.skips, minSkip), maxSkip)
		s.skip = s.skips
	} else {
		s.skips /= 2
	}
	return true
}

// await spins until a frame is there, which it tells, or until done is set, the
// connection ends, quit is set, or the budget is spent. The caller holds rlock.
//
// A spinner holds a processor of the Go scheduler whose queue may contain the
// very goroutine that is to bring the reply, hence it yields: first if it has
// made goroutines runnable, then after spinYield, and ever less often because each
// yield may wake another thread of the scheduler. One yield to the kernel lets a
// peer run that shares the core.
func (c *Conn) await(done, quit *atomic.Bool, yield bool) bool {
	budget := c.spin.budget()
	if budget == 0 {
		return c.in.ready() || (c.spin.shared && c.yieldTo(done))
	}
	if yield {
		runtime.Gosched()
	}
	start := now()
	var away time.Duration // what others used
	yielded, kernel := start, true
	step := spinYield
	for {
		for range spinChecks {
			if c.in.ready() {
				return c.spun(now()-start-away, true)
			}
			if done != nil && done.Load() {
				c.spun(now()-start-away, true)
				return false
			}
			pause(spinPause)
		}
		c.tellSpace()
		t := now()
		if c.ending() || (quit != nil && quit.Load()) || lively.come(&c.spin.came, t) > c.spin.most {
			c.stats.spin.Add(uint64(t - start - away))
			return false
		}
		if t-start-away > budget {
			return c.spun(t-start-away, c.in.ready())
		}
		if t-yielded > step {
			if kernel {
				c.spin.yield()
				kernel = false
			}
			runtime.Gosched()
			yielded = now()
			away += yielded - t
			step *= 2
		}
	}
}

// yieldTo lets a peer run that can only run on our processor, and tells whether
// a frame is there.
func (c *Conn) yieldTo(done *atomic.Bool) bool {
	for range 2 {
		runtime.Gosched()
		if !c.spin.yield() || (done != nil && done.Load()) {
			break
		}
		if c.in.ready() {
			return true
		}
	}
	return c.in.ready()
}

// spun accounts for a spin and returns whether it found a frame.
func (c *Conn) spun(took time.Duration, paid bool) bool {
	c.stats.spin.Add(uint64(took))
	if paid {
		c.spin.won()
	} else {
		c.spin.lost()
	}
	return paid
}
