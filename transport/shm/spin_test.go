//go:build linux

package shm

import (
	"sync"
	"testing"
	"time"
)

func TestTally(t *testing.T) {
	var all tally
	var who [5]uint64
	for _, step := range []struct {
		who  int
		at   time.Duration
		want int
	}{
		{0, 10 * tick, 1},
		{0, 10*tick + 1, 1}, // counted already
		{1, 10*tick + 2, 2},
		{0, 11 * tick, 2}, // as many as in the tick before
		{2, 11 * tick, 2},
		{3, 11 * tick, 3},
		{4, 11*tick - 1, 4}, // looked at the clock before the tick ended, came late
		{0, 12 * tick, 4},
		{0, 13 * tick, 1},
		{1, 20 * tick, 1},
		{1, tick << 32, 1}, // 50 days later
		{2, tick<<32 + 1, 2},
		{1, tick<<32 + tick, 2},
		{1, tick<<32 + 2*tick, 1},
	} {
		if got := all.come(&who[step.who], step.at); got != step.want {
			t.Errorf("%d at %v: %d come, want %d", step.who, step.at, got, step.want)
		}
	}
}

// Whatever the interleaving, everybody who came within a tick is counted once.
func TestTallyAtOnce(t *testing.T) {
	var all tally
	var running sync.WaitGroup
	for range 8 {
		running.Go(func() {
			var last uint64
			for n := range 1000 {
				all.come(&last, 5*tick+time.Duration(n))
			}
		})
	}
	running.Wait()
	var last uint64
	if got := all.come(&last, 5*tick); got != 9 {
		t.Errorf("%d came, want 9", got)
	}
}

// Of many lively connections none spins, however much it has paid before.
func TestCrowdDoesNotSpin(t *testing.T) {
	a, b := newPair(t, Config{}, Config{})
	defer a.Close()
	defer b.Close()
	a.spin.limit, a.spin.most = time.Hour, 3
	if !a.rlock.tryLock() {
		t.Fatal("somebody receives")
	}
	defer a.rlock.unlock()
	var others [3]uint64
	stop := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				for i := range others {
					lively.come(&others[i], now())
				}
			}
		}
	})
	defer running.Wait()
	defer close(stop)
	if a.await(nil, nil, false) { // or spins for an hour
		t.Error("a frame came")
	}
	if a.spin.score != maxScore {
		t.Errorf("the score is %d of %d: nothing was lost", a.spin.score, maxScore)
	}
}
