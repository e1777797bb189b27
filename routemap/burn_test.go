package routemap

import (
	"math"
	"testing"
	"time"
)

// timed is a map of n calls of so many ms each, of which the first ones fail.
func timed(n, failed int, ms int64) *Map {
	m := New()
	for i := range n {
		s := Span{Trace: "t", ID: 1, Kind: Client, Service: "front", Name: "Get", Peer: "bank", PeerKind: External, Start: 1, End: 1 + ms*1e6, Request: -1, Response: -1}
		if i < failed {
			s.Class = ClassError
		}
		m.Add(NewTrace([]Span{s}))
	}
	return m
}

// TestBurns: the budget's burn is what its definition says, a call that fails and is slow is bad once, and both times have to burn.
func TestBurns(t *testing.T) {
	merged := func(all ...*Map) *Report {
		m := New()
		for _, one := range all {
			m.Merge(one)
		}
		return m.Report()
	}
	slow := Objective{Target: 0.99, Slower: 100 * time.Millisecond}
	calm := merged(timed(1000, 1, 10))
	mixed := merged(timed(900, 0, 10), timed(60, 30, 200), timed(40, 20, 10)) // bad: 60 slow ones, of which 30 fail, and 20 that fail fast
	for name, c := range map[string]struct {
		o       Objective
		reports map[time.Duration]*Report
		alert   string
		back    time.Duration
		bad     uint64
		burn    float64
	}{
		"calm":                      {slow, map[time.Duration]*Report{time.Hour: calm, 5 * time.Minute: calm}, "", time.Hour, 1, 0.1},
		"failed and slow":           {slow, map[time.Duration]*Report{time.Hour: mixed, 5 * time.Minute: mixed}, "", time.Hour, 80, 8},
		"failures alone":            {Objective{Target: 0.99}, map[time.Duration]*Report{time.Hour: mixed}, "", time.Hour, 50, 5},
		"6 h and 30 min":            {slow, map[time.Duration]*Report{6 * time.Hour: mixed, 30 * time.Minute: mixed}, Page, 6 * time.Hour, 80, 8},
		"6 h, and it is over":       {slow, map[time.Duration]*Report{6 * time.Hour: mixed, 30 * time.Minute: calm}, "", 30 * time.Minute, 1, 0.1},
		"3 d and 6 h":               {Objective{Target: 0.96}, map[time.Duration]*Report{72 * time.Hour: mixed, 6 * time.Hour: mixed}, Ticket, 72 * time.Hour, 50, 1.25},
		"1 h and 5 min":             {Objective{Target: 0.999}, map[time.Duration]*Report{time.Hour: mixed, 5 * time.Minute: mixed}, Page, 5 * time.Minute, 50, 50},
		"few calls, all of it bad":  {slow, map[time.Duration]*Report{time.Hour: merged(timed(9, 9, 10)), 5 * time.Minute: merged(timed(9, 9, 10))}, "", time.Hour, 9, 100},
		"no more than the target's": {Objective{Target: 0.99, Slower: 200 * time.Millisecond}, map[time.Duration]*Report{time.Hour: mixed}, "", time.Hour, 50, 5},
	} {
		all := Burns(c.o, c.reports)
		if len(all) != 1 || all[0].Alert != c.alert || all[0].To.Name != "bank" {
			t.Fatalf("%s: %+v", name, all)
		}
		for _, at := range all[0].Times {
			if at.Back == c.back && (at.Bad != c.bad || math.Abs(at.Burn-c.burn) > 1e-9) {
				t.Errorf("%s: %+v, want %d bad and %g", name, at, c.bad, c.burn)
			}
			if c.reports[at.Back] == nil && at.Calls != 0 {
				t.Errorf("%s: %+v", name, at)
			}
		}
	}
	if all := Burns(slow, nil); all == nil || len(all) != 0 {
		t.Errorf("of nothing: %v", all)
	}
	for _, o := range []Objective{{}, {Target: 1}, {Target: -1}, {Target: math.NaN()}, {Target: 0.9, Slower: -1}} {
		if o.Check() == nil {
			t.Errorf("%+v is taken", o)
		}
	}
}
