package shm

import "sync/atomic"

const (
	lockFree int32 = iota
	lockHeld
	lockWanted // held, and someone else is to be told when it is free
)

// writeLock is a mutex whose waiters can give up. Its zero value is not usable.
type writeLock struct {
	state atomic.Int32
	freed chan struct{} // one token: a waiter may try again
}

func newWriteLock() writeLock { return writeLock{freed: make(chan struct{}, 1)} }

func (l *writeLock) tryLock() bool { return l.state.CompareAndSwap(lockFree, lockHeld) }

// lock waits for the lock until one of the channels closes, and tells whether it
// got it.
func (l *writeLock) lock(cancel, dead <-chan struct{}) bool {
	for range 8 {
		if l.tryLock() {
			return true
		}
		pause(8)
	}
	// Whoever has waited takes the lock as wanted, because it cannot know whether
	// others wait too: at worst one token too many is left.
	for l.state.Swap(lockWanted) != lockFree {
		select {
		case <-l.freed:
		case <-cancel:
			return false
		case <-dead:
			return false
		}
	}
	return true
}

func (l *writeLock) unlock() {
	if l.state.Swap(lockFree) == lockWanted {
		select {
		case l.freed <- struct{}{}:
		default:
		}
	}
}

// receiveLock says who receives. Nobody waits for it: the connection's goroutine
// leaves a mark instead, and the holder wakes it when it leaves.
type receiveLock struct{ state atomic.Int32 }

func (l *receiveLock) tryLock() bool { return l.state.CompareAndSwap(lockFree, lockHeld) }

// lockOrMark takes the lock, or marks it as wanted.
func (l *receiveLock) lockOrMark() bool {
	for {
		if l.tryLock() {
			return true
		}
		if s := l.state.Load(); s == lockWanted || (s == lockHeld && l.state.CompareAndSwap(lockHeld, lockWanted)) {
			return false
		}
	}
}

// unlock tells whether the lock was marked.
func (l *receiveLock) unlock() (wanted bool) { return l.state.Swap(lockFree) == lockWanted }
