package hub

import (
	"context"
	"maps"
	"math"
	"sync"
	"time"

	"github.com/stile-ipc/stile/routemap"
)

// Reasons for which the hub leaves out spans, beside those of package tracefile.
const (
	FarOff  = "a time more than a day ahead or a month ago"
	TooLong = "longer than a day"
	NoRoom  = "no room, as traces come faster than they are put on the map"
	OfHub   = "of calls that another hub has counted: its metrics tell of all of them"
)

const (
	farAhead = 24 * time.Hour
	farAgo   = 31 * 24 * time.Hour
	longest  = 24 * time.Hour
)

// drawnAtOnce is how many spans are taken out at once to be put on the map, or more of one trace.
const drawnAtOnce = 4096

// notedFor is for how many sweeps after a note others are waited for, as they come in a window of their process: exporters' traces are complete as late as reported ones then.
const notedFor = 12

// reportedSweep is of how many sweeps one is of what processes report: a trace may have spans in two windows of theirs, and is complete when it was quiet for longer than one.
const reportedSweep = 3

// intake puts spans together to traces, of which it has no more than there is room for: who brings more waits. Its methods are safe for concurrent use; its lock is
// held for no longer than it takes to look at what a request has brought.
type intake struct {
	clock    func() time.Time
	patience time.Duration // for which room is waited for
	ready    chan struct{} // there may be something that is complete

	mu        sync.Mutex
	ended     bool
	assembler pile
	reported  pile          // of what processes report
	freed     chan struct{} // closed when something was taken out; nil: nobody waits for it
	sweeps    int
	noted     int // sweeps for which notes are waited for
	requests  uint64
	spans     uint64
	leftOut   map[string]uint64
	refused   map[string]uint64 // requests, by reason
}

func newIntake(spans int, clock func() time.Time) *intake {
	return &intake{
		clock: clock, patience: patience, ready: make(chan struct{}, 1), leftOut: map[string]uint64{}, refused: map[string]uint64{},
		assembler: newPile(spans), reported: newPile(max(spans/2, 1)),
	}
}

// pile is traces that are being put together, or wait to be put on the map.
type pile struct {
	*routemap.Assembler
	most int // spans that are held until their traces were quiet
}

func newPile(most int) pile { return pile{routemap.NewAssembler(math.MaxInt, nil), most} }

// crowded tells that the trace that had no span for longest is taken for complete.
func (p *pile) crowded() bool { return p.Room() > p.most }

// full tells that nothing more is taken in. Until then what is crowded has an eighth more, so that who adds and who draws do not wait for each other.
func (p *pile) full() bool { return p.Room() > p.most+p.most/8 }

// batch is what one request has brought.
type batch struct {
	now     time.Time
	spans   []routemap.Span
	notes   []routemap.Span // of spans that others send
	leftOut map[string]uint64
	ofHub   uint64 // spans that another hub tells of, which is no fault of who sends them
}

func (in *intake) batch() *batch { return &batch{now: in.clock(), leftOut: map[string]uint64{}} }

// take takes in a span, if it can be one.
func (b *batch) take(s routemap.Span) error {
	start, end := time.Unix(0, s.Start), time.Unix(0, s.End)
	switch {
	case s.Counted:
		b.ofHub++
	case start.After(b.now.Add(farAhead)) || end.After(b.now.Add(farAhead)) || start.Before(b.now.Add(-farAgo)):
		b.leftOut[FarOff]++
	case s.End-s.Start > int64(longest):
		b.leftOut[TooLong]++
	default:
		b.spans = append(b.spans, s)
	}
	return nil
}

// add hands over what a request has brought. It waits for room while the map does not keep up, and returns errFull, or ctx's error, if there was none for long: then
// nothing of the request counts.
func (in *intake) add(ctx context.Context, b *batch) error {
	if err := in.lockWithRoom(ctx, &in.assembler); err != nil {
		return err
	}
	defer in.mu.Unlock()
	in.requests++
	in.spans += uint64(len(b.spans))
	in.addLocked(&in.assembler, b)
	return nil
}

// addReported hands over what a process has reported, in a window of its own. It waits for room until ctx ends; then spans are left out, and counted.
func (in *intake) addReported(ctx context.Context, b *batch) {
	if err := in.lockWithRoom(ctx, &in.reported); err != nil {
		in.mu.Lock()
		b.leftOut[NoRoom] += uint64(len(b.spans) + len(b.notes))
		b.spans, b.notes = nil, nil
	}
	defer in.mu.Unlock()
	if len(b.notes) > 0 && in.assembler.full() {
		b.leftOut[NoRoom] += uint64(len(b.notes))
		b.notes = nil
	}
	in.addLocked(&in.reported, b)
	if len(b.notes) == 0 {
		return
	}
	in.noted = notedFor
	in.putLocked(&in.assembler, b.notes)
}

// lockWithRoom waits until a pile has room, and returns with the lock if it returns no error.
func (in *intake) lockWithRoom(ctx context.Context, p *pile) error {
	in.mu.Lock()
	if !p.full() && !in.ended {
		return nil
	}
	late := time.NewTimer(in.patience)
	defer late.Stop()
	for p.full() && !in.ended {
		if in.freed == nil {
			in.freed = make(chan struct{})
		}
		freed := in.freed
		in.mu.Unlock()
		select {
		case <-freed:
		case <-ctx.Done():
			return ctx.Err()
		case <-late.C:
			return errFull
		}
		in.mu.Lock()
	}
	if in.ended { // the hub is being closed
		in.mu.Unlock()
		return errFull
	}
	return nil
}

func (in *intake) addLocked(p *pile, b *batch) {
	for why, n := range b.leftOut {
		in.leftOut[why] += n
	}
	if b.ofHub > 0 {
		in.leftOut[OfHub] += b.ofHub
	}
	in.putLocked(p, b.spans)
}

func (in *intake) putLocked(p *pile, spans []routemap.Span) {
	for _, s := range spans {
		p.Add(s)
	}
	if p.crowded() {
		in.look()
	}
}

// look has who draws look whether something is complete.
func (in *intake) look() {
	select {
	case in.ready <- struct{}{}:
	default: // it will look anyway
	}
}

// complete takes out traces that are complete, some at once, each as spans for [routemap.NewTrace]. more is false when there are none, and never will be.
func (in *intake) complete() (traces [][]routemap.Span, more bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, p := range []*pile{&in.reported, &in.assembler} {
		for n := 0; n < drawnAtOnce; {
			spans := p.Take(in.ended || p.crowded())
			if spans == nil {
				break
			}
			n += len(spans)
			traces = append(traces, spans)
		}
	}
	if len(traces) > 0 {
		in.freeLocked()
	}
	return traces, len(traces) > 0 || !in.ended
}

// freeLocked has those go on who wait for room.
func (in *intake) freeLocked() {
	if in.freed != nil {
		close(in.freed)
		in.freed = nil
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
	in.look()
}

// end completes all traces. Nothing is added afterwards.
func (in *intake) end() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.ended = true
	in.freeLocked()
	in.look()
}

// Intake tells what was taken in since the hub was opened.
type Intake struct {
	Requests uint64            `json:"requests"`
	Refused  map[string]uint64 `json:"refused"` // requests, by reason
	Spans    uint64            `json:"spans"`
	LeftOut  map[string]uint64 `json:"leftOut"` // spans, by reason
	Held     int               `json:"held"`    // spans, until their traces are complete and on the map
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
