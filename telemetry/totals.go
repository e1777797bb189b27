package telemetry

import (
	"strings"
	"time"
)

// maxTotals is how many routes are told apart; what comes later is counted as [OtherMethod].
const maxTotals = 5_000

// Totals sum up what a process counts, from when they were begun, beside whoever takes it. Their methods are safe for concurrent use.
type Totals struct {
	recorder *Recorder
	began    time.Time
	of       map[TotalOf]*Stats // guarded by the recorder's taking
}

// TotalOf is what totals tell apart, in valid UTF-8, whatever a peer calls it.
type TotalOf struct {
	Side      Side
	Transport string
	Address   string // that was called; empty at servers
	Topic     string // of messages
	Method    string // "package.Service/Method"
}

// Totals begins to sum up what links that are made from now on carry, those that are counted already, too; nil: r is nil.
func (r *Recorder) Totals() *Totals {
	if r == nil {
		return nil
	}
	t := &Totals{recorder: r, began: time.Now(), of: map[TotalOf]*Stats{}}
	counting.Store(true)
	r.taking.Lock()
	defer r.taking.Unlock()
	r.settle() // what was before
	if r.totals == nil {
		r.totals = map[*Totals]struct{}{}
	}
	r.totals[t] = struct{}{}
	r.enabled.Store(true)
	return t
}

// Close ends that. If nobody else wants to know, nothing more is counted.
func (t *Totals) Close() {
	if t == nil {
		return
	}
	r := t.recorder
	r.taking.Lock()
	defer r.taking.Unlock()
	if _, open := r.totals[t]; !open {
		return
	}
	r.settle()
	delete(r.totals, t)
	r.rest()
}

// Began is when the totals did.
func (t *Totals) Began() time.Time { return t.began }

// Each calls f with all that was counted, in no order, until now. The stats are not f's to keep, and have no [Stats.Open]: nobody waits for f but who takes.
func (t *Totals) Each(f func(TotalOf, *Stats)) {
	if t == nil {
		return
	}
	r := t.recorder
	r.taking.Lock()
	defer r.taking.Unlock()
	if _, open := r.totals[t]; open {
		r.settle()
	}
	for of, s := range t.of {
		f(of, s)
	}
}

// add counts what was taken from routes.
func (t *Totals) add(all []Taken) {
	for _, one := range all {
		of := TotalOf{Side: one.Side, Transport: valid(one.Transport), Topic: valid(one.Peer.Topic), Method: valid(strings.TrimPrefix(one.Method, "/"))}
		if of.Side == Client {
			of.Address = valid(one.Peer.Address)
		}
		if t.of[of] == nil && len(t.of) >= maxTotals {
			of = TotalOf{Side: one.Side, Method: OtherMethod}
			if one.Peer.Topic != "" {
				of.Topic = OtherMethod
			}
		}
		if t.of[of] == nil {
			t.of[of] = &Stats{}
		}
		t.of[of].Merge(one.Stats)
	}
}

func valid(s string) string { return strings.ToValidUTF8(s, "?") }

// settle has totals know what was counted until now, and holds it for who takes, if somebody does. The caller holds taking.
func (r *Recorder) settle() {
	all := r.drain(false)
	if !r.takes {
		return
	}
	if r.untaken == nil {
		r.untaken = map[linkRoute]*Stats{}
	}
	for _, one := range all {
		of := linkRoute{one.Link, one.RouteName}
		if was := r.untaken[of]; was != nil {
			was.Merge(one.Stats)
		} else {
			r.untaken[of] = one.Stats
		}
	}
}

// tidy forgets links that are closed while nobody takes.
func (r *Recorder) tidy() {
	r.taking.Lock()
	defer r.taking.Unlock()
	if !r.takes {
		r.drain(false)
	}
}
