package control

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// limitStep is one call of a Limit's method and what is seen after it.
type limitStep struct {
	do       string // admit, leave, done or forget
	who      int    // the waiter of admit and leave
	rank     int
	deadline time.Duration
	now      time.Duration
	took     time.Duration
	want     Verdict         // of admit
	left     bool            // what leave returns
	sent     map[int]Verdict // to the waiters, by who
}

const limitTick = time.Millisecond

// limitFull takes the last place.
var limitFull = limitStep{do: "admit", want: Admitted}

// limitServed is so many calls of 10 ms, one after the other.
func limitServed(n int) (steps []limitStep) {
	for range n {
		steps = append(steps, limitFull, limitStep{do: "done", took: 10 * limitTick})
	}
	return steps
}

var limitCases = []struct {
	name   string
	config LimitConfig
	steps  []limitStep
}{
	{"refused without a queue", LimitConfig{Max: 1}, []limitStep{
		limitFull, {do: "admit", who: 1, want: Refused}, {do: "done"}, {do: "admit", who: 1, want: Admitted},
	}},
	{"out of range", LimitConfig{Max: -1, Min: -1, Pending: -1, Adaptive: true}, []limitStep{
		limitFull, {do: "admit", who: 1, want: Refused}, {do: "forget"}, limitFull,
	}},
	{"refused by a full queue", LimitConfig{Max: 1, Pending: 1}, []limitStep{
		limitFull, {do: "admit", who: 1, want: Queued}, {do: "admit", who: 2, want: Refused},
		{do: "forget", sent: map[int]Verdict{1: Admitted}}, {do: "admit", who: 2, want: Queued},
	}},
	{"arrival", LimitConfig{Max: 1, Pending: 3}, []limitStep{
		limitFull, {do: "admit", who: 1, want: Queued}, {do: "admit", who: 2, want: Queued}, {do: "admit", who: 3, want: Queued},
		{do: "done", sent: map[int]Verdict{1: Admitted}}, {do: "done", sent: map[int]Verdict{2: Admitted}},
		{do: "done", sent: map[int]Verdict{3: Admitted}}, {do: "done"},
	}},
	{"deadline before arrival, none last", LimitConfig{Max: 1, Pending: 3}, []limitStep{
		limitFull, {do: "admit", who: 1, want: Queued}, {do: "admit", who: 2, deadline: 20, want: Queued},
		{do: "admit", who: 3, deadline: 10, want: Queued},
		{do: "done", sent: map[int]Verdict{3: Admitted}}, {do: "done", sent: map[int]Verdict{2: Admitted}},
		{do: "done", sent: map[int]Verdict{1: Admitted}},
	}},
	{"rank before deadline", LimitConfig{Max: 1, Pending: 2}, []limitStep{
		limitFull, {do: "admit", who: 1, deadline: 10, want: Queued}, {do: "admit", who: 2, rank: 1, want: Queued},
		{do: "done", sent: map[int]Verdict{2: Admitted}}, {do: "done", sent: map[int]Verdict{1: Admitted}},
	}},
	{"the worst is evicted", LimitConfig{Max: 1, Pending: 3}, []limitStep{
		limitFull, {do: "admit", who: 1, rank: 1, want: Queued}, {do: "admit", who: 2, deadline: 10, want: Queued},
		{do: "admit", who: 3, deadline: 20, want: Queued}, {do: "admit", who: 4, want: Refused},
		{do: "admit", who: 4, rank: 1, want: Queued, sent: map[int]Verdict{3: Evicted}},
		{do: "admit", who: 5, rank: 2, want: Queued, sent: map[int]Verdict{2: Evicted}},
		{do: "admit", who: 6, rank: 1, want: Refused}, {do: "leave", who: 3},
		{do: "admit", who: 6, rank: 2, want: Queued, sent: map[int]Verdict{4: Evicted}},
	}},
	{"leave", LimitConfig{Max: 1, Pending: 2}, []limitStep{
		{do: "leave", who: 1}, limitFull, {do: "admit", who: 1, want: Queued}, {do: "admit", who: 2, want: Queued},
		{do: "leave", who: 1, left: true}, {do: "leave", who: 1},
		{do: "done", sent: map[int]Verdict{2: Admitted}}, {do: "leave", who: 2}, {do: "done"},
	}},
	{"a deadline that has passed", LimitConfig{Max: 1}, []limitStep{
		{do: "admit", now: 7, deadline: 7, want: Hopeless}, {do: "admit", now: 7, deadline: 8, want: Admitted},
	}},
	{"waiters that have expired", LimitConfig{Max: 1, Pending: 3}, []limitStep{
		limitFull, {do: "admit", who: 1, deadline: 10, want: Queued}, {do: "admit", who: 2, deadline: 11, want: Queued},
		{do: "admit", who: 3, deadline: 12, want: Queued},
		{do: "done", now: 11, sent: map[int]Verdict{1: Hopeless, 2: Hopeless, 3: Admitted}}, {do: "done"},
	}},
	{"no estimate from few calls", LimitConfig{Max: 2, Pending: 1}, slices.Concat(limitServed(9), []limitStep{
		limitFull, limitFull, {do: "admit", who: 1, deadline: 1, want: Queued},
	})},
	{"estimate", LimitConfig{Max: 2, Pending: 4}, slices.Concat(limitServed(10), []limitStep{ // a place each 5 ms
		limitFull, limitFull, {do: "admit", who: 1, deadline: 5 * limitTick, want: Hopeless}, {do: "admit", who: 1, deadline: 6 * limitTick, want: Queued},
		{do: "admit", who: 2, deadline: 10 * limitTick, want: Hopeless}, {do: "admit", who: 2, deadline: 11 * limitTick, want: Queued},
		{do: "admit", who: 3, rank: 1, deadline: 6 * limitTick, want: Queued},                                // nobody before it
		{do: "admit", who: 4, deadline: 20 * limitTick, want: Hopeless}, {do: "admit", who: 4, want: Queued}, // all before it
		{do: "admit", who: 5, now: 6 * limitTick, deadline: 21*limitTick + 1, want: Refused}, // not hopeless: 1 and 3 have expired
	})},
}

