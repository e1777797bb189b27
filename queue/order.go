package queue

import (
	"context"
	"slices"
	"sync"
	"time"
)

// order hands out a group's messages: those of one key one after the other. There is one goroutine for each key that has
// messages here.
type order struct {
	s       *Subscription
	permits chan struct{} // one for each handler at work
	chains  sync.WaitGroup

	mu     sync.Mutex
	keys   map[string][]delivery // what waits behind the message that is being handled; present: there is one
	over   map[string]bool       // a message of the key goes back, and so do those behind it
	before uint64                // messages up to this sequence were under way when the subscription began
	absent int                   // of them, those that have not come again; 0: messages are handed out
	early  []delivery            // what has come before all of them had
	late   *time.Timer           // waits no longer for them
}

// newOrder learns what was under way before: nothing is handed out until that has come again, or had the time to. Else what is new would
// overtake it, and take the room that it needs.
func newOrder(ctx context.Context, s *Subscription) (*order, error) {
	info, err := s.cons.Info(ctx)
	if err != nil {
		return nil, explained(err)
	}
	o := &order{s: s, permits: make(chan struct{}, s.set.workers), keys: map[string][]delivery{}, over: map[string]bool{}, before: info.Delivered.Stream, absent: info.NumAckPending}
	return o, nil
}

// patience is how much longer than the server's own is waited for messages that were under way: it has given them up then, all together, and
// sends them before any other.
const patience = time.Second

// await lets the server give up what was under way, if there was anything.
func (o *order) await() {
	if o.absent == 0 {
		return
	}
	t := time.NewTimer(o.s.set.ackWait + patience)
	defer t.Stop()
	select {
	case <-t.C:
	case <-o.s.drain:
	case <-o.s.ctx.Done():
	}
	o.late = time.AfterFunc(o.s.set.ackWait, o.begin)
}

// add takes in a message that was fetched.
func (o *order) add(d delivery) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.absent == 0 {
		o.addLocked(d)
		return
	}
	o.early = append(o.early, d)
	if d.seq <= o.before {
		if o.absent--; o.absent == 0 {
			o.beginLocked()
		}
	}
}

// begin hands out what has come, whether all was there or not.
func (o *order) begin() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.absent = 0
	o.beginLocked()
}

func (o *order) beginLocked() {
	o.late.Stop()
	slices.SortFunc(o.early, func(a, b delivery) int { return int(int64(a.seq - b.seq)) })
	for _, d := range o.early {
		o.addLocked(d)
	}
	o.early = nil
}

func (o *order) addLocked(d delivery) {
	key := d.Header.Get(headerKey)
	waiting, busy := o.keys[key]
	if busy {
		o.keys[key] = append(waiting, d)
		return
	}
	o.keys[key] = nil
	o.chains.Go(func() { o.chain(key, d) })
}

// chain handles the messages of a key until none is here.
func (o *order) chain(key string, d delivery) {
	for ok := true; ok; d, ok = o.next(key) {
		out := outcome{what: cut}
		if !o.isOver(key) {
			out = o.one(d)
		}
		if out.what == cut {
			o.mu.Lock()
			o.over[key] = true
			o.mu.Unlock()
		}
		o.s.settle(d, out)
	}
}

func (o *order) isOver(key string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.over[key]
}

// next takes what is next of a key, or ends the key's chain.
func (o *order) next(key string) (d delivery, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	waiting := o.keys[key]
	if len(waiting) == 0 {
		delete(o.keys, key)
		return delivery{}, false
	}
	o.keys[key] = waiting[1:]
	return waiting[0], true
}

// one tries a message until it is handled or dead, or the subscription ends.
func (o *order) one(d delivery) outcome {
	for o.s.learn(&d); ; {
		select {
		case o.permits <- struct{}{}:
		case <-o.s.ctx.Done():
			return outcome{what: cut}
		}
		out := o.s.attempt(&d)
		<-o.permits
		switch out.what {
		case died:
			if o.s.toDead(d, out) != nil {
				return o.s.bury(d, out)
			}
			out.what = buried
			return out
		case handled, cut:
			return out
		}
		o.s.mu.Lock()
		o.s.tookLocked(out.took)
		o.s.mu.Unlock()
		if !o.s.pause(out.wait) {
			return outcome{what: cut}
		}
	}
}

// wait returns when all that has come is settled. Nothing is added any more.
func (o *order) wait() {
	o.mu.Lock()
	if o.absent > 0 { // they cannot be handed out in order
		o.late.Stop()
		for _, d := range o.early {
			o.s.settle(d, outcome{what: cut})
		}
		o.early = nil
	}
	o.mu.Unlock()
	o.chains.Wait()
}
