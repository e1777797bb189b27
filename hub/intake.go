package hub

import (
	"maps"
	"sync"
	"time"

	"github.com/stile-ipc/stile/routemap"
)

// Reasons for which the hub leaves out spans, beside those of package tracefile.
const (
	FarOff  = "a time more than a day ahead or a month ago"
	TooLong = "longer than a day"
)

const (
	farAhead = 24 * time.Hour
	farAgo   = 31 * 24 * time.Hour
	longest  = 24 * time.Hour
)

// completed is how many traces wait to be put on the map; then exporters wait.
const completed = 4096

// notedFor is for how many sweeps after a note others are waited for, as they come in a window of their process: exporters' traces are complete as late as reported ones then.
const notedFor = 12

// reportedSweep is of how many sweeps one is of what processes report: a trace may have spans in two windows of theirs, and is complete when it was quiet for longer than one.
const reportedSweep = 3

// intake puts spans together to traces.
type intake struct {
	clock  func() time.Time
	traces chan *routemap.Trace

	mu        sync.Mutex
	ended     bool
	assembler *routemap.Assembler
	reported  *routemap.Assembler // of what processes report
	sweeps    int
	noted     int // sweeps for which notes are waited for
	requests  uint64
	spans     uint64
	leftOut   map[string]uint64
	refused   map[string]uint64 // requests, by reason
}

func newIntake(spans int, clock func() time.Time) *intake {
	in := &intake{clock: clock, traces: make(chan *routemap.Trace, completed), leftOut: map[string]uint64{}, refused: map[string]uint64{}}
	done := func(t *routemap.Trace) {
		if t.Len() > 0 { // notes alone are none
			in.traces <- t
		}
	}
	in.assembler, in.reported = routemap.NewAssembler(spans, done), routemap.NewAssembler(max(spans/2, 1), done)
	return in
}

// batch is what one request has brought.
type batch struct {
	now     time.Time
	spans   []routemap.Span
	notes   []routemap.Span // of spans that others send
	leftOut map[string]uint64
}

func (in *intake) batch() *batch { return &batch{now: in.clock(), leftOut: map[string]uint64{}} }

// take takes in a span, if it can be one.
func (b *batch) take(s routemap.Span) error {
	start, end := time.Unix(0, s.Start), time.Unix(0, s.End)
	switch {
	case start.After(b.now.Add(farAhead)) || end.After(b.now.Add(farAhead)) || start.Before(b.now.Add(-farAgo)):
		b.leftOut[FarOff]++
	case s.End-s.Start > int64(longest):
		b.leftOut[TooLong]++
	default:
		b.spans = append(b.spans, s)
	}
	return nil
}

// add hands over what a request has brought. It waits while the map does not keep up.
func (in *intake) add(b *batch) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.requests++
	in.spans += uint64(len(b.spans))
	in.addTo(in.assembler, b)
}

// addReported hands over what a process has reported, in a window of its own.
func (in *intake) addReported(b *batch) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.addTo(in.reported, b)
	if in.ended || len(b.notes) == 0 {
		return
	}
	in.noted = notedFor
	for _, s := range b.notes {
		in.assembler.Add(s)
	}
}

func (in *intake) addTo(a *routemap.Assembler, b *batch) {
	for why, n := range b.leftOut {
		in.leftOut[why] += n
	}
	if in.ended {
		return // the hub is being closed, and has not waited for this
	}
	for _, s := range b.spans {
		a.Add(s)
	}
}

func (in *intake) refuse(why string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.refused[why]++
}

func (in *intake) sweep() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.sweeps++
	late := in.sweeps%reportedSweep == 0
	if late {
		in.reported.Sweep()
	}
	if in.noted > 0 {
		in.noted--
	}
	if late || in.noted == 0 {
		in.assembler.Sweep()
	}
}

// end completes all traces. Nothing is added afterwards.
func (in *intake) end() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.assembler.Flush()
	in.reported.Flush()
	in.ended = true
	close(in.traces)
}

// Intake tells what was taken in since the hub was opened.
type Intake struct {
	Requests uint64            `json:"requests"`
	Refused  map[string]uint64 `json:"refused"` // requests, by reason
	Spans    uint64            `json:"spans"`
	LeftOut  map[string]uint64 `json:"leftOut"` // spans, by reason
	Held     int               `json:"held"`    // spans, until their traces are complete
}

func (in *intake) status() Intake {
	in.mu.Lock()
	defer in.mu.Unlock()
	s := Intake{in.requests, maps.Clone(in.refused), in.spans, maps.Clone(in.leftOut), in.assembler.Holds() + in.reported.Holds()}
	if over := in.assembler.LeftOut() + in.reported.LeftOut(); over > 0 {
		s.LeftOut[routemap.FaultTooLarge] = over
	}
	return s
}