func TestLimitVerdicts(t *testing.T) {
	for _, c := range limitCases {
		t.Run(c.name, func(t *testing.T) {
			l := NewLimit(c.config, 0)
			waiters := make([]*Waiter, 10)
			for i := range waiters {
				waiters[i] = NewWaiter()
			}
			for i, s := range c.steps {
				takeStep(t, i, l, waiters, s)
			}
		})
	}
}

func takeStep(t *testing.T, i int, l *Limit, waiters []*Waiter, s limitStep) {
	t.Helper()
	w := waiters[s.who]
	switch s.do {
	case "admit":
		if v := l.Admit(s.now, s.deadline, s.rank, w); v != s.want {
			t.Errorf("step %d: waiter %d is %v, want %v", i, s.who, v, s.want)
		}
	case "leave":
		if left := l.Leave(w); left != s.left {
			t.Errorf("step %d: Leave of waiter %d: %v", i, s.who, left)
		}
	case "done":
		l.Done(s.now, s.took, false)
	case "forget":
		l.Forget(s.now)
	}
	for k, w := range waiters {
		var got Verdict
		if len(w.C) > 0 {
			got = <-w.C
		}
		if got != s.sent[k] {
			t.Errorf("step %d: waiter %d was sent %v, want %v", i, k, got, s.sent[k])
		}
	}
}

func TestVerdictString(t *testing.T) {
	for v, want := range map[Verdict]string{
		Admitted: "admitted", Queued: "queued", Refused: "refused", Evicted: "evicted", Hopeless: "hopeless", 0: "verdict 0",
	} {
		if v.String() != want {
			t.Errorf("%q, want %q", v, want)
		}
	}
}

