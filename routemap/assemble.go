package routemap

import "container/list"

// Bounds of an Assembler.
const (
	// DefaultSpans is how many spans an Assembler holds, of about 0.5 kB each. One with more to say of bodies counts as several.
	DefaultSpans = 1_000_000
	spanBytes    = 512
	// maxTraceSpans is how many spans of one trace are taken.
	maxTraceSpans = 100_000
)

// FaultTooLarge counts spans that are left out because their trace has too many.
const FaultTooLarge = "trace with more than 100,000 spans"

// Assembler puts spans that come in any order together to traces. It is not safe for concurrent use.
type Assembler struct {
	most   int
	done   func(*Trace)
	traces map[string]*list.Element
	byUse  *list.List // of *assembling, the one that had a span last in front
	spans  int
	room   int // that they take: spans of spanBytes
	over   uint64
	sweeps uint64
}

type assembling struct {
	id    string
	spans []Span
	room  int
	swept uint64 // how many sweeps there had been when it had its last span
}

// NewAssembler returns one that holds up to most spans, 0: DefaultSpans. It calls done for each trace, when Flush is called; or before, for the one that
// had no span for longest, when it holds too many: what of that trace still comes is then another trace. Of traces that Take has returned it does not; done may
// be nil where most is never reached.
func NewAssembler(most int, done func(*Trace)) *Assembler {
	if most <= 0 {
		most = DefaultSpans
	}
	return &Assembler{most: most, done: done, traces: map[string]*list.Element{}, byUse: list.New()}
}

// Add takes in a span.
func (a *Assembler) Add(s Span) {
	e := a.traces[s.Trace]
	if e == nil {
		e = a.byUse.PushFront(&assembling{id: s.Trace})
		a.traces[s.Trace] = e
	} else {
		a.byUse.MoveToFront(e)
	}
	t := e.Value.(*assembling)
	t.swept = a.sweeps
	if len(t.spans) >= maxTraceSpans {
		a.over++
		return
	}
	t.spans = append(t.spans, s)
	a.spans++
	room := 1 + s.Bodies.bytes()/spanBytes
	t.room += room
	a.room += room
	for a.room > a.most {
		a.end(a.byUse.Back())
	}
}

func (a *Assembler) end(e *list.Element) { a.done(NewTrace(a.take(e))) }

func (a *Assembler) take(e *list.Element) []Span {
	t := e.Value.(*assembling)
	a.byUse.Remove(e)
	delete(a.traces, t.id)
	a.spans -= len(t.spans)
	a.room -= t.room
	return t.spans
}

// Flush ends all traces, in the order in which they had their last span.
func (a *Assembler) Flush() {
	for e := a.byUse.Back(); e != nil; e = a.byUse.Back() {
		a.end(e)
	}
}

// Sweep makes traces ripe that had no span since the Sweep before. One that has another span before it is taken is not ripe any more.
func (a *Assembler) Sweep() { a.sweeps++ }

// Take takes out the trace that had no span for longest, if it is ripe or any may be taken, and returns its spans for NewTrace; else nil.
func (a *Assembler) Take(anyone bool) []Span {
	e := a.byUse.Back()
	if e == nil || !anyone && e.Value.(*assembling).swept+1 >= a.sweeps {
		return nil
	}
	return a.take(e)
}

// Room is how many spans of about 0.5 kB would take what the held ones do.
func (a *Assembler) Room() int { return a.room }

// Holds is how many spans are held.
func (a *Assembler) Holds() int { return a.spans }

// LeftOut is how many spans were left out because their trace has too many.
func (a *Assembler) LeftOut() uint64 { return a.over }
