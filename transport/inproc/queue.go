package inproc

import (
	"sync"

	"github.com/stile-ipc/stile/transport/wire"
)

// A writer waits while a direction holds highWater bytes or more, and is let go
// when it has sunk to lowWater. So a direction holds less than highWater plus one
// frame.
const (
	highWater = 256 << 10
	lowWater  = highWater / 2
)

type frame struct {
	h wire.Header
	b *wire.Buf
}

// queue is one direction: many writers, one reader.
type queue struct {
	ready chan struct{} // capacity 1: the reader has something to look at

	mu     sync.Mutex
	ring   []frame // frames are ring[head], ring[head+1], … n of them
	head   int
	n      int
	bytes  int
	closed bool          // the writing end closed: nothing more comes
	dead   bool          // the reading end is gone: nothing more is taken
	space  chan struct{} // not nil while writers wait; closed to wake them all
}

func newQueue() *queue { return &queue{ready: make(chan struct{}, 1)} }

// push appends f. It reports ok when f was taken, or a channel to wait on before
// the next try, or neither when the direction has ended.
func (q *queue) push(f frame) (ok bool, wait <-chan struct{}) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || q.dead {
		return false, nil
	}
	if q.bytes >= highWater {
		if q.space == nil {
			q.space = make(chan struct{})
		}
		return false, q.space
	}
	if q.n == len(q.ring) {
		q.growLocked()
	}
	q.ring[(q.head+q.n)%len(q.ring)] = f
	q.n++
	q.bytes += wire.HeaderSize + len(f.b.B)
	if q.n == 1 {
		q.signal()
	}
	return true, nil
}

func (q *queue) growLocked() {
	ring := make([]frame, max(16, 2*len(q.ring)))
	k := copy(ring, q.ring[q.head:])
	copy(ring[k:], q.ring[:q.head])
	q.ring, q.head = ring, 0
}

// pop waits for the next frame. It reports false when none will come.
func (q *queue) pop() (frame, bool) {
	for {
		q.mu.Lock()
		if q.n > 0 {
			f := q.ring[q.head]
			q.ring[q.head] = frame{}
			q.head = (q.head + 1) % len(q.ring)
			q.n--
			q.bytes -= wire.HeaderSize + len(f.b.B)
			if q.bytes <= lowWater {
				q.wakeWritersLocked()
			}
			q.mu.Unlock()
			return f, true
		}
		ended := q.closed || q.dead
		q.mu.Unlock()
		if ended {
			return frame{}, false
		}
		<-q.ready
	}
}

// shut is the writing end's end: what is queued stays for the reader, unless
// discard is set.
func (q *queue) shut(discard bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	if discard {
		q.dropLocked()
	}
	q.wakeWritersLocked()
	q.signal()
}

// kill is the reading end's end.
func (q *queue) kill() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.dead = true
	q.dropLocked()
	q.wakeWritersLocked()
	q.signal()
}

func (q *queue) dropLocked() {
	for ; q.n > 0; q.n-- {
		q.ring[q.head].b.Release()
		q.head = (q.head + 1) % len(q.ring)
	}
	q.ring, q.head, q.bytes = nil, 0, 0
}

func (q *queue) wakeWritersLocked() {
	if q.space != nil {
		close(q.space)
		q.space = nil
	}
}

func (q *queue) signal() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}
