package shm

import "sync/atomic"

// DefaultLimit is how much shared memory the connections of a process may fill
// together, in bytes.
const DefaultLimit = 256 << 20

// budget counts the shared memory that this process has filled: the rings of its
// connections and the slots that it sends through.
type budget struct{ limit, used atomic.Int64 }

var memory = func() *budget {
	b := new(budget)
	b.limit.Store(DefaultLimit)
	return b
}()

// SetLimit bounds the shared memory that the connections of this process fill
// together, in bytes. Where it is used up, new connections go over their sockets and
// large messages through the rings there are.
func SetLimit(bytes int64) { memory.limit.Store(bytes) }

// Used returns how much of the limit is used, in bytes.
func Used() int64 { return memory.used.Load() }

func (b *budget) take(n int) bool {
	if b.used.Add(int64(n)) > b.limit.Load() {
		b.used.Add(-int64(n))
		return false
	}
	return true
}

func (b *budget) add(n int) { b.used.Add(int64(n)) }

func (b *budget) give(n int) { b.used.Add(-int64(n)) }
