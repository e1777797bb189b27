// Package inforce knows the policies that are alive in this process, so that what tells a hub of them need not know how they are made.
package inforce

import (
	"runtime"
	"sync"
	"time"
	"weak"
)

// Policy is one as it is now.
type Policy struct {
	Source   string    // the file's path, the feed's name, or what its text was read from; empty: it was made in code
	From     string    // "file", "feed", "last good copy", "api"
	Version  string    // as it calls itself
	Hash     [16]byte  // of its text: the same wherever the same holds
	Text     string    // as JSON
	Since    time.Time // it is in force
	Changed  bool      // it took another version's place then
	Refused  string    // why what is there now is not in force; empty: it is
	Controls []Control // some of what it holds now
}

// Control is what a policy holds now for a method.
type Control struct {
	Kind, Method, Target           string // of all methods, on the server's side, where these are empty
	State                          string // of a breaker
	Limit, Most, InFlight, Pending int
}

var alive struct {
	mu   sync.Mutex
	last uint64
	tell map[uint64]func() (Policy, bool)
}

// Add has List ask tell about p until p is collected, which this does not hinder.
func Add[T any](p *T, tell func(*T) Policy) {
	at := weak.Make(p)
	alive.mu.Lock()
	defer alive.mu.Unlock()
	if alive.tell == nil {
		alive.tell = map[uint64]func() (Policy, bool){}
	}
	alive.last++
	alive.tell[alive.last] = func() (now Policy, is bool) {
		if p := at.Value(); p != nil {
			return tell(p), true
		}
		return now, false
	}
	runtime.AddCleanup(p, remove, alive.last)
}

func remove(key uint64) {
	alive.mu.Lock()
	defer alive.mu.Unlock()
	delete(alive.tell, key)
}

// List asks all that are alive, in no order.
func List() (all []Policy) {
	alive.mu.Lock()
	asked := make([]func() (Policy, bool), 0, len(alive.tell))
	for _, tell := range alive.tell {
		asked = append(asked, tell)
	}
	alive.mu.Unlock() // they take locks of their own
	for _, tell := range asked {
		if p, is := tell(); is {
			all = append(all, p)
		}
	}
	return all
}
