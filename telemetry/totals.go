package telemetry

import (
	"strings"
	"sync"
	"time"
)

// maxTotals is how many ways of calls are told apart. Of what comes later addresses are not, and beyond twice as many methods, which count as [OtherMethod].
const maxTotals = 5_000

// Totals sum up what a process counts, from when they were begun, beside whoever takes it. Their methods are safe for concurrent use.
type Totals struct {
	recorder *Recorder
	began    time.Time

	mu sync.Mutex // locked after the recorder's taking
	of map[TotalOf]*Total
}

// TotalOf is what totals tell apart, in valid UTF-8, whatever a peer calls it. Of messages it is the side and the topic alone.
type TotalOf struct {
	Side      Side
	Transport string // as OpenTelemetry calls it: tcp, unix; or shm
	Address   string // that was called, a path if it was a unix socket; empty at servers
	Method    string // "package.Service/Method"
	Topic     string
}

// Total is what was counted.
type Total struct {
	Codes     [codes]uint64 // as in Stats
	Duration  Histogram     // ns
	Failures  Histogram     // ns, of those that did not end with OK
	Waits     Waits         // of unary calls; at a server the last two
	Stored    float64       // ns that messages have waited for a handler
	Request   float64       // bytes
	Response  float64
	Use       Use
	Decisions Decisions
}

// Calls is how many there were.
func (t *Total) Calls() uint64 { return t.Duration.Count() }

func (t *Total) add(one *Taken) {
	for i, n := range one.Codes {
		t.Codes[i] += n
	}
	t.Duration.Merge(&one.Duration)
	t.Failures.Merge(&one.Failures)
	if !one.Stream {
		t.Waits.add(&one.Waits)
	}
	if one.Peer.Topic != "" {
		t.Stored += one.Gap.Sum()
	}
	t.Request += one.Request.Sum()
	t.Response += one.Response.Sum()
	t.Use.add(one.Use)
	t.Decisions.add(&one.Decisions)
}

// Totals begins to sum up what links that are made from now on carry, those that are counted already, too; nil: r is nil.
func (r *Recorder) Totals() *Totals {
	if r == nil {
		return nil
	}
	t := &Totals{recorder: r, began: time.Now(), of: map[TotalOf]*Total{}}
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

// Each calls f with all that was counted, in no order, until now. The total is not f's to keep.
func (t *Totals) Each(f func(TotalOf, *Total)) {
	if t == nil {
		return
	}
	t.settle()
	t.mu.Lock()
	defer t.mu.Unlock()
	for of, total := range t.of {
		f(of, total)
	}
}

// settle has totals that are not closed know what was counted until now.
func (t *Totals) settle() {
	r := t.recorder
	r.taking.Lock()
	defer r.taking.Unlock()
	if _, open := r.totals[t]; open {
		r.settle()
	}
}

// add counts what was taken from routes.
func (t *Totals) add(all []Taken) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range all {
		t.total(&all[i]).add(&all[i])
	}
}

// total is where what was taken from a route counts. The caller holds mu.
func (t *Totals) total(one *Taken) *Total {
	of := TotalOf{Side: one.Side, Transport: transportOf(one.Transport), Method: valid(strings.TrimPrefix(one.Method, "/"))}
	if of.Side == Client {
		of.Address = valid(socketPath(one.Peer.Address))
	}
	if one.Peer.Topic != "" {
		of = TotalOf{Side: one.Side, Topic: valid(one.Peer.Topic)}
	}
	if t.of[of] == nil && len(t.of) >= maxTotals {
		of.Address = ""
	}
	if t.of[of] == nil && len(t.of) >= 2*maxTotals {
		if of.Topic != "" {
			of.Topic = OtherMethod
		} else {
			of.Method = OtherMethod
		}
	}
	if t.of[of] == nil {
		t.of[of] = &Total{}
	}
	return t.of[of]
}

// transportOf is OpenTelemetry's name for one of ours.
func transportOf(name string) string {
	switch name {
	case "unix-stream":
		return "unix"
	case "tcp-loopback":
		return "tcp"
	}
	return valid(name)
}

// socketPath is what a local connection to a unix socket has for an address, of the target that has it called over gRPC.
func socketPath(address string) string {
	if name, is := strings.CutPrefix(address, "unix-abstract:"); is {
		return "@" + name
	}
	path, _ := strings.CutPrefix(address, "unix:")
	if strings.HasPrefix(path, "///") {
		return path[2:]
	}
	return path
}

func valid(s string) string { return strings.ToValidUTF8(s, "?") }

// settle has totals know what was counted until now, and holds it for who takes, if somebody does. The caller holds taking.
func (r *Recorder) settle() {
	all := r.drain(false)
	if !r.takes.Load() {
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

// tidy empties the routes of links that are closed while nobody takes, and forgets these.
func (r *Recorder) tidy() {
	r.taking.Lock()
	defer r.taking.Unlock()
	if !r.takes.Load() {
		r.drain(false)
	}
}
