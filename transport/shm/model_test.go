//go:build linux

package shm

import "testing"

// The models below are the steps of write_linux.go and receive_linux.go that
// touch what is shared, one atomic access a step, and explore walks through every
// interleaving of them. A flaw is a step taken out or put elsewhere; the test
// makes sure that the model notices each.

// explore visits every state reachable from s. It returns the number of states
// and the last states, from which no step is possible, that good rejects.
func explore[S comparable](s S, next func(S) []S, good func(S) bool) (states, bad int) {
	seen := map[S]bool{s: true}
	for todo := []S{s}; len(todo) > 0; {
		s, todo = todo[len(todo)-1], todo[:len(todo)-1]
		succ := next(s)
		if len(succ) == 0 && !good(s) {
			bad++
		}
		for _, n := range succ {
			if !seen[n] {
				seen[n] = true
				todo = append(todo, n)
			}
		}
	}
	return len(seen), bad
}

// wakeState is one direction: a producer, the consumer's goroutine, two callers
// that poll, and someone who ends the connection.
type wakeState struct {
	head, taken int8
	sleeping    bool
	lock        int32
	edge        bool // the goroutine's poller has news
	ended       bool
	exited      bool // the goroutine
	prod        int8 // program counters
	gor         int8
	calls       [2]int8
	polls       [2]int8 // left
	closer      int8
}

const (
	gorAsleep int8 = iota
	gorReset
	gorLock
	gorLook
	gorFlag
	gorLookAgain
	gorUnlock
	gorClear
	gorDrain
	gorLeave
	gorWork // rlock is free
)

const (
	callLock int8 = iota
	callClear
	callDrain
	callFlag
	callLook
	callUnflag
	callUnlockWake
	callUnlock
	callWake
)

type wakeFlaw string

const (
	flawCheckFirst    wakeFlaw = "producer looks at the flag before it publishes"
	flawNoBell        wakeFlaw = "producer does not ring"
	flawNoLook        wakeFlaw = "goroutine does not look after setting the flag"
	flawFlagLast      wakeFlaw = "goroutine sets the flag after its last look"
	flawNoMark        wakeFlaw = "goroutine does not mark a lock it cannot get"
	flawCallerNoFlag  wakeFlaw = "caller leaves without setting the flag"
	flawCallerNoLook  wakeFlaw = "caller does not look after setting the flag"
	flawCallerNoMark  wakeFlaw = "caller ignores the mark"
	flawCallerNoWake  wakeFlaw = "caller leaves a ring that is not empty to nobody"
	flawCallerLateSet wakeFlaw = "caller clears the flag after it unlocked"
	flawWorkNoLook    wakeFlaw = "goroutine goes to sleep after work without a look"
	flawCloserNoWake  wakeFlaw = "the end of the connection wakes nobody"
)

type wakeModel struct {
	frames int8
	flaw   wakeFlaw
}

func (m wakeModel) next(s wakeState) (all []wakeState) {
	all = m.producer(s, all)
	all = m.goroutine(s, all)
	for i := range s.calls {
		all = m.caller(s, i, all)
	}
	switch n := s; s.closer {
	case 1:
		n.ended, n.closer = true, 2
		all = append(all, n)
	case 2:
		n.edge, n.closer = n.edge || m.flaw != flawCloserNoWake, 3
		all = append(all, n)
	}
	return all
}

func (m wakeModel) producer(n wakeState, all []wakeState) []wakeState {
	const (
		publish int8 = iota
		load
		swap
		bell
		late
	)
	early := m.flaw == flawCheckFirst
	switch n.prod {
	case publish:
		if n.head == m.frames {
			return all
		}
		if early {
			n.prod = late
			if n.sleeping {
				n.prod = swap
			}
			break
		}
		n.head++
		n.prod = load
	case load:
		n.prod = publish
		if n.sleeping {
			n.prod = swap
		}
	case swap:
		n.prod = publish
		if early {
			n.prod = late
		}
		if n.sleeping {
			n.prod = bell
		}
		n.sleeping = false
	case bell:
		n.edge = n.edge || m.flaw != flawNoBell
		n.prod = publish
		if early {
			n.prod = late
		}
	case late:
		n.head++
		n.prod = publish
	}
	return append(all, n)
}