func TestLimitMisuse(t *testing.T) {
	l := NewLimit(LimitConfig{Max: 1, Pending: 2}, 0)
	w := NewWaiter()
	l.Admit(0, 0, 0, nil)
	if v := l.Admit(0, 0, 0, nil); v != Refused {
		t.Errorf("%v without a waiter", v)
	}
	panics := func(name string, f func()) {
		t.Helper()
		defer func() {
			if recover() == nil {
				t.Errorf("%s: no panic", name)
			}
			l.Stats() // the lock is free
		}()
		f()
	}
	l.Admit(0, 0, 0, w)
	panics("a waiter that waits", func() { l.Admit(0, 0, 0, w) })
	l.Done(0, 0, false) // w is admitted
	panics("a verdict not read", func() { l.Admit(0, 0, 0, w) })
	l.Done(0, 0, false)
	panics("one Done too many", func() { l.Done(0, 0, false) })
	panics("one Forget too many", func() { l.Forget(0) })
}

// limitCall is a call as limitTwin knows it.
type limitCall struct {
	waiter   *Waiter
	rank     int
	deadline time.Duration
	arrival  int
}

// limitTwin is a fixed limit in the most obvious way.
type limitTwin struct {
	limit, pending, inFlight int
	arrivals                 int
	queue                    []limitCall // sorted
	samples                  int
	mean                     float64
}

func (l *limitTwin) admit(now time.Duration, c limitCall) (v Verdict, evicted *Waiter) {
	if c.deadline != 0 && c.deadline <= now {
		return Hopeless, nil
	}
	if l.inFlight < l.limit && len(l.queue) == 0 {
		l.inFlight++
		return Admitted, nil
	}
	if l.pending == 0 {
		return Refused, nil
	}
	c.arrival = l.arrivals
	l.arrivals++
	queue := append(slices.Clone(l.queue), c)
	slices.SortFunc(queue, compareLimitCalls)
	if c.deadline != 0 && l.samples >= estimateFrom {
		turn := 1
		for _, o := range queue[:slices.Index(queue, c)] {
			if o.deadline == 0 || o.deadline > now {
				turn++
			}
		}
		if float64(turn)*l.mean/float64(l.limit) >= float64(c.deadline-now) {
			return Hopeless, nil
		}
	}
	if len(queue) > l.pending {
		last := l.queue[l.pending-1]
		if last.rank >= c.rank {
			return Refused, nil
		}
		evicted = last.waiter
		queue = slices.DeleteFunc(queue, func(o limitCall) bool { return o.waiter == evicted })
	}
	l.queue = queue
	return Queued, evicted
}

func compareLimitCalls(a, b limitCall) int {
	when := func(c limitCall) time.Duration {
		if c.deadline == 0 {
			return 1 << 62
		}
		return c.deadline
	}
	switch {
	case a.rank != b.rank:
		return b.rank - a.rank
	case when(a) != when(b):
		return int(when(a) - when(b))
	}
	return a.arrival - b.arrival
}

func (l *limitTwin) leave(w *Waiter) bool {
	n := len(l.queue)
	l.queue = slices.DeleteFunc(l.queue, func(c limitCall) bool { return c.waiter == w })
	return len(l.queue) < n
}

// free frees a place and returns what is sent.
func (l *limitTwin) free(now time.Duration) map[*Waiter]Verdict {
	sent := map[*Waiter]Verdict{}
	l.inFlight--
	for l.inFlight < l.limit && len(l.queue) > 0 {
		c := l.queue[0]
		l.queue = l.queue[1:]
		if c.deadline != 0 && c.deadline <= now {
			sent[c.waiter] = Hopeless
			continue
		}
		sent[c.waiter] = Admitted
		l.inFlight++
	}
	return sent
}

func (l *limitTwin) done(now, took time.Duration) map[*Waiter]Verdict {
	l.samples++
	l.mean += (float64(took) - l.mean) / float64(min(l.samples, estimateOver))
	return l.free(now)
}

// twinRun compares a Limit with its twin, one step for each byte or two.
type twinRun struct {
	limit *Limit
	twin  limitTwin
	now   time.Duration
	idle  []*Waiter
	wait  []*Waiter
}

