package near

import (
	"context"
	"sync"
)

// Flights lets identical calls under way share one answer. The zero value is ready;
// it is safe for concurrent use and must not be copied.
//
// It differs from golang.org/x/sync/singleflight in whose context counts. There the
// call runs with that of whoever came first: when it is cancelled all fail, and a
// follower cannot leave before the call ends. Here a follower waits as long as its
// own context says, and when the leader's context ends a follower leads the next
// flight instead of failing.
//
// A call that cannot go alone does
//
//	fl, lead := f.Join(key)
//	if !lead {
//		value, err, lead = fl.Wait(ctx)
//	}
//	if lead {
//		value, err = call(ctx)
//		fl.End(value, err, ctx.Err() != nil)
//	}
//
// with End deferred if the call may panic.
type Flights struct {
	mu sync.Mutex
	by map[string]*Flight
}

// Flight is one call under way, or one after the other while leaders give up.
//
// While it is in Flights it has either a leader or followers, one of which will take
// the token out of lead. Whoever takes the last of them away removes it.
type Flight struct {
	of  *Flights
	key string

	// Made when the first follower joins:
	done chan struct{} // closed when value and err are set
	lead chan struct{} // capacity 1; holds a token when the leader has given up

	led       bool // has a leader, who has not called End
	followers int  // have joined, and neither left nor become leader

	value any
	err   error
}

// Join makes the caller the leader of key, who must call End exactly once. Or, leader
// being false, it returns the flight under way, for which the caller must call Wait
// exactly once. It copies key.
func (f *Flights) Join(key []byte) (fl *Flight, leader bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fl := f.by[string(key)]; fl != nil {
		if fl.done == nil {
			fl.done, fl.lead = make(chan struct{}), make(chan struct{}, 1)
		}
		fl.followers++
		return fl, false
	}
	if f.by == nil {
		f.by = make(map[string]*Flight)
	}
	fl = &Flight{of: f, key: string(key), led: true}
	f.by[fl.key] = fl
	return fl, true
}

// End gives the followers the leader's answer; they share value and must not change
// it. again tells that the leader's end says nothing to others, such as that its
// context has ended: then exactly one follower becomes leader of the next flight for
// key, which the others wait for. End panics if the flight has no leader.
func (fl *Flight) End(value any, err error, again bool) {
	f := fl.of
	f.mu.Lock()
	defer f.mu.Unlock()
	if !fl.led {
		panic("near: End by one who does not lead")
	}
	fl.led = false
	if again && fl.followers > 0 {
		fl.lead <- struct{}{}
		return
	}
	delete(f.by, fl.key)
	fl.value, fl.err = value, err
	if fl.done != nil {
		close(fl.done)
	}
}

// Wait waits for the leader's answer or the end of ctx, whose error it then returns
// at once. lead tells that the caller is now the leader and must call End; no one
// whose context has ended becomes it.
func (fl *Flight) Wait(ctx context.Context) (value any, err error, lead bool) {
	select {
	case <-fl.done:
		return fl.value, fl.err, false
	case <-fl.lead:
		if ctx.Err() == nil {
			fl.takeOver()
			return nil, nil, true
		}
		fl.lead <- struct{}{}
	case <-ctx.Done():
	}
	fl.leave()
	return nil, ctx.Err(), false
}

// takeOver makes the follower that has taken the token the leader.
func (fl *Flight) takeOver() {
	fl.of.mu.Lock()
	defer fl.of.mu.Unlock()
	fl.followers--
	fl.led = true
}

// leave takes a follower away. If nobody is left to take the token, the flight ends.
func (fl *Flight) leave() {
	f := fl.of
	f.mu.Lock()
	defer f.mu.Unlock()
	fl.followers--
	if fl.followers > 0 {
		return
	}
	select {
	case <-fl.lead:
		delete(f.by, fl.key)
	default:
	}
}
