//go:build linux

package shm

import "testing"

// spaceState is a producer with a ring of one frame, its peer that reads, and the
// producer's own goroutine, which hears the bell.
type spaceState struct {
	head, tail       int8
	blocked, wanting bool
	token, edge      bool
	prod, cons, gor  int8
	busy             int8 // times the goroutine still serves frames before it looks
}

type spaceFlaw string

const (
	flawWantLast    spaceFlaw = "producer wants after its last look"
	flawNoRecheck   spaceFlaw = "producer does not look after it wanted"
	flawFreeLast    spaceFlaw = "consumer looks for a wish before it frees"
	flawNoTell      spaceFlaw = "goroutine sleeps without a look for space"
	flawBlockedLast spaceFlaw = "producer says that it is blocked after it wanted"
)

type spaceModel struct {
	frames int8
	flaw   spaceFlaw
}

func (m spaceModel) next(s spaceState) (all []spaceState) {
	return m.goroutine(s, m.consumer(s, m.producer(s, all)))
}

func (m spaceModel) producer(n spaceState, all []spaceState) []spaceState {
	const (
		try int8 = iota
		block
		want
		look
		wait
		unblock
	)
	full := n.head != n.tail
	switch n.prod {
	case try:
		if n.head == m.frames {
			return all
		}
		n.prod = block
		if m.flaw == flawBlockedLast {
			n.prod = want
		}
		if !full {
			n.head++
			n.prod = try
		}
	case block:
		n.blocked, n.prod = true, want
		switch m.flaw {
		case flawWantLast:
			n.prod = look
		case flawBlockedLast:
			n.prod = wait
		}
	case want:
		n.wanting, n.prod = true, look
		switch m.flaw {
		case flawWantLast, flawNoRecheck:
			n.prod = wait
		}
	case look:
		switch {
		case !full:
			n.wanting, n.prod = false, unblock
		case m.flaw == flawWantLast:
			n.prod = want
		case m.flaw == flawBlockedLast:
			n.prod = block
		default:
			n.prod = wait
		}
	case wait:
		if !n.token {
			return all
		}
		n.token, n.prod = false, unblock
	case unblock:
		n.blocked, n.prod = false, try
	}
	return append(all, n)
}

func (m spaceModel) consumer(n spaceState, all []spaceState) []spaceState {
	const (
		free int8 = iota
		load
		swap
		bell
		late
	)
	switch n.cons {
	case free:
		if n.head == n.tail {
			return all
		}
		n.cons = load
		if m.flaw != flawFreeLast {
			n.tail++
		}
	case load:
		n.cons = free
		if n.wanting {
			n.cons = swap
		} else if m.flaw == flawFreeLast {
			n.cons = late
		}
	case swap:
		n.cons = free
		if n.wanting {
			n.cons = bell
		}
		n.wanting = false
		if m.flaw == flawFreeLast && n.cons == free {
			n.cons = late
		}
	case bell:
		n.edge, n.cons = true, free
		if m.flaw == flawFreeLast {
			n.cons = late
		}
	case late:
		n.tail++
		n.cons = free
	}
	return append(all, n)
}

func (m spaceModel) goroutine(n spaceState, all []spaceState) []spaceState {
	const (
		busy int8 = iota // serving frames: the poller keeps no news
		reset
		look
		tell
		asleep
	)
	switch n.gor {
	case busy:
		n.gor = reset
	case reset:
		n.edge, n.gor = false, look
		if m.flaw == flawNoTell {
			n.gor = asleep
		}
	case look:
		n.gor = asleep
		if n.blocked && !n.wanting {
			n.gor = tell
		}
	case tell:
		n.token, n.gor = true, asleep
	case asleep:
		if !n.edge {
			return all
		}
		n.edge, n.gor = false, look
		if n.busy > 0 { // the news was a frame as well
			also := n
			also.busy--
			also.gor = busy
			all = append(all, also)
		}
	}
	return append(all, n)
}

func (m spaceModel) good(s spaceState) bool { return s.head == m.frames && s.tail == s.head }

func TestModelSpace(t *testing.T) {
	run := func(flaw spaceFlaw) (states, bad int) {
		m := spaceModel{frames: 4, flaw: flaw}
		return explore(spaceState{busy: 2}, m.next, m.good)
	}
	states, bad := run("")
	if bad != 0 {
		t.Errorf("%d ways to end with a writer nobody wakes", bad)
	}
	t.Logf("%d states", states)
	for _, flaw := range []spaceFlaw{flawWantLast, flawNoRecheck, flawFreeLast, flawNoTell, flawBlockedLast} {
		if _, bad := run(flaw); bad == 0 {
			t.Errorf("unnoticed: %s", flaw)
		}
	}
}
