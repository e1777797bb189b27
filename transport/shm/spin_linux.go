package shm

import (
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// spinYield is how long a spin keeps the processor from other goroutines.
	spinYield = 2 * time.Microsecond
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
)

var epoch = time.Now()

func now() time.Duration { return time.Since(epoch) }

// spinner decides how long to wait for a frame before sleeping. The holder of
// the receive lock owns it.
type spinner struct {
	limit time.Duration // 0: never
	score int
	waits int           // waits that did not spin
	since time.Duration // when the goroutine went to sleep, 0 if it did not
	tried bool          // a spin failed since the last sleep
}

// newSpinner decides whether spinning can pay at all: the peer and we need a
// processor each.
func newSpinner(limit time.Duration) spinner {
	if limit == 0 {
		limit = defaultSpin
	}
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err == nil && set.Count() == 1 {
		limit = 0
	}
	if limit < 0 || runtime.GOMAXPROCS(0) == 1 || runtime.NumCPU() == 1 {
		limit = 0
	}
	return spinner{limit: limit, score: maxScore}
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
	}
}

func (s *spinner) awoken() {
	if s.since != 0 && !s.tried && now()-s.since < s.limit+wakeCost {
		s.score = min(s.score+scoreHint, maxScore)
	}
	s.since, s.tried = 0, false
}

// await spins until a frame is there, which it tells, or until done is set, the
// connection ends, quit is set, or the budget is spent. The caller holds rlock.
//
// A spinner holds a processor of the Go scheduler whose queue may contain the
// very goroutine that is to bring the reply, hence it yields: first if it has
// made goroutines runnable, then every spinYield. One yield to the kernel lets a
// peer run that shares the core.
func (c *Conn) await(done, quit *atomic.Bool, yield bool) bool {
	budget := c.spin.budget()
	if budget == 0 {
		return c.in.ready()
	}
	if yield {
		runtime.Gosched()
	}
	start := now()
	var away time.Duration // what others used
	yielded, kernel := start, true
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
		t := now()
		if c.ending() || (quit != nil && quit.Load()) {
			c.stats.spin.Add(uint64(t - start - away))
			return false
		}
		if t-start-away > budget {
			return c.spun(t-start-away, c.in.ready())
		}
		if t-yielded > spinYield {
			if kernel {
				_, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
				kernel = false
			}
			runtime.Gosched()
			yielded = now()
			away += yielded - t
		}
	}
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
