package shm

import "sync/atomic"

// word is one 64-bit word in shared memory: the only way this package touches
// memory that both sides write. All its operations are sequentially consistent.
//
// store is an exchange because the race detector's own atomic store only
// releases: a later load of another word could overtake it, which is just what
// the wake-up protocol excludes. On amd64 Go's store is the same instruction.
type word struct{ p *uint64 }

func (w word) load() uint64 { return atomic.LoadUint64(w.p) }

func (w word) store(v uint64) { w.swap(v) }

func (w word) swap(v uint64) uint64 {
	deathPoint()
	old := atomic.SwapUint64(w.p, v)
	deathPoint()
	return old
}
