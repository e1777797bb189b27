package policy

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/stile-ipc/stile/policy/control"
)

// Feed is where the versions of a policy come from that is not in a file, such as a key of a database.
// A Feed serves one Policy, which asks for one version at a time.
type Feed interface {
	// Name says which feed this is, in events, in Status and in faults, such as nats://kv/policies/shop.
	// The last good copy is kept under it: no two policies of a host share a name.
	Name() string

	// Next waits for another version than it returned last, at first for the one that there is, and
	// returns its text; versions between may be left out. No text is a version that was deleted.
	//
	// An error says that there is none to be had now. Next is then asked again, after a wait that grows from
	// 0.1 s to 5 s, and returns the version that there is, the same as before or not. A Feed
	// that cannot wait returns the same version at once: it is asked again as after an error.
	//
	// ctx is of this call alone: of the first it is Follow's, of the others it ends with [Policy.Close], which
	// waits for Next to return.
	Next(ctx context.Context) ([]byte, error)
}

// feedBackoff is how long a feed that has nothing new is left alone.
var feedBackoff = control.Backoff{Initial: 100 * time.Millisecond, Max: 5 * time.Second, Multiplier: 2}

// maxHasty is how many versions may come one upon the other.
const maxHasty = 100

// maxTold is how many different errors of one outage are told: some have a port or a time in them.
const maxTold = 10

// Follow puts what feed has in force, which it awaits until ctx ends, and from then on each further version, until
// [Policy.Close]. A version with faults, or a deleted one, changes nothing: it is told, with all its
// faults, and shows in [Policy.Status]; so does each error of the feed, until the feed has recovered.
//
// When the first version has faults, or there is none, Follow puts the copy of the last version in
// force that was good, and tells that. Without a copy it returns the faults.
func Follow(ctx context.Context, feed Feed, opts ...Option) (*Policy, error) {
	p := newPolicy(nil, opts)
	p.following.name, p.following.from = feed.Name(), SourceFeed
	w := &feedWatch{p: p, feed: feed}
	fault := w.heed(feed.Next(ctx))
	return p.follow(fault, w.run)
}

// feedWatch follows a feed.
type feedWatch struct {
	p      *Policy
	feed   Feed
	last   *string  // version; nil: there was none yet
	fault  error    // why last was not put in force
	outage []string // errors told since the feed last had a version
	vain   int      // calls of Next in a row that brought nothing new
	hasty  int      // that have returned at once
}

// heed puts a version in force, or returns why not: once for each version, and for each error of an outage.
func (w *feedWatch) heed(data []byte, err error) error {
	name := w.p.following.name
	if err != nil {
		w.vain++
		err = fmt.Errorf("policy: %s: %w", name, err)
		if len(w.outage) == maxTold || slices.Contains(w.outage, err.Error()) {
			w.p.following.fail(err)
			return nil
		}
		w.outage = append(w.outage, err.Error())
		return err
	}
	w.outage = nil
	version := string(data[:min(len(data), maxFileSize+1)])
	if w.last != nil && *w.last == version {
		w.vain++
		w.p.following.fail(w.fault)
		return nil
	}
	w.last, w.vain = &version, 0
	if version == "" {
		w.fault = fmt.Errorf("policy: %s is deleted or empty", name)
	} else if w.fault = w.p.try(version); w.fault == nil {
		w.p.keep(version)
	}
	return w.fault
}

func (w *feedWatch) run(ctx context.Context) {
	for {
		if wait := w.wait(); wait > 0 && !sleep(ctx, wait) {
			return
		}
		asked := time.Now()
		data, err := w.feed.Next(ctx)
		if ctx.Err() != nil {
			return
		}
		switch took := time.Since(asked); {
		case took > feedBackoff.Max: // it was well for a while
			w.vain, w.hasty = 0, 0
		case took >= feedBackoff.Initial:
			w.hasty = 0
		default:
			w.hasty++
		}
		if fault := w.heed(data, err); fault != nil {
			w.p.refuse(fault)
		}
	}
}

// wait is how long the feed is left alone now: also one that has a new version each time it is asked.
func (w *feedWatch) wait() time.Duration {
	switch {
	case w.vain > 0:
		return feedBackoff.Wait(w.vain, rand.Float64())
	case w.hasty > maxHasty:
		return feedBackoff.Initial
	}
	return 0
}

// sleep says whether it lasted until its end, before ctx's.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