// runTwins runs a history of a fixed limit: limit and queue from the first bytes, then
// a step for each three.
func runTwins(t *testing.T, history []byte) {
	if len(history) < 2 {
		return
	}
	c := LimitConfig{Max: 1 + int(history[0]%8), Pending: int(history[1] % 20)}
	r := &twinRun{limit: NewLimit(c, 0), twin: limitTwin{limit: c.Max, pending: c.Pending}}
	for range 30 {
		r.idle = append(r.idle, NewWaiter())
	}
	for i := 2; i+2 < len(history); i += 3 {
		r.step(t, history[i], int(history[i+1]), int(history[i+2]))
		if limit, in, pending := r.limit.Stats(); limit != c.Max || in > c.Max || pending > c.Pending ||
			in != r.twin.inFlight || pending != len(r.twin.queue) || pending != len(r.wait) {
			t.Fatalf("step %d: limit %d, in flight %d, pending %d of %+v, twin %+v", i, limit, in, pending, c, r.twin)
		}
	}
	for r.twin.inFlight > 0 { // which also ends the waits
		r.step(t, 2, 0, 0)
	}
	if _, in, pending := r.limit.Stats(); in != 0 || pending != 0 || len(r.idle) != 30 {
		t.Fatalf("at the end: in flight %d, pending %d, %d waiters of 30 idle", in, pending, len(r.idle))
	}
}

func (r *twinRun) step(t *testing.T, do byte, a, b int) {
	r.now += time.Duration(do >> 4)
	switch do % 4 {
	case 0, 1:
		w := r.idle[len(r.idle)-1]
		c := limitCall{waiter: w, rank: a%4 - 1}
		if b%4 > 0 {
			c.deadline = r.now + time.Duration(b) - 2
		}
		want, evicted := r.twin.admit(r.now, c)
		full := r.limit.Full(r.now, c.deadline, c.rank)
		if v := r.limit.Admit(r.now, c.deadline, c.rank, w); v != want {
			t.Fatalf("%v, want %v", v, want)
		}
		if late := c.deadline != 0 && c.deadline <= r.now; !late && full != (want == Refused || want == Hopeless) {
			t.Fatalf("full: %v, then %v", full, want)
		}
		if want == Queued {
			r.idle = r.idle[:len(r.idle)-1]
			r.wait = append(r.wait, w)
		}
		r.sent(t, map[*Waiter]Verdict{evicted: Evicted})
	case 2:
		if r.twin.inFlight == 0 {
			return
		}
		if a%8 == 0 {
			r.limit.Forget(r.now)
			r.sent(t, r.twin.free(r.now))
			return
		}
		r.limit.Done(r.now, time.Duration(b/4), false)
		r.sent(t, r.twin.done(r.now, time.Duration(b/4)))
	case 3:
		w := slices.Concat(r.wait, r.idle)[a%30]
		if got, want := r.limit.Leave(w), r.twin.leave(w); got != want {
			t.Fatalf("Leave: %v, want %v", got, want)
		}
		if i := slices.Index(r.wait, w); i >= 0 {
			r.wait = slices.Delete(r.wait, i, i+1)
			r.idle = append(r.idle, w)
		}
	}
}

// sent checks that these verdicts are in the channels, and no others.
func (r *twinRun) sent(t *testing.T, want map[*Waiter]Verdict) {
	for _, w := range slices.Concat(r.wait, r.idle) {
		var v Verdict
		if len(w.C) > 0 {
			v = <-w.C
		}
		if v != want[w] {
			t.Fatalf("a waiter is sent %v, want %v", v, want[w])
		}
		if i := slices.Index(r.wait, w); v != 0 {
			r.wait = slices.Delete(r.wait, i, i+1)
			r.idle = append(r.idle, w)
		}
	}
}

func TestLimitTwins(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		history := make([]byte, 3000)
		for i := range history {
			history[i] = byte(r.Uint32())
		}
		runTwins(t, history)
	}
}

func FuzzLimit(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0, 2, 1, 40})                                      // refused
	f.Add([]byte{0, 1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 2, 1, 40})                    // evicted
	f.Add([]byte{0, 3, 0, 0, 0, 0, 0, 5, 0, 0, 3, 0xf2, 1, 9, 3, 0, 0, 3, 1, 0})         // expired, leave
	f.Add(slices.Repeat([]byte{1, 5, 0, 0, 0, 1, 1, 33, 0x12, 1, 99, 3, 4, 0, 2, 0}, 9)) // estimates
	f.Fuzz(func(t *testing.T, history []byte) { runTwins(t, history) })
}