func (m wakeModel) goroutine(n wakeState, all []wakeState) []wakeState {
	if n.exited {
		return all
	}
	switch n.gor {
	case gorAsleep:
		if !n.edge {
			return all
		}
		n.edge, n.gor = false, gorLock
	case gorReset: // the poller forgets what came while nobody slept
		n.edge, n.gor = false, gorLock
	case gorLock:
		switch {
		case n.lock == lockFree:
			n.lock, n.gor = lockHeld, gorLook
		case m.flaw == flawNoMark:
			n.gor = gorAsleep
		default:
			n.lock, n.gor = lockWanted, gorAsleep
		}
	case gorLook:
		n.gor = gorFlag
		if n.ended || n.head != n.taken {
			n.gor = gorClear
		} else if m.flaw == flawFlagLast {
			n.gor = gorLookAgain
		}
	case gorFlag:
		n.sleeping, n.gor = true, gorLookAgain
		if m.flaw == flawNoLook || m.flaw == flawFlagLast {
			n.gor = gorUnlock
		}
	case gorLookAgain:
		n.gor = gorUnlock
		if n.ended || n.head != n.taken {
			n.gor = gorClear
		} else if m.flaw == flawFlagLast {
			n.gor = gorFlag
		}
	case gorUnlock:
		n.lock, n.gor = lockFree, gorAsleep
	case gorClear:
		n.sleeping, n.gor = false, gorDrain
	case gorDrain:
		switch {
		case n.ended:
			n.exited = true // and keeps the lock
		case n.head != n.taken:
			n.taken++
			work := n // for what it took
			work.lock, work.gor = lockFree, gorWork
			all = append(all, work)
		default:
			n.gor = gorLeave
		}
	case gorWork:
		relieved := n // another goroutine begins where this one would go to bed
		relieved.gor = gorReset
		all = append(all, relieved)
		switch {
		case m.flaw == flawWorkNoLook:
			n.gor = gorAsleep
		case n.lock == lockFree:
			n.lock, n.gor = lockHeld, gorClear
		default:
			n.gor = gorReset
		}
	case gorLeave:
		n.lock, n.gor = lockFree, gorReset
	}
	return append(all, n)
}

func (m wakeModel) caller(n wakeState, i int, all []wakeState) []wakeState {
	pc := &n.calls[i]
	switch *pc {
	case callLock:
		if n.polls[i] == 0 {
			return all
		}
		if n.lock != lockFree {
			n.polls[i]-- // it waits for its reply by other means
			break
		}
		n.lock, *pc = lockHeld, callClear
	case callClear:
		n.sleeping, *pc = false, callDrain
	case callDrain: // it can leave whenever its reply has come or its patience ends
		left := n
		left.calls[i] = callFlag
		switch m.flaw {
		case flawCallerNoFlag:
			left.calls[i] = callLook
		case flawCallerLateSet:
			left.calls[i] = callUnlock
		}
		all = append(all, left)
		if n.ended || n.head == n.taken {
			return all
		}
		n.taken++
	case callFlag:
		n.sleeping, *pc = true, callLook
		if m.flaw == flawCallerNoLook {
			*pc = callUnlock
		}
		if m.flaw == flawCallerLateSet {
			*pc = callLock
			n.polls[i]--
		}
	case callLook:
		*pc = callUnflag // for a frame it saw, or to hand over
		if n.head == n.taken {
			all = append(all, n)
			*pc = callUnlock
		}
	case callUnflag:
		n.sleeping, *pc = false, callUnlockWake
	case callUnlockWake:
		n.lock, *pc = lockFree, callWake
	case callUnlock:
		marked := n.lock == lockWanted
		n.lock = lockFree
		switch {
		case m.flaw == flawCallerLateSet:
			*pc = callFlag
		case marked && m.flaw != flawCallerNoMark:
			*pc = callWake
		default:
			*pc = callLock
			n.polls[i]--
		}
	case callWake:
		n.edge = n.edge || m.flaw != flawCallerNoWake
		n.polls[i]--
		*pc = callLock
	}
	return append(all, n)
}

func (m wakeModel) good(s wakeState) bool {
	if s.ended {
		return s.exited
	}
	return s.head == m.frames && s.taken == s.head
}

func TestModelWake(t *testing.T) {
	run := func(flaw wakeFlaw, frames, polls int8) (states, bad int) {
		for closer := range int8(2) {
			m := wakeModel{frames: frames, flaw: flaw}
			start := wakeState{gor: gorReset, polls: [2]int8{polls, 1}, closer: closer}
			n, b := explore(start, m.next, m.good)
			states, bad = states+n, bad+b
		}
		return states, bad
	}
	states, bad := run("", 3, 2)
	if bad != 0 {
		t.Errorf("%d ways to end with a frame nobody sees", bad)
	}
	t.Logf("%d states", states)
	for _, flaw := range []wakeFlaw{
		flawCheckFirst, flawNoBell, flawNoLook, flawFlagLast, flawNoMark, flawCallerNoFlag,
		flawCallerNoLook, flawCallerNoMark, flawCallerNoWake, flawCallerLateSet, flawWorkNoLook, flawCloserNoWake,
	} {
		if _, bad := run(flaw, 2, 1); bad == 0 {
			t.Errorf("unnoticed: %s", flaw)
		}
	}
}
