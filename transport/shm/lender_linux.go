package shm

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stile-ipc/stile/transport"
)

// trimAfter is how long memory stays after its last use.
const trimAfter = time.Second

// lender hands out the slots of the arena that this side sends through.
type lender struct {
	seg  *segment
	side int
	mem  []byte

	mu     sync.Mutex
	closed bool
	lent   [numSlots]bool // to a goroutine of ours
	filled [numSlots]int  // bytes from the slot's beginning that may have pages
	used   bool           // since the last look of trim
	timer  *time.Timer    // runs trim; nil: nothing to trim
}

func newLender(s *segment, side int) *lender {
	return &lender{seg: s, side: side, mem: s.arena(side)}
}

// lend finds the first free slot that takes n bytes: the same few serve again and
// again, whose pages exist and are warm.
func (l *lender) lend(n int) (transport.Loan, bool) {
	if n > maxLoan {
		return transport.Loan{}, false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return transport.Loan{}, false
	}
	for i := firstSlot(n); i < numSlots; i++ {
		if l.lent[i] || l.seg.slotWord(l.side, i).load() != 0 {
			continue
		}
		if !l.fillLocked(i, n) {
			break
		}
		l.lent[i] = true
		l.seg.hold()
		at := slots[i].at
		return transport.Loan{B: l.mem[at : at+n : at+n], Slot: i}, true
	}
	return transport.Loan{}, false
}

// fillLocked accounts for n bytes of a slot, and sees to it that they are given
// back some time.
func (l *lender) fillLocked(i, n int) bool {
	page := unix.Getpagesize()
	n = min((n+page-1)/page*page, slots[i].size)
	if more := n - l.filled[i]; more > 0 {
		if !memory.take(more) {
			return false
		}
		l.filled[i] = n
	}
	l.used = true
	if l.timer == nil {
		l.timer = time.AfterFunc(trimAfter, l.trim)
	}
	return true
}

// sending marks the slot as the peer's, from the frame that is about to be
// published on.
func (l *lender) sending(i int) { l.seg.slotWord(l.side, i).store(1) }

// done takes a loan back from a goroutine of ours. It was sent, or was not and then
// the slot's word is 0.
func (l *lender) done(i int, sent bool) {
	l.mu.Lock()
	if !sent {
		l.seg.slotWord(l.side, i).store(0)
	}
	l.lent[i] = false
	l.mu.Unlock()
	l.seg.release()
}

// trim gives back the pages of free slots once none was lent for a while. It runs on
// a timer of its own, which ends with the last page.
func (l *lender) trim() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	left := l.used
	for i, n := range l.filled {
		switch {
		case l.used || n == 0:
		case l.lent[i] || l.seg.slotWord(l.side, i).load() != 0:
			left = true
		default:
			l.freeLocked(i)
		}
	}
	l.used = false
	if left {
		l.timer.Reset(trimAfter)
	} else {
		l.timer = nil
	}
}

func (l *lender) freeLocked(i int) {
	if ownPages(slots[i], unix.Getpagesize()) && removePages(l.mem[slots[i].at:][:l.filled[i]]) == nil {
		memory.give(l.filled[i])
		l.filled[i] = 0
	}
}

// ownPages tells whether a slot shares no page with another one. With pages of
// 64 KiB the smaller ones do: theirs stay.
func ownPages(s slotPlace, page int) bool { return s.at%page == 0 && s.size%page == 0 }

// removePages gives whole pages of shared memory back to the kernel: they read as
// zeroes afterwards, on both sides. The kernel rounds the length up.
func removePages(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	return unix.Madvise(b, unix.MADV_REMOVE)
}

// close lends nothing any more. What is lent stays mapped until it is done with.
func (l *lender) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.timer != nil {
		l.timer.Stop()
	}
	for i, n := range l.filled {
		memory.give(n)
		l.filled[i] = 0
	}
}
